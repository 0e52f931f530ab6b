"""Sends mails by SMTP (RFC 5321), one connection over a batch."""

import smtplib
import socket
import ssl
from dataclasses import dataclass
from enum import StrEnum

from identity.mail.sender import Mail, PermanentFailure, TemporaryFailure

CONNECT_TIMEOUT = 3.0  # seconds
REPLY_TIMEOUT = 10.0  # seconds, for each reply

_PERMANENT = 500  # RFC 5321, 4.2.1: 5yz, the same command will not succeed


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


def _connected(host: str, port: int, reply_timeout: float) -> socket.socket:
    """Tells the time to connect from the time to reply, where smtplib knows one time-out."""
    connection = socket.create_connection((host, port), CONNECT_TIMEOUT)
    connection.settimeout(reply_timeout)
    return connection


class _Smtp(smtplib.SMTP):
    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return _connected(host, port, timeout)


class _SmtpOverTls(smtplib.SMTP_SSL):
    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return self.context.wrap_socket(_connected(host, port, timeout), server_hostname=host)


class SmtpSender:
    """Keeps one connection open from the first `send` until `close` or a failure."""

    def __init__(self, server: SmtpServer, envelope_from: str, tls: ssl.SSLContext) -> None:
        """`tls` verifies the server's certificate and name, where TLS is used."""
        self._server = server
        self._envelope_from = envelope_from
        self._tls = tls
        self._connection: smtplib.SMTP | None = None

    def send(self, mail: Mail) -> None:
        try:
            if self._connection is None:
                self._connection = self._connect()
            self._connection.send_message(mail.message, self._envelope_from, [mail.to])
        except smtplib.SMTPRecipientsRefused as error:
            self._fail("RCPT", next(iter(error.recipients.values()))[0])
        except smtplib.SMTPDataError as error:
            self._fail("DATA", error.smtp_code)
        except smtplib.SMTPResponseException as error:  # greeting, STARTTLS, AUTH, MAIL
            self.close()
            raise TemporaryFailure(f"smtp {type(error).__name__} {error.smtp_code}") from None
        except (smtplib.SMTPException, OSError) as error:
            self.close()
            raise TemporaryFailure(f"smtp {type(error).__name__}") from None

    def close(self) -> None:
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        try:
            connection.quit()
        except (smtplib.SMTPException, OSError):
            connection.close()

    def _connect(self) -> smtplib.SMTP:
        server = self._server
        if server.tls is SmtpTls.TLS:
            connection: smtplib.SMTP = _SmtpOverTls(
                server.host, server.port, timeout=REPLY_TIMEOUT, context=self._tls
            )
        else:
            connection = _Smtp(server.host, server.port, timeout=REPLY_TIMEOUT)
        try:
            if server.tls is SmtpTls.STARTTLS:
                connection.starttls(context=self._tls)
            if server.username is not None:
                connection.login(server.username, server.password or "")
        except BaseException:
            connection.close()
            raise
        return connection

    def _fail(self, command: str, code: int) -> None:
        reason = f"smtp {code} to {command}"
        if code >= _PERMANENT:
            raise PermanentFailure(reason) from None
        raise TemporaryFailure(reason) from None
