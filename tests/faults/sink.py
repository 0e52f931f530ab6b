"""A mail server that keeps account of every copy of every mail."""

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import default
from typing import cast

from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.mailbox import Mailbox, token_in


@dataclass(eq=False)
class Connection:
    """One connection of a deliverer, and whom it brought mail for."""

    addresses: list[str] = field(default_factory=list)
    has_quit: bool = False


@dataclass(frozen=True)
class Copy:
    """A mail as it was accepted once."""

    token: str
    connection: Connection

    def was_its_connections_last(self, address: str) -> bool:
        """Whether its deliverer brought nothing more and took no leave: as one that died then.

        A deliverer notes each mail before it brings the next, and takes its leave before it rests.
        """
        return not self.connection.has_quit and self.connection.addresses[-1] == address


class Sink(Mailbox):
    """A Mailbox that counts, and keeps no mail."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self._changed = threading.Condition()
        self._copies: dict[str, list[Copy]] = defaultdict(list)
        self._connections: dict[Session, Connection] = defaultdict(Connection)

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        (address,) = envelope.rcpt_tos
        mail = message_from_bytes(cast(bytes, envelope.content), policy=default)
        with self._changed:
            connection = self._connections[session]
            connection.addresses.append(address)
            self._copies[address].append(Copy(token_in(mail), connection))
            self._changed.notify_all()
        return "250 OK"

    async def handle_QUIT(self, _server: SMTP, session: Session, _envelope: Envelope) -> str:  # noqa: N802
        with self._changed:
            self._connections[session].has_quit = True
        return "221 Bye"

    def copies(self) -> dict[str, list[Copy]]:
        """All copies so far, by address."""
        with self._changed:
            return {address: list(copies) for address, copies in self._copies.items()}

    def addresses(self) -> int:
        """How many people have got a mail."""
        with self._changed:
            return len(self._copies)

    def wait_for(self, addresses: int, patience: float) -> bool:
        """Waits until so many people have got a mail; False if they have not in `patience` s."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._copies) >= addresses, patience)
