"""Who calls, as the rate limit counts it: a peer, or whom a trusted one forwards."""

from ipaddress import ip_network

import pytest

from identity.interceptors.clients import Clients, client_of


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        ("ipv4:192.0.2.7:50000", "192.0.2.7"),
        ("ipv4:127.0.0.1:1", "127.0.0.1"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:50000", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:50000", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:DB8::7%5D:50000", "2001:db8::/64"),
        ("ipv6:%5B::1%5D:50000", "::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:50000", "fe80::/64"),
        ("ipv6:%5Bfe80::1%eth0%5D:50000", "fe80::/64"),
        ("ipv6:%5B::ffff:192.0.2.7%5D:50000", "192.0.2.7"),
        ("ipv6:%5B::ffff:c000:207%5D:50000", "192.0.2.7"),
        ("unix:/run/identity.sock", "unix"),
        ("unix:", "unix"),
        ("unix-abstract:identity", "unix-abstract"),
    ],
)
def test_a_client_is_its_address_without_the_port(peer: str, client: str) -> None:
    assert client_of(peer) == client


def test_all_addresses_of_one_subscriber_are_one_client() -> None:
    peers = [f"ipv6:%5B2001:db8:1:2:{host:x}::{host:x}%5D:{host}" for host in range(1, 50)]
    assert len({client_of(peer) for peer in peers}) == 1


def test_the_neighbouring_network_is_another_client() -> None:
    assert client_of("ipv6:%5B2001:db8:1:2::1%5D:1") != client_of("ipv6:%5B2001:db8:1:3::1%5D:1")


@pytest.mark.parametrize(
    ("of_the_first", "of_the_second"),
    [
        ("ipv4:192.0.2.7:50000", "ipv4:192.0.2.7:50001"),
        ("ipv4:192.0.2.7:50000", "ipv6:%5B::ffff:192.0.2.7%5D:50001"),
        ("ipv6:%5Bfe80::1%25eth0%5D:1", "ipv6:%5Bfe80::1%25eth1%5D:2"),
        ("unix:/a", "unix:/b"),
    ],
)
def test_another_port_or_way_in_does_not_make_another_client(
    of_the_first: str, of_the_second: str
) -> None:
    assert client_of(of_the_first) == client_of(of_the_second)


@pytest.mark.parametrize(
    "peer",
    [
        "ipv6:",
        "ipv6:rubbish",
        "ipv6:%5B%5D:1",
        "ipv6:%5Bnot-an-address%5D:1",
        "ipv6:%5B2001:db8:::1%5D:1",
        "ipv6:%5B1:2:3:4:5:6:7:8:9%5D:1",
        "ipv6:%5B192.0.2.7%5D:1",
    ],
)
def test_malformed_addresses_all_share_one_window(peer: str) -> None:
    assert client_of(peer) == "ipv6"


@pytest.mark.parametrize("peer", ["", "rubbish", "vsock:3:5"])
def test_any_other_peer_is_its_scheme(peer: str) -> None:
    assert client_of(peer) == peer.partition(":")[0]


# Forwarded

PROXY = "ipv4:10.0.0.1:50000"
OWN = "10.0.0.1"
TRUSTED = ("10.0.0.0/8", "203.0.113.7", "fd00::/8", "2001:db8:f::7")


def behind(*networks: str) -> Clients:
    return Clients(ip_network(network) for network in networks)


def forwarded(*entries: str) -> tuple[tuple[str, str | bytes], ...]:
    return tuple(("x-forwarded-for", entry) for entry in entries)


@pytest.mark.parametrize(
    ("entries", "client"),
    [
        pytest.param(["192.0.2.7"], "192.0.2.7", id="one"),
        pytest.param(["198.51.100.1, 192.0.2.7"], "192.0.2.7", id="the right-most"),
        pytest.param(["198.51.100.1,192.0.2.7"], "192.0.2.7", id="no space after the comma"),
        pytest.param(["192.0.2.7, 10.9.9.9"], "192.0.2.7", id="left of a trusted one"),
        pytest.param(
            ["192.0.2.7, fd00::1, 10.2.3.4, 203.0.113.7"], "192.0.2.7", id="left of many trusted"
        ),
        pytest.param(["10.1.1.1, 192.0.2.7"], "192.0.2.7", id="right of a trusted one"),
        pytest.param(["rubbish, 192.0.2.7"], "192.0.2.7", id="right of rubbish"),
        pytest.param(["203.0.113.8"], "203.0.113.8", id="a trusted address's neighbour"),
        pytest.param(["11.0.0.0"], "11.0.0.0", id="just past a trusted network"),
        pytest.param(["fc00::1"], "fc00::/64", id="just before a trusted network"),
        pytest.param(["2001:db8:f::8"], "2001:db8:f::/64", id="in the /64 of a trusted address"),
        pytest.param(["198.51.100.1", "192.0.2.7"], "192.0.2.7", id="the last entry"),
        pytest.param(["192.0.2.7", "10.9.9.9"], "192.0.2.7", id="the entry before a trusted one"),
        pytest.param(
            ["198.51.100.1", "192.0.2.7, 10.1.1.1", "10.2.2.2"], "192.0.2.7", id="many entries"
        ),
    ],
)
def test_the_right_most_address_that_is_not_trusted_is_the_client(
    entries: list[str], client: str
) -> None:
    assert behind(*TRUSTED).of(PROXY, forwarded(*entries)) == client


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([], id="no header"),
        pytest.param([""], id="an empty one"),
        pytest.param(["10.1.1.1"], id="one trusted"),
        pytest.param(["fd00::1, 10.1.1.1", "203.0.113.7"], id="all trusted"),
        pytest.param(["rubbish"], id="rubbish"),
        pytest.param(["192.0.2.7, rubbish"], id="rubbish right of an address"),
        pytest.param(["192.0.2.7, rubbish, 10.1.1.1"], id="rubbish left of a trusted one"),
        pytest.param(["192.0.2.7,"], id="nothing after the comma"),
        pytest.param(["192.0.2.7, , 10.1.1.1"], id="nothing between commas"),
        pytest.param(["192.0.2.7", ""], id="an empty last entry"),
        pytest.param(["192.0.2.7", "rubbish"], id="rubbish in the last entry"),
    ],
)
def test_where_none_is_forwarded_the_client_is_the_peer(entries: list[str]) -> None:
    assert behind(*TRUSTED).of(PROXY, forwarded(*entries)) == OWN


@pytest.mark.parametrize(
    ("element", "client"),
    [
        ("192.0.2.7:1234", "192.0.2.7"),
        ("192.0.2.7:0", "192.0.2.7"),
        ("192.0.2.7:65535", "192.0.2.7"),
        (" \t192.0.2.7:1234\t ", "192.0.2.7"),
        ("2001:db8::7", "2001:db8::/64"),
        ("2001:DB8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::1", "::/64"),
        ("::", "::/64"),
        ("[2001:db8::7]", "2001:db8::/64"),
        ("[2001:db8::1]:443", "2001:db8::/64"),
        (" [2001:db8::1]:443 ", "2001:db8::/64"),
        ("2001:db8::192.0.2.7", "2001:db8::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:c000:207", "192.0.2.7"),
        ("[::ffff:192.0.2.7]:443", "192.0.2.7"),
    ],
)
def test_an_element_may_carry_brackets_a_port_and_spaces(element: str, client: str) -> None:
    assert behind(*TRUSTED).of(PROXY, forwarded(element)) == client


@pytest.mark.parametrize(
    "element",
    [
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "010.1.1.1",
        "192.0.2.07",
        "0xc0.0.2.7",
        "3221225991",
        "192.0.2.7/32",
        "192.0.2.7:",
        "192.0.2.7:65536",
        "192.0.2.7:123456",
        "192.0.2.7:-1",
        "192.0.2.7:http",
        "192.0.2.7:1:2",
        "192.0.2.7 198.51.100.1",
        "192.0.2 .7",
        "192.0.2.7\n",
        "192.0.2.7\0",
        "192.0.2.\u0667",
        "192.0.2.7\u00a0",
        "192.0.2.7\ud800",
        "[192.0.2.7]",
        "[192.0.2.7]:443",
        '"192.0.2.7"',
        "for=192.0.2.7",
        "2001:db8:::1",
        "1:2:3:4:5:6:7:8:9",
        "2001:db8::12345",
        "[2001:db8::1",
        "2001:db8::1]",
        "[2001:db8::1]443",
        "[2001:db8::1]:",
        "[2001:db8::1]:65536",
        "[[2001:db8::1]]",
        "[ 2001:db8::1 ]",
        "[]",
        "[]:443",
        "fe80::1%eth0",
        "fe80::1%25eth0",
        "[fe80::1%1]:443",
        "::ffff:192.0.2.07",
        "unknown",
        "_hidden",
        "unix:",
        "localhost",
        "1" * 8000,
        "1." * 4000,
        "[" * 8000,
        " " * 8000,
    ],
    ids=lambda element: ascii(element[:30]),
)
def test_an_element_that_is_no_address_counts_as_the_peer(element: str) -> None:
    assert behind(*TRUSTED).of(PROXY, forwarded(f"192.0.2.1, {element}")) == OWN


@pytest.mark.parametrize(
    ("network", "peer"),
    [
        ("10.0.0.0/8", "ipv4:10.255.255.255:1"),
        ("10.0.0.1", "ipv4:10.0.0.1:1"),
        ("0.0.0.0/1", "ipv4:127.0.0.1:1"),
        ("10.0.0.0/8", "ipv6:%5B::ffff:10.0.0.1%5D:1"),
        ("::ffff:10.0.0.0/104", "ipv4:10.0.0.1:1"),
        ("::ffff:10.0.0.0/104", "ipv6:%5B::ffff:a00:1%5D:1"),
        ("::ffff:10.0.0.1", "ipv4:10.0.0.1:1"),
        ("2001:db8::/32", "ipv6:%5B2001:db8:ffff::1%5D:1"),
        ("::1", "ipv6:[::1]:1"),
        ("::/0", "ipv6:%5Bff00::1%5D:1"),
        ("fe80::/10", "ipv6:%5Bfe80::1%25eth0%5D:1"),
    ],
)
def test_a_peer_of_a_trusted_network_is_believed(network: str, peer: str) -> None:
    assert behind("198.51.100.1", network).of(peer, forwarded("192.0.2.7")) == "192.0.2.7"


@pytest.mark.parametrize(
    ("network", "peer"),
    [
        ("10.0.0.0/8", "ipv4:11.0.0.1:1"),
        ("10.0.0.1", "ipv4:10.0.0.2:1"),
        ("10.0.0.0/8", "ipv6:%5B::ffff:11.0.0.1%5D:1"),
        ("10.0.0.0/8", "ipv6:%5B::10.0.0.1%5D:1"),
        ("10.0.0.0/8", "ipv6:%5Ba00:1::%5D:1"),
        ("0.0.0.0/0", "ipv6:%5B2001:db8::1%5D:1"),
        ("::/0", "ipv4:10.0.0.1:1"),
        ("::/0", "ipv6:%5B::ffff:10.0.0.1%5D:1"),
        ("2001:db8::1", "ipv6:%5B2001:db8::2%5D:1"),
        ("::/0", "ipv6:rubbish"),
        ("0.0.0.0/0", "ipv4:rubbish"),
        ("0.0.0.0/0", "unix:10.0.0.1:1"),
        ("0.0.0.0/0", "unix:/run/identity.sock"),
        ("0.0.0.0/0", "unix:"),
        ("0.0.0.0/0", "unix-abstract:identity"),
        ("0.0.0.0/0", ""),
    ],
)
def test_the_word_of_any_other_peer_is_ignored(network: str, peer: str) -> None:
    clients = behind("198.51.100.1", network)
    assert clients.of(peer, forwarded("192.0.2.7", "2001:db8:7::7")) == client_of(peer)


def test_an_ipv4_mapped_element_is_trusted_as_the_ipv4_one() -> None:
    assert behind("10.0.0.0/8").of(PROXY, forwarded("192.0.2.7, ::ffff:10.1.1.1")) == "192.0.2.7"


def test_all_forwarded_addresses_of_one_subscriber_are_one_client() -> None:
    elements = [f"[2001:db8:1:2:{host:x}::{host:x}]:{host}" for host in range(1, 50)]
    assert {behind(*TRUSTED).of(PROXY, forwarded(element)) for element in elements} == {
        "2001:db8:1:2::/64"
    }


def test_without_trusted_proxies_nobody_is_believed() -> None:
    assert Clients().of(PROXY, forwarded("192.0.2.7")) == OWN


@pytest.mark.parametrize(
    "other",
    [
        ("x-forwarded-for-bin", b"198.51.100.1"),
        ("x-forwarded-for", b"198.51.100.1"),
        ("x-real-ip", "198.51.100.1"),
        ("forwarded", "for=198.51.100.1"),
    ],
    ids=str,
)
def test_other_metadata_does_not_count(other: tuple[str, str | bytes]) -> None:
    metadata = (other, *forwarded("192.0.2.7"), other)
    assert behind(*TRUSTED).of(PROXY, metadata) == "192.0.2.7"
