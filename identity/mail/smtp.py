"""Sends mails by SMTP (RFC 5321), one connection over a batch."""

import math
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from io import BufferedReader

from identity.mail.sender import AccountFailure, Mail, PermanentFailure, TemporaryFailure

CONNECT_TIMEOUT = 3.0  # seconds
REPLY_TIMEOUT = 10.0  # seconds, for each reply
# For all that one mail takes, so that it ends within the deliverer's lease.
SEND_TIMEOUT = 40.0  # seconds
MAXIMUM_REPLY_LINES = 100  # EHLO names about ten extensions

_PERMANENT = range(500, 600)  # RFC 5321, 4.2.1: 5yz, the same command will not succeed


class SmtpTls(StrEnum):
    """How the connection is protected: not, upgraded by STARTTLS, or from its first byte."""

    NONE = "none"
    STARTTLS = "starttls"
    TLS = "tls"


@dataclass(frozen=True)
class SmtpServer:
    """Where and how to hand in mails."""

    host: str
    port: int
    tls: SmtpTls
    username: str | None = None
    password: str | None = None


class _Replies:
    """A server's replies, each with a bound on its lines, where smtplib reads on for ever."""

    def __init__(self, stream: BufferedReader) -> None:
        self._stream = stream
        self.lines_left = MAXIMUM_REPLY_LINES

    def readline(self, size: int) -> bytes:
        self.lines_left -= 1
        if self.lines_left < 0:
            raise smtplib.SMTPServerDisconnected("the reply has too many lines")
        return self._stream.readline(size)

    def close(self) -> None:
        self._stream.close()


class _Smtp(smtplib.SMTP):
    """Tells the time to connect from the time to reply, and bounds each reply."""

    def __init__(self, host: str, tls: ssl.SSLContext | None) -> None:
        """Does not connect yet. `tls` protects the connection from its first byte."""
        super().__init__(timeout=REPLY_TIMEOUT)
        self._host = host  # the name that STARTTLS verifies; kept only where __init__ connects
        self._tls_from_start = tls

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        connection = socket.create_connection((host, port), CONNECT_TIMEOUT)
        connection.settimeout(timeout)
        if self._tls_from_start is not None:
            return self._tls_from_start.wrap_socket(connection, server_hostname=host)
        return connection

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock is not None:
            self.file = _Replies(self.sock.makefile("rb"))
        if isinstance(self.file, _Replies):
            self.file.lines_left = MAXIMUM_REPLY_LINES
        return super().getreply()

    def abort(self) -> None:
        """Ends whatever another thread waits for on this connection."""
        connection = self.sock
        if connection is not None:
            with suppress(OSError):  # closed meanwhile
                connection.shutdown(socket.SHUT_RDWR)


class _Watchdog:
    """Cuts a connection off when one use of it takes too long.

    The time-outs of the socket hold for each packet, so that a server that sends a byte now and
    then would never meet them. One thread for the life of the connection, which looks now and then:
    one for each mail cost more than the mail.
    """

    def __init__(self, connection: _Smtp, limit: float) -> None:
        self._connection = connection
        self._limit = limit
        self._tick = min(1.0, limit / 4)  # seconds that it may be late
        self._due = math.inf
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="smtp", daemon=True).start()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The connection is in use."""
        self._due = time.monotonic() + self._limit
        try:
            yield
        finally:
            self._due = math.inf

    def end(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(self._tick):
            if time.monotonic() >= self._due:
                self._connection.abort()


class SmtpSender:
    """Keeps one connection open from the first `send` until `close` or a failure."""

    def __init__(
        self,
        server: SmtpServer,
        envelope_from: str,
        tls: ssl.SSLContext,
        send_timeout: float = SEND_TIMEOUT,
    ) -> None:
        """`tls` verifies the server's certificate and name, where TLS is used."""
        self._send_timeout = send_timeout
        self._server = server
        self._envelope_from = envelope_from
        self._tls = tls
        self._connection: _Smtp | None = None
        self._watchdog: _Watchdog | None = None

    def send(self, mail: Mail) -> None:
        with self._classified(), self._bounded() as connection:
            connection.sendmail(self._envelope_from, [mail.to], mail.message.as_bytes())

    def check(self) -> None:
        """Connects, protects the connection and logs in as for a mail, but sends none.

        Raises as `send` does.
        """
        with self._classified(), self._bounded() as connection:
            connection.ehlo_or_helo_if_needed()
            self.close()

    def close(self) -> None:
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        if self._watchdog is not None:
            self._watchdog.end()
        try:
            connection.quit()
        except (smtplib.SMTPException, OSError):
            connection.close()

    @contextmanager
    def _classified(self) -> Iterator[None]:
        """Gives smtplib's errors their class, and ends connections that are of no more use."""
        try:
            yield
        except smtplib.SMTPRecipientsRefused as error:
            self._fail("RCPT", next(iter(error.recipients.values()))[0])
        except smtplib.SMTPDataError as error:
            self._fail("DATA", error.smtp_code)
        except (smtplib.SMTPAuthenticationError, smtplib.SMTPSenderRefused) as error:
            self.close()
            reason = f"smtp {type(error).__name__} {error.smtp_code}"
            # Our login, our address: the next mail would be refused as well.
            refused = error.smtp_code in _PERMANENT
            raise (AccountFailure if refused else TemporaryFailure)(reason) from None
        except smtplib.SMTPResponseException as error:  # greeting, STARTTLS
            self.close()
            raise TemporaryFailure(f"smtp {type(error).__name__} {error.smtp_code}") from None
        except (smtplib.SMTPNotSupportedError, ssl.SSLCertVerificationError) as error:
            # No STARTTLS, no AUTH, or not the server that it should be.
            self.close()
            raise AccountFailure(f"smtp {type(error).__name__}") from None
        except (smtplib.SMTPException, OSError) as error:
            self.close()
            raise TemporaryFailure(f"smtp {type(error).__name__}") from None

    @contextmanager
    def _bounded(self) -> Iterator[_Smtp]:
        """The open connection, cut off when the whole takes too long."""
        connection, watchdog = self._connection, self._watchdog
        fresh = connection is None or watchdog is None
        if connection is None or watchdog is None:
            from_start = self._tls if self._server.tls is SmtpTls.TLS else None
            connection = self._connection = _Smtp(self._server.host, from_start)
            watchdog = self._watchdog = _Watchdog(connection, self._send_timeout)
        with watchdog.watching():
            if fresh:
                self._open(connection)
            yield connection

    def _open(self, connection: _Smtp) -> None:
        server = self._server
        connection.connect(server.host, server.port)
        if server.tls is SmtpTls.STARTTLS:
            connection.starttls(context=self._tls)
        if server.username is not None:
            connection.login(server.username, server.password or "")

    def _fail(self, command: str, code: int) -> None:
        reason = f"smtp {code} to {command}"
        if code in _PERMANENT:
            raise PermanentFailure(reason) from None
        raise TemporaryFailure(reason) from None
