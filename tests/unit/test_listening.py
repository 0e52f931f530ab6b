"""A port that is held for several processes, and by nobody else."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from identity.listening import reserved
from identity.startup import CannotListen
from identity.values import Endpoint

ANY_PORT = Endpoint("127.0.0.1", 0)


@contextmanager
def bound(endpoint: Endpoint, *options: int) -> Iterator[socket.socket]:
    with socket.socket() as opened:
        for option in options:
            opened.setsockopt(socket.SOL_SOCKET, option, 1)
        opened.bind(endpoint)
        yield opened


def test_processes_that_share_the_port_can_listen_on_it_and_come_and_go() -> None:
    with reserved(ANY_PORT) as endpoint:
        for _ in range(2):
            with bound(endpoint, socket.SO_REUSEPORT) as one, bound(endpoint, socket.SO_REUSEPORT):
                one.listen()
                with socket.create_connection(endpoint) as client, one.accept()[0] as accepted:
                    assert accepted.getpeername() == client.getsockname()


def test_nobody_takes_connections_while_nobody_listens() -> None:
    with reserved(ANY_PORT) as endpoint, pytest.raises(ConnectionRefusedError):
        socket.create_connection(endpoint)


@pytest.mark.parametrize("options", [(), (socket.SO_REUSEADDR,)])
def test_others_cannot_have_it(options: tuple[int, ...]) -> None:
    with reserved(ANY_PORT) as endpoint:
        with pytest.raises(OSError, match="in use"), bound(endpoint, *options):
            pass
        with pytest.raises(CannotListen), reserved(endpoint):
            pass


@pytest.mark.parametrize("options", [(), (socket.SO_REUSEADDR,), (socket.SO_REUSEPORT,)])
def test_a_port_on_which_somebody_listens_cannot_be_had(options: tuple[int, ...]) -> None:
    with bound(ANY_PORT, *options) as taken:
        taken.listen()
        endpoint = Endpoint(*taken.getsockname())
        with pytest.raises(CannotListen) as caught, reserved(endpoint):
            pass
    assert str(caught.value) == (
        f"IDENTITY_LISTEN: cannot listen on {endpoint}: in use, or not ours"
    )


def test_old_connections_of_a_server_that_has_ended_are_no_hindrance() -> None:
    with bound(ANY_PORT, socket.SO_REUSEADDR) as server:
        server.listen()
        endpoint = Endpoint(*server.getsockname())
        with socket.create_connection(endpoint), closing(server.accept()[0]):
            server.close()
            with reserved(endpoint):
                with pytest.raises(OSError, match="in use"), bound(endpoint, socket.SO_REUSEADDR):
                    pass
                with bound(endpoint, socket.SO_REUSEADDR, socket.SO_REUSEPORT) as worker:
                    worker.listen()


def test_all_addresses_of_a_name_have_the_same_port() -> None:
    with reserved(Endpoint("localhost", 0)) as endpoint:
        assert endpoint.host == "localhost"
        for family, _, _, _, address in socket.getaddrinfo(*endpoint, type=socket.SOCK_STREAM):
            with socket.socket(family) as other, pytest.raises(OSError, match=r"in use|assign"):
                other.bind(address)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", "a" * 70])
def test_an_address_that_is_not_ours_cannot_be_had(host: str) -> None:
    with pytest.raises(CannotListen), reserved(Endpoint(host, 50051)):
        pass
