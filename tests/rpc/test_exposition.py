"""Metrics and probes as the platform fetches them."""

import http.client
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from prometheus_client import CollectorRegistry

from identity.collectors import OutboxCollector
from identity.database import Database
from identity.exposition import MAXIMUM_REQUESTS, Exposition
from identity.startup import StartError
from identity.values import Endpoint
from tests.fakes import FakeClock
from tests.outbox import queue_mails
from tests.scrape import PATIENCE, Answer, Scrape, fetch

ANY_PORT = Endpoint("127.0.0.1", 0)
ANY_PORT_OF_IPV6 = Endpoint("::1", 0)


@dataclass
class State:
    is_serving: bool = True


Expose = Callable[..., Endpoint]


@pytest.fixture
def expose() -> Iterator[Expose]:
    with ExitStack() as stack:

        def begin(
            registry: CollectorRegistry | None = None, state: State | None = None
        ) -> Endpoint:
            current = state or State()
            opened = Exposition(
                ANY_PORT, registry or CollectorRegistry(), lambda: current.is_serving
            )
            opened.start()
            stack.callback(opened.stop)
            return opened.endpoint

        yield begin


def test_an_address_may_be_ipv6() -> None:
    opened = Exposition(ANY_PORT_OF_IPV6, CollectorRegistry(), lambda: True)
    opened.start()
    assert fetch(opened.endpoint, "/livez").status == 200
    opened.stop()


def test_the_probes_follow_the_service(expose: Expose) -> None:
    state = State()
    endpoint = expose(state=state)
    assert fetch(endpoint, "/livez") == fetch(endpoint, "/readyz") == Answer(200, "ok\n")
    state.is_serving = False
    assert fetch(endpoint, "/readyz") == Answer(503, "no\n")
    assert fetch(endpoint, "/livez?verbose").status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/metrics/", 404), ("POST", "/metrics", 501), ("GET", "//", 404)],
)
def test_there_is_nothing_else(expose: Expose, method: str, path: str, status: int) -> None:
    assert fetch(expose(), path, method).status == status


def test_only_so_many_clients_are_heard_at_once(expose: Expose) -> None:
    crowded, full = expose(), expose()
    with ExitStack() as stack:
        for endpoint, silent in ((crowded, MAXIMUM_REQUESTS - 1), (full, MAXIMUM_REQUESTS)):
            for _ in range(silent):
                stack.enter_context(socket.create_connection(endpoint, PATIENCE))
        assert fetch(crowded, "/livez").status == 200
        with pytest.raises((OSError, http.client.HTTPException)):
            fetch(full, "/livez")


def test_a_port_in_use_stops_the_start_with_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = Endpoint("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(StartError, match=f"METRICS_LISTEN: cannot listen on {listen}: "):
            Exposition(listen, CollectorRegistry(), lambda: True)


def test_the_queue_of_mails_is_looked_at_when_it_is_asked_for(
    expose: Expose, database: Database
) -> None:
    registry = CollectorRegistry()
    registry.register(OutboxCollector(database))
    endpoint = expose(registry)
    clock = FakeClock(database.now())
    assert figures(endpoint)["identity_outbox_queued"] == 0
    queue_mails(database, clock, 3)
    found = figures(endpoint)
    assert found["identity_outbox_readable"] == 1
    assert found["identity_outbox_queued"] == 3
    assert found["identity_outbox_delayed"] == 0
    assert 0 <= found["identity_outbox_oldest_seconds"] < 60
    assert found["identity_outbox_paused"] == 0


def test_a_database_that_is_gone_costs_its_own_figures_only(
    expose: Expose, database: Database
) -> None:
    registry = CollectorRegistry()
    registry.register(OutboxCollector(database))
    endpoint = expose(registry)
    with database.write() as connection:
        connection.exec_driver_sql("DROP TABLE outbox_pause")
    assert figures(endpoint) == {"identity_outbox_readable": 0}


def figures(endpoint: Endpoint) -> dict[str, float]:
    return {sample.name: sample.value for sample in Scrape(endpoint).samples}
