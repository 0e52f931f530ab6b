"""Who calls, as the rate limit counts and the log names it."""

import socket
from urllib.parse import unquote

_MAPPED_PREFIX = bytes(10) + b"\xff\xff"  # RFC 4291, 2.5.5.2
_NETWORK_BYTES = 8  # a /64: what one subscriber is given (RFC 6177)


def client_of(peer: str) -> str:
    """The client behind a gRPC peer: its address without the port.

    `ipv4:192.0.2.7:50000` is `192.0.2.7`; `ipv6:%5B2001:db8::7%5D:50000` is `2001:db8::/64`;
    an IPv4-mapped address is the IPv4 one; any other peer, such as `unix:`, is its scheme.
    """
    scheme, _, address = peer.partition(":")
    if scheme == "ipv4":
        return address.rpartition(":")[0]
    if scheme == "ipv6":
        # The zone of a link-local address names one of our interfaces, not the peer.
        host = unquote(address).rpartition(":")[0].strip("[]").partition("%")[0]
        return _of_ipv6(host)
    return scheme


def _of_ipv6(host: str) -> str:
    # inet_pton takes 0.3 µs where the ipaddress module takes 5.
    try:
        packed = socket.inet_pton(socket.AF_INET6, host)
    except OSError:  # not a peer that gRPC makes; all such share one window
        return "ipv6"
    if packed.startswith(_MAPPED_PREFIX):
        return socket.inet_ntop(socket.AF_INET, packed[len(_MAPPED_PREFIX) :])
    network = packed[:_NETWORK_BYTES] + bytes(16 - _NETWORK_BYTES)
    return f"{socket.inet_ntop(socket.AF_INET6, network)}/64"
