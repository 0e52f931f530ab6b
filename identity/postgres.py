"""PostgreSQL's engine: whatever the server does, every wait for it has a bound."""

from typing import Any, Final

import psycopg
from psycopg.abc import PQGen
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext

CONNECT_TIMEOUT: Final = 2  # seconds for each host; libpq takes no less
# Seconds that a statement waits for another transaction. Those of ours take milliseconds.
LOCK_TIMEOUT: Final = 2.0
# Seconds until the server ends a transaction whose process stands still, and lets go of its locks.
IDLE_TIMEOUT: Final = 10.0
# Seconds on top of what the server allows a statement, until the server itself is given up: it
# hangs, or its machine is gone without a word.
ANSWER_TIME: Final = 1.0
# Seconds that a connection from the pool may take to show that it still works.
PING_TIMEOUT: Final = 1.0
KEEPALIVE: Final = 30  # seconds: idle connections must not be forgotten by what lies between

# A server that only reads: demoted, or not promoted yet.
READ_ONLY: Final = "25006"


def postgres_engine(url: URL, statement_timeout: float | None, **pool: Any) -> Engine:  # noqa: ANN401
    """The engine. `statement_timeout` in seconds; None lets a statement take as long as it takes.

    Of several hosts in the URL the one that takes writes is used, also after they have changed
    roles.
    """
    defaults = {
        "connect_timeout": CONNECT_TIMEOUT,
        "application_name": "identity",
        "target_session_attrs": "read-write",
        "keepalives_idle": KEEPALIVE,
    }
    arguments: dict[str, Any] = {k: v for k, v in defaults.items() if k not in url.query}
    arguments["options"] = _options(url, statement_timeout)
    engine = create_engine(
        url,
        connect_args=arguments,
        hide_parameters=True,  # they are what people sent
        pool_pre_ping=True,  # a connection that went stale is replaced before anything is sent
        **pool,
    )
    patience = None if statement_timeout is None else statement_timeout + ANSWER_TIME

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: object, _record: object, args: Any, keywords: Any) -> Connection:  # noqa: ANN401
        return Connection.connect(*args, **keywords)

    @event.listens_for(engine, "checkout")  # the ping comes before
    def begin(connection: Connection, *_: object) -> None:
        connection.patience = patience

    @event.listens_for(engine, "checkin")
    def rest(connection: Connection | None, *_: object) -> None:
        if connection is not None:  # not one that was given up
            connection.patience = PING_TIMEOUT

    event.listen(engine, "handle_error", _leave_if_read_only)
    return engine


class Connection(psycopg.Connection[Any]):
    """Gives up a server that does not answer.

    The server's own time-outs say nothing while it hangs, and TCP's take minutes.
    """

    patience: float | None = PING_TIMEOUT  # seconds; None waits for ever

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:  # noqa: ANN401 - what the generator returns
        try:
            return super().wait(gen, interval, self.patience if timeout is None else timeout)
        except psycopg.OperationalError as error:
            if error.sqlstate is None:  # it said nothing: whatever comes later answers nobody
                self.pgconn.finish()
            raise


def _options(url: URL, statement_timeout: float | None) -> str:
    limits = {}
    if statement_timeout is not None:
        limits = {
            "statement_timeout": statement_timeout,
            "lock_timeout": LOCK_TIMEOUT,
            "idle_in_transaction_session_timeout": IDLE_TIMEOUT,
        }
    ours = [f"-c {name}={int(seconds * 1000)}" for name, seconds in limits.items()]
    given = url.query.get("options", ())
    # The operator's come last and win.
    return " ".join([*ours, *([given] if isinstance(given, str) else given)])


def _leave_if_read_only(context: ExceptionContext) -> None:
    if getattr(context.original_exception, "sqlstate", None) == READ_ONLY:
        context.is_disconnect = True  # all of the pool, and look for the host that takes writes
