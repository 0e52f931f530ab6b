"""PostgreSQL finds by an index whatever a call looks for: the statements as the services send them.

A scan of a whole table would show in no test, and stop the service at a million users.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Final

import psycopg
import pytest
from sqlalchemy import event
from sqlalchemy.engine import URL

from identity.errors import EmailTaken, TokenUsed
from identity.services.cleanup import Cleanup
from tests.bench.people import fill, token_of
from tests.bench.services import Services
from tests.fakes import FakeClock, RecordingSender

PEOPLE: Final = 20_000  # so many that PostgreSQL would rather not read them all
DUE: Final = range(PEOPLE + 1, PEOPLE + 101)
TABLES: Final = {"users", "verifications", "outbox", "idempotency_keys"}
_CALL: Final = "2b8a2f6e-7a43-4a6c-9d0e-0f3c1a5b7d21"


@pytest.fixture
def connection(postgres_url: URL) -> Iterator[psycopg.Connection[Any]]:
    """To a database of many people, of whom PostgreSQL knows."""
    url = postgres_url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as opened:
        fill(opened, range(1, PEOPLE + 1), is_due=False)
        fill(opened, DUE, is_due=True)
        opened.execute("ANALYZE")
        yield opened


@pytest.fixture
def services(postgres_url: URL) -> Iterator[Services]:
    with closing(Services(postgres_url)) as wired:
        yield wired


def _calls(services: Services) -> dict[str, Callable[[], object]]:
    """All that callers and the worker ask for often."""

    def register_what_is_held() -> None:
        with pytest.raises(EmailTaken):
            services.register("u77")

    def verify_again() -> None:
        with pytest.raises(TokenUsed):
            services.verify(token_of(77))

    return {
        "Register": lambda: services.register("ann", _CALL),
        "Register, repeated": lambda: services.register("ann", _CALL),
        "Register, held": register_what_is_held,
        "VerifyEmail": lambda: services.verify(token_of(77)),
        "VerifyEmail, used": verify_again,
        "ResendVerification": lambda: services.ask_for_resend("u88@example.com"),
        "resends": lambda: services.resend.carry_out(lambda: False),
        "GetDeliveryStatus": lambda: services.status("u99@example.com"),
        "deliveries": services.deliverer(RecordingSender()).deliver_due,
        "clean-up": lambda: Cleanup(services.database, now=FakeClock().now).run(lambda: False),
    }


def test_no_call_reads_a_whole_table(
    connection: psycopg.Connection[Any], services: Services
) -> None:
    sent: list[tuple[str, str, Any]] = []
    calls = _calls(services)
    name = ""

    @event.listens_for(services.database.engine, "before_cursor_execute")
    def note(_connection: object, _cursor: object, statement: str, values: Any, *_: object) -> None:  # noqa: ANN401
        sent.append((name, statement, values))

    for name, call in calls.items():  # noqa: B007 - the listener reads it
        call()

    plans = [
        (name, statement, _plan(connection, statement, values)) for name, statement, values in sent
    ]
    scans = {(name, statement) for name, statement, plan in plans if _scanned(plan) & TABLES}
    assert scans == set()
    assert {name for name, _, _ in plans} == set(calls)
    assert {table for _, _, plan in plans for table in _touched(plan)} >= TABLES


def test_a_look_without_an_index_would_be_seen(connection: psycopg.Connection[Any]) -> None:
    plan = _plan(connection, "SELECT id FROM users WHERE password_hash = %(hash)s", {"hash": "x"})
    assert _scanned(plan) == {"users"}


def _plan(connection: psycopg.Connection[Any], statement: str, values: Any) -> dict[str, Any]:  # noqa: ANN401
    row = connection.execute(f"EXPLAIN (FORMAT JSON) {statement}", values).fetchone()
    assert row
    plan: dict[str, Any] = row[0][0]["Plan"]
    return plan


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


def _scanned(plan: dict[str, Any]) -> set[str]:
    """The tables that are read from end to end."""
    return {node["Relation Name"] for node in _nodes(plan) if node["Node Type"] == "Seq Scan"}


def _touched(plan: dict[str, Any]) -> set[str]:
    return {node["Relation Name"] for node in _nodes(plan) if "Relation Name" in node}
