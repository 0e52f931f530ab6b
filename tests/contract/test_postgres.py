"""What PostgreSQL and the way to it may do to a transaction, and what is left of it."""

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import URL

from identity.database import Database
from identity.errors import DatabaseUnavailable
from identity.mail.outbox import LEASE
from tests.fakes import FakeClock
from tests.outbox import outbox, queue_mails, state

PATIENCE = 30  # seconds


@pytest.fixture
def database(postgres_url: URL) -> Iterator[Database]:
    with closing(Database(postgres_url, connections=1, statement_timeout=1)) as opened:
        yield opened


def setting(url: URL, name: str) -> str:
    with closing(Database(url)) as database, database.read() as connection:
        value: str = connection.scalar(text(f"SHOW {name}"))
        return value


def with_options(url: URL, options: str) -> URL:
    return url.update_query_dict({"options": options})


def process_of(connection: Connection) -> int:
    pid: int = connection.scalar(text("SELECT pg_backend_pid()"))
    return pid


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("statement_timeout", "3s"),
        ("lock_timeout", "2s"),
        ("idle_in_transaction_session_timeout", "10s"),
    ],
)
def test_what_a_transaction_may_take_is_bounded_and_the_operators_word_is_the_last(
    postgres_url: URL, name: str, value: str
) -> None:
    assert setting(postgres_url, name) == value
    assert setting(with_options(postgres_url, f"-c {name}=1234ms"), name) == "1234ms"
    with (
        closing(Database(postgres_url, statement_timeout=None)) as unbounded,
        unbounded.read() as connection,
    ):
        assert connection.scalar(text(f"SHOW {name}")) == "0"


def test_a_connection_that_went_stale_is_replaced_before_anything_is_sent(
    database: Database, postgres_url: URL
) -> None:
    with database.read() as connection:
        first = process_of(connection)
    with closing(Database(postgres_url)) as other, other.write() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": first})
    with database.write() as connection:
        assert process_of(connection) != first


def test_a_server_that_does_not_answer_is_given_up(postgres_url: URL) -> None:
    with closing(Database(postgres_url, longest_rest=0)) as database:
        with database.read() as connection:
            hanging = process_of(connection)
        os.kill(hanging, signal.SIGSTOP)
        try:
            with database.read() as connection:
                assert process_of(connection) != hanging
        finally:
            os.kill(hanging, signal.SIGCONT)


def test_a_server_that_does_not_answer_right_after_a_call_is_given_up_by_the_next(
    database: Database,
) -> None:
    with database.read() as connection:
        hanging = process_of(connection)
    os.kill(hanging, signal.SIGSTOP)
    try:
        with pytest.raises(DatabaseUnavailable), database.read() as connection:
            process_of(connection)
    finally:
        os.kill(hanging, signal.SIGCONT)
    with database.read() as connection:
        assert process_of(connection) != hanging


def test_a_server_that_stops_answering_within_a_transaction_is_given_up(
    database: Database,
) -> None:
    stopped: list[int] = []

    def write() -> None:
        with database.write() as connection:
            stopped.append(process_of(connection))
            os.kill(stopped[0], signal.SIGSTOP)
            connection.execute(text("SELECT 1"))

    try:
        with pytest.raises(DatabaseUnavailable):
            write()
    finally:
        os.kill(stopped[0], signal.SIGCONT)
    with database.write() as connection:
        assert process_of(connection) not in stopped


def lock_table(url: URL) -> Callable[[], None]:
    other = Database(url)
    holder = other.engine.connect()
    holder.execute(text("LOCK TABLE users"))

    def release() -> None:
        holder.close()
        other.close()

    return release


def test_a_lock_that_another_holds_too_long_is_unavailable(postgres_url: URL) -> None:
    url = with_options(postgres_url, "-c lock_timeout=100ms")
    release = lock_table(postgres_url)
    with closing(Database(url, connections=1)) as database:
        with pytest.raises(DatabaseUnavailable), database.write() as connection:
            connection.execute(text("DELETE FROM users"))
        release()
        with database.write() as connection:
            connection.execute(text("DELETE FROM users"))


def test_a_transaction_that_stands_still_loses_its_locks(postgres_url: URL) -> None:
    url = with_options(postgres_url, "-c idle_in_transaction_session_timeout=100ms")
    with closing(Database(url, connections=1)) as database:

        def stand_still() -> None:
            with database.write() as connection:
                connection.execute(text("LOCK TABLE users"))
                socket = connection.connection.dbapi_connection.fileno()
                assert select.select([socket], [], [], PATIENCE)[0]  # the server has hung up
                connection.execute(text("SELECT 1"))

        with pytest.raises(DatabaseUnavailable):
            stand_still()
        lock_table(url)()


def test_a_server_that_only_reads_now_is_left(database: Database) -> None:
    """As after a change of roles, with connections still open."""
    with database.write() as connection:
        demoted = process_of(connection)
        connection.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
    with pytest.raises(DatabaseUnavailable), database.write() as connection:
        connection.execute(text("DELETE FROM users"))
    with database.write() as connection:
        assert process_of(connection) != demoted
        connection.execute(text("DELETE FROM users"))


def test_of_several_hosts_the_one_that_can_be_reached_is_used(
    postgres_url: URL, tmp_path_factory: pytest.TempPathFactory
) -> None:
    nowhere = str(tmp_path_factory.mktemp("nowhere"))
    here = postgres_url.query.get("host") or f"{postgres_url.host}:{postgres_url.port}"
    several = postgres_url.set(host=None, port=None).update_query_pairs(
        [("host", nowhere), ("host", str(here))]
    )
    assert setting(several, "transaction_read_only") == "off"


def test_a_server_that_only_reads_is_not_connected_to(postgres_url: URL) -> None:
    read_only = with_options(postgres_url, "-c default_transaction_read_only=on")
    with pytest.raises(DatabaseUnavailable):
        setting(read_only, "statement_timeout")
    allowed = read_only.update_query_dict({"target_session_attrs": "any"})
    assert setting(allowed, "transaction_read_only") == "on"


def test_a_mail_that_another_tells_to_be_sent_during_a_claim_is_not_claimed(
    postgres_url: URL,
) -> None:
    clock = FakeClock()
    with closing(Database(postgres_url)) as database, closing(Database(postgres_url)) as others:
        queue_mails(database, clock, 2)
        first, second = outbox(others, clock, "first"), outbox(database, clock, "second")
        known = {mail.outbox_id for mail in first.claim(2).mails}
        told = known.pop()
        clock.advance(seconds=LEASE.total_seconds())

        def tell(*event: object) -> None:
            if "UPDATE outbox" in str(event[2]) and "claimed_by" in str(event[2]):
                first.sent(told)

        event.listen(database.engine, "after_cursor_execute", tell)
        assert [mail.outbox_id for mail in second.claim(2).mails] == [*known]
        rows = sorted(str(row[2]) for row in state(database))
    assert rows == ["queued", "sent"]
