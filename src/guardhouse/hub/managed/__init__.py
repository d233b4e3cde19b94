"""The managed sandbox: a runner of our own on the hub's host, one workspace for each session. Runs in the hub."""
