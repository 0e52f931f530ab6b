"""Who a peer is, as the rate limit counts it."""

import pytest

from identity.interceptors.clients import client_of


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
