"""Holds a port that several processes answer on, so that it stays theirs alone."""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, TypeAlias

from identity.startup import CannotListen
from identity.values import Endpoint

# The machine has no such address, or not of this family: a name may have others.
_ABSENT: Final = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}

_Address: TypeAlias = tuple[object, ...]  # host, port, and what the family has besides


@contextmanager
def reserved(listen: Endpoint) -> Iterator[Endpoint]:
    """Keeps the port from others, and takes no connections; port 0 picks a free one.

    Only sockets of the same user with SO_REUSEPORT can be bound to it meanwhile. All addresses of
    a host's name are held. Raises CannotListen.
    """
    with ExitStack() as held:
        bound = None
        port = listen.port
        for family, (host, _, *rest) in _addresses(listen):
            try:
                bound = held.enter_context(_bound(family, (host, port, *rest)))
            except OSError as error:
                if error.errno in _ABSENT:
                    continue
                raise CannotListen(listen) from None
            port = bound.getsockname()[1]  # the next addresses have the same one
        if bound is None:
            raise CannotListen(listen)
        yield Endpoint(listen.host, port)


def _addresses(listen: Endpoint) -> list[tuple[socket.AddressFamily, _Address]]:
    try:
        found = socket.getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError):  # UnicodeError: no name could be spelled so
        raise CannotListen(listen) from None
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _bound(family: socket.AddressFamily, address: _Address) -> socket.socket:
    try:
        bound = _bound_alone(family, address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        # Connections of a server that has ended may linger for a minute.
        bound = _bound_alone(family, address, beside_old_connections=True)
    # Only now that it is bound, and no longer beside old connections: without SO_REUSEPORT a port
    # that others share can't be had, nor one at which another reservation waits for its workers.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return bound


def _bound_alone(
    family: socket.AddressFamily,
    address: _Address,
    *,
    beside_old_connections: bool = False,
) -> socket.socket:
    unbound = socket.socket(family, socket.SOCK_STREAM)
    try:
        unbound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, beside_old_connections)
        unbound.bind(address)
    except OSError:
        unbound.close()
        raise
    return unbound
