"""The hub's listening socket: TLS, HTTP/1.1 and WebSocket framing with a deadline on everything a client can delay.

Built on Hypercorn's trio worker; knows nothing of environments, tasks or tokens. Runs in the hub.
"""

from guardhouse.hub.transport.accept_queue import AcceptQueue
from guardhouse.hub.transport.certificate_dates import certificate_notice, read_validity
from guardhouse.hub.transport.listen import Listener, bind_listener, serve_listener
from guardhouse.hub.transport.tls import load_certificate, server_context
from guardhouse.hub.transport.websocket import Probe

__all__ = [
    "AcceptQueue",
    "Listener",
    "Probe",
    "bind_listener",
    "certificate_notice",
    "load_certificate",
    "read_validity",
    "serve_listener",
    "server_context",
]
