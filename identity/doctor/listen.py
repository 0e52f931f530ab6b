"""Whether the service could listen where it should, and who could read along."""

import errno
import socket
from collections.abc import Iterator

from identity.config import Settings
from identity.doctor.finding import Finding, failed, passed, warned
from identity.values import Endpoint


def listen_findings(settings: Settings) -> Iterator[Finding]:
    yield _place("listen", settings.listen)
    if settings.metrics_listen is not None:
        yield _place("listen.metrics", settings.metrics_listen)
    if settings.tls_cert is None and not settings.listen.is_loopback:
        yield warned(
            "listen.plaintext",
            f"passwords come in plaintext to {settings.listen}",
            "set IDENTITY_TLS_CERT and IDENTITY_TLS_KEY, unless a mesh encrypts",
        )


def _place(name: str, endpoint: Endpoint) -> Finding:
    mend = "give an address of this machine, and a port that its user may open"
    try:
        places = socket.getaddrinfo(
            endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, address in places:
            with socket.socket(family, kind, protocol) as tried:
                # As a server does: connections that have ended do not hold the port.
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            found = f"{endpoint} is in use"
            return warned(name, found, "none if the service runs already; else another port")
        return failed(name, f"{endpoint}: {error.strerror}", mend)
    return passed(name, f"{endpoint} is free")
