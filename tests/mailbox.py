"""A real SMTP server that keeps what it accepts, and refuses what it is told to refuse."""

import asyncio
import queue
import re
import ssl
import threading
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from types import TracebackType
from typing import Any, Self, cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

# Long enough for a loaded machine; nothing waits that long unless the test fails.
PATIENCE = 20.0  # seconds


# An answer to DATA that never comes: the connection ends instead.
DROP = "drop"


class Mailbox:
    """Serves while it is open as a context; `port` 0 picks a free one."""

    def __init__(
        self,
        port: int = 0,
        *,
        tls: ssl.SSLContext | None = None,
        tls_from_start: bool = False,
        login: tuple[str, str] | None = None,
    ) -> None:
        self.port = port
        self.answers: dict[str, list[str]] = {}  # by command, used up one by one
        self.connections = 0
        self.was_protected = False
        self._may_answer = threading.Event()
        self._may_answer.set()
        self._tls = tls
        self._tls_from_start = tls_from_start
        self._login = login
        self._mails: queue.Queue[Envelope] = queue.Queue()
        self._sessions: list[_Protocol] = []
        self._controller: _Controller | None = None

    def __enter__(self) -> Self:
        options: dict[str, Any] = {}
        if self._tls_from_start:
            options["ssl_context"] = self._tls
        elif self._tls is not None:
            options |= {"tls_context": self._tls, "require_starttls": True}
        if self._login is not None:
            options |= {"authenticator": self._authenticate, "auth_required": True}
        self._controller = _Controller(self, hostname="127.0.0.1", port=self.port, **options)
        self._controller.start()
        self.port = self._controller.port
        self.connections = 0  # the controller makes one to see that it is up
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops serving; the port is free then."""
        if self._controller is not None:
            self._controller.stop()
            self._controller = None

    def next(self) -> EmailMessage:
        """The next mail; waits for it."""
        envelope = self._mails.get(timeout=PATIENCE)
        return message_from_bytes(cast(bytes, envelope.content), policy=default)

    def next_token(self) -> str:
        """The token in the next mail."""
        return token_in(self.next())

    def is_empty(self) -> bool:
        """Whether no mail is waiting to be read."""
        return self._mails.empty()

    def hold_answers(self) -> None:
        """From now on mails are taken, but the answer that says so is held back."""
        self._may_answer.clear()

    def release_answers(self) -> None:
        """Ends `hold_answers`."""
        self._may_answer.set()

    def drop_connections(self) -> None:
        """Cuts every client off, as a server that restarts does."""
        assert self._controller is not None
        done = asyncio.run_coroutine_threadsafe(self._drop(), self._controller.loop)
        done.result(PATIENCE)

    async def _drop(self) -> None:
        for session in self._sessions:
            if session.transport is not None:
                session.transport.abort()

    def connected(self, protocol: "_Protocol") -> None:
        self.connections += 1
        self._sessions.append(protocol)

    def _answer(self, command: str, otherwise: str) -> str:
        prepared = self.answers.get(command)
        return prepared.pop(0) if prepared else otherwise

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's names
        self, _server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self.was_protected = session.ssl is not None or self._tls_from_start
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return self._answer("MAIL", "250 OK")

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: object
    ) -> str:
        answer = self._answer("RCPT", "250 OK")
        if answer.startswith("2"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        answer = self._answer("DATA", "250 OK")
        if answer == DROP:
            await self._drop()
        if answer.startswith("2"):
            self._mails.put(envelope)
        await asyncio.to_thread(self._may_answer.wait, PATIENCE)
        return answer

    def _authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, given: object
    ) -> AuthResult:
        assert isinstance(given, LoginPassword)
        right = (given.login.decode(), given.password.decode()) == self._login
        return AuthResult(success=right, handled=False)


class _Protocol(SMTP):
    """One connection; tells the mailbox of itself."""

    def __init__(self, mailbox: Mailbox, **options: Any) -> None:  # noqa: ANN401
        super().__init__(mailbox, **options)
        self._mailbox = mailbox

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self._over_ssl:  # STARTTLS makes the connection a second time
            self._mailbox.connected(self)
        super().connection_made(transport)


class _Controller(Controller):
    def factory(self) -> _Protocol:
        return _Protocol(self.handler, **self.SMTP_kwargs)

    def _trigger_server(self) -> None:
        # aiosmtpd connects to the port that it was given, also where that is 0.
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


def token_in(mail: EmailMessage) -> str:
    """The token of a mail's link, the same in its text and its HTML."""
    found = {
        re.findall(r"token=([A-Za-z0-9_-]+)", part.get_content())[0]
        for part in mail.walk()
        if part.get_content_maintype() == "text"
    }
    assert len(found) == 1
    token: str = found.pop()
    return token
