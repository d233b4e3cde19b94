"""Who a command may connect to, and what it says to the proxy that connects for it: decided here, done in the runner.

Pure: no socket, no clock, no name service. `host` and `address` are the one place where names and addresses are judged;
`rules` is the allow-list of a profile; `detect`, `socks` and `http_message` read what a command sends, `tunnel` and
`client_hello` what its TLS asks for; `record` is what is written down of each connection.
"""
