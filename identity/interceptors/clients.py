"""Who calls: what a certificate proves, and as the rate limit counts and the log names it."""

import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Final, TypeAlias
from urllib.parse import unquote

import grpc

from identity.callers import NOBODY, Caller

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]
# By the bytes in an address: how far to shift it, and what is then one of ours.
_Prefixes: TypeAlias = Mapping[int, tuple[tuple[int, frozenset[int]], ...]]

_FORWARDED: Final = "x-forwarded-for"
_MAPPED_PREFIX: Final = bytes(10) + b"\xff\xff"  # RFC 4291, 2.5.5.2
_NETWORK_BYTES: Final = 8  # a /64: what one subscriber is given (RFC 6177)
# 192.0.2.7 or [2001:db8::1], each with or without a port, or 2001:db8::1; never with a zone, which
# would name an interface of the proxy.
_ELEMENT: Final = re.compile(
    r"(?:([0-9.]+)|\[([0-9A-Fa-f:.]+)\])(?::([0-9]{1,5}))?|([0-9A-Fa-f:.]+)"
)


class Clients:
    """Tells clients apart, also those behind proxies whose `x-forwarded-for` is believed."""

    def __init__(self, trusted: Iterable[IPv4Network | IPv6Network] = ()) -> None:
        """`trusted` holds the proxies. One written as IPv4-mapped IPv6 is the IPv4 one."""
        self._trusted: Final = _prefixes(trusted)

    def of(self, peer: str, metadata: Metadata, caller: Caller = NOBODY) -> str:
        """The client of a call: the forwarded one if a trusted peer names it, else the caller that
        a certificate proves, else the peer.

        The forwarded one is the right-most in `x-forwarded-for` that is not itself trusted: what
        stands to its left is the caller's own word. If that one is not an address, or all are
        trusted, there is none.
        """
        if caller.forwards_clients or (self._trusted and self._is_trusted(peer)):
            return self._forwarded(metadata) or caller.name or client_of(peer)
        return caller.name or client_of(peer)

    def _is_trusted(self, peer: str) -> bool:
        sender = _address_of(peer)
        return sender is not None and self._trusts(sender)

    def _forwarded(self, metadata: Metadata) -> str | None:
        for element in _from_the_right(metadata):
            address = _address_in(element)
            if address is None:
                return None
            if not self._trusts(address):
                return _name(address)
        return None

    def _trusts(self, address: bytes) -> bool:
        number = int.from_bytes(address, "big")
        return any(
            number >> shift in prefixes for shift, prefixes in self._trusted.get(len(address), ())
        )


def certificate_names(context: grpc.ServicerContext) -> list[str]:
    """The URIs and then the DNS names in the certificate that the caller has shown, if any."""
    found = context.auth_context()
    names = (*found.get("peer_uri", ()), *found.get("peer_dns", ()))
    return [name.decode("ascii", "replace") for name in names]


def client_of(peer: str) -> str:
    """The client that a gRPC peer is: its address without the port.

    `ipv4:192.0.2.7:50000` is `192.0.2.7`; `ipv6:%5B2001:db8::7%5D:50000` is `2001:db8::/64`;
    an IPv4-mapped address is the IPv4 one; any other peer, such as `unix:`, is its scheme.
    """
    scheme, _, address = peer.partition(":")
    if scheme == "ipv4":
        return address.rpartition(":")[0]
    if scheme == "ipv6":
        packed = _packed(socket.AF_INET6, _ipv6_host(address))
        # None is not a peer that gRPC makes; all such share one window.
        return "ipv6" if packed is None else _name(packed)
    return scheme


def _address_of(peer: str) -> bytes | None:
    scheme, _, address = peer.partition(":")
    if scheme == "ipv4":
        return _packed(socket.AF_INET, address.rpartition(":")[0])
    if scheme == "ipv6":
        return _packed(socket.AF_INET6, _ipv6_host(address))
    return None


def _ipv6_host(address: str) -> str:
    # The zone of a link-local address names one of our interfaces, not the peer.
    return unquote(address).rpartition(":")[0].strip("[]").partition("%")[0]


def _from_the_right(metadata: Metadata) -> Iterator[str]:
    """The elements of all `x-forwarded-for` entries, the last one first.

    gRPC's core, as of 1.85, hands on only the last entry. It is the one nearest to us, so that
    what is lost are clients behind a chain, never the distrust of a forged entry.
    """
    for key, value in reversed(metadata):
        if key != _FORWARDED or not isinstance(value, str):
            continue
        end = len(value)
        while end >= 0:  # finds one comma at a time: a long header is read only as far as needed
            comma = value.rfind(",", 0, end)
            yield value[comma + 1 : end]
            end = comma


def _address_in(element: str) -> bytes | None:
    found = _ELEMENT.fullmatch(element.strip(" \t"))
    if found is None:
        return None
    ipv4, bracketed, port, bare = found.groups()
    if port and int(port) >= 1 << 16:
        return None
    if ipv4:
        return _packed(socket.AF_INET, ipv4)
    return _packed(socket.AF_INET6, bracketed or bare)


def _packed(family: socket.AddressFamily, host: str) -> bytes | None:
    """The address in 4 bytes, also if IPv4-mapped, or in 16; None if it is not one."""
    # inet_pton takes 0.3 µs where the ipaddress module takes 5.
    try:
        return socket.inet_pton(family, host).removeprefix(_MAPPED_PREFIX)
    except (OSError, ValueError):  # a ValueError for a null character
        return None


def _name(address: bytes) -> str:
    if len(address) == 4:
        return socket.inet_ntop(socket.AF_INET, address)
    network = address[:_NETWORK_BYTES] + bytes(16 - _NETWORK_BYTES)
    return f"{socket.inet_ntop(socket.AF_INET6, network)}/64"


def _prefixes(networks: Iterable[IPv4Network | IPv6Network]) -> _Prefixes:
    found: dict[int, dict[int, set[int]]] = {}
    for network in networks:
        address = network.network_address.packed.removeprefix(_MAPPED_PREFIX)
        shift = network.max_prefixlen - network.prefixlen
        number = int.from_bytes(address, "big") >> shift
        found.setdefault(len(address), {}).setdefault(shift, set()).add(number)
    return {
        size: tuple((shift, frozenset(numbers)) for shift, numbers in by_shift.items())
        for size, by_shift in found.items()
    }
