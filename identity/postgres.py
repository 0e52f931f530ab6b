"""PostgreSQL's engine: whatever the server does, every wait for it has a bound."""

import math
import select
import time
from typing import Any, Final

import psycopg
from psycopg.abc import PQGen
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import InvalidatePoolError

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
# Seconds in the pool after which a connection has to show it. One that was used just now answers
# nearly always, and showing it would cost each statement as much again.
LONGEST_REST: Final = 1.0
KEEPALIVE: Final = 30  # seconds: idle connections must not be forgotten by what lies between

# A server that only reads: demoted, or not promoted yet.
READ_ONLY: Final = "25006"


def postgres_engine(
    url: URL,
    statement_timeout: float | None,
    longest_rest: float,
    **pool: Any,  # noqa: ANN401 - those of the engine
) -> Engine:
    """The engine. `statement_timeout` in seconds; None lets a statement take as long as it takes.
    `longest_rest`: seconds in the pool after which a connection has to show that it works.

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
        **pool,
    )
    patience = None if statement_timeout is None else statement_timeout + ANSWER_TIME

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: object, _record: object, args: Any, keywords: Any) -> Connection:  # noqa: ANN401
        return Connection.connect(*args, **keywords)

    @event.listens_for(engine, "checkout")
    def begin(connection: Connection, *_: object) -> None:
        # A connection that went stale is replaced before anything is sent, and all others that
        # are at rest with it.
        if connection.has_ended() or (
            connection.has_rested(longest_rest) and not _answers(engine, connection)
        ):
            raise InvalidatePoolError
        connection.patience = patience

    @event.listens_for(engine, "checkin")
    def rest(connection: Connection | None, *_: object) -> None:
        if connection is not None:  # not one that was given up
            connection.rest()

    event.listen(engine, "handle_error", _leave_if_read_only)
    return engine


class Connection(psycopg.Connection[Any]):
    """Gives up a server that does not answer.

    The server's own time-outs say nothing while it hangs, and TCP's take minutes.
    """

    patience: float | None = PING_TIMEOUT  # seconds; None waits for ever
    _since = math.inf  # when it was given back to the pool

    def rest(self) -> None:
        """It is given back to the pool."""
        self.patience = PING_TIMEOUT
        self._since = time.monotonic()

    def has_rested(self, seconds: float) -> bool:
        """Whether it was in the pool for so long: its server may have gone without a word."""
        return time.monotonic() - self._since > seconds

    def has_ended(self) -> bool:
        """Whether the server has said that this is over. A look at the socket, which costs no
        round trip: at rest nothing else is ever sent."""
        look = select.poll()
        look.register(self.fileno(), select.POLLIN)
        return bool(look.poll(0))

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:  # noqa: ANN401 - what the generator returns
        try:
            return super().wait(gen, interval, self.patience if timeout is None else timeout)
        except psycopg.OperationalError as error:
            if error.sqlstate is None:  # it said nothing: whatever comes later answers nobody
                self.pgconn.finish()
            raise


def _answers(engine: Engine, connection: Connection) -> bool:
    try:
        return engine.dialect.do_ping(connection)  # type: ignore[arg-type]
    except psycopg.Error:
        return False


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
