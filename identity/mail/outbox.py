"""The queue of mails in the database: what is due, who holds it, how it ended."""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from identity.database import Database, Moment, read_clock
from identity.models import OutboxMail, OutboxPause, User, Verification

# How long a deliverer holds what it claimed. The rows of one that died come due again then.
LEASE = timedelta(seconds=60)
# How often one mail is tried while no mail at all is accepted.
PROBE_INTERVAL = timedelta(seconds=30)
_THE_PAUSE = 1  # the id of the only row in outbox_pause

# The statements that every mail takes are made once: to make one takes several times as long as to
# run it.
_DUE: Final = (
    select(OutboxMail.id)
    .where(OutboxMail.due_at <= bindparam("moment"))
    .order_by(OutboxMail.due_at)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)  # PostgreSQL; SQLite has one writer anyway
    .cte("due")  # evaluated once: a subquery in IN may be run again and exceed its limit
)
_CLAIM: Final = (
    update(OutboxMail)
    .where(OutboxMail.id.in_(select(_DUE.c.id)))
    .values(due_at=bindparam("end_of_lease"), claimed_by=bindparam("holder"))
    .returning(OutboxMail.id)
)
_CLAIMED: Final = (
    select(
        OutboxMail.id.label("outbox_id"),
        OutboxMail.attempts,
        OutboxMail.created_at,
        User.username,
        User.is_email_verified,
        Verification.id.label("verification_id"),
        Verification.email,
        Verification.key_fingerprint,
        Verification.expires_at,
    )
    .join(User, User.id == OutboxMail.user_id)
    .join(Verification, Verification.id == OutboxMail.verification_id)
    .where(
        OutboxMail.id.in_(bindparam("claimed", expanding=True)),
        # Whoever else had sent it has told so since: then nobody holds it.
        OutboxMail.claimed_by == bindparam("holder"),
    )
    .order_by(OutboxMail.created_at)
)
# Of a mail that is not sent yet.
_OWNER_IS_VERIFIED: Final = (
    select(User.is_email_verified)
    .join(OutboxMail, OutboxMail.user_id == User.id)
    .where(OutboxMail.id == bindparam("outbox_id"), OutboxMail.sent_at.is_(None))
)


class MailQueue:
    """The queue as they see it who promise mails."""

    def __init__(self, moment: Moment) -> None:
        """`moment` is of the clock that deliverers share: a mail is due at once by it."""
        self._put = insert(OutboxMail).values(due_at=moment)

    def put(
        self, connection: Connection, *, user_id: str, verification_id: bytes, now: datetime
    ) -> None:
        """Queues the mail of a verification, within the transaction that promises it."""
        connection.execute(
            self._put,
            {
                "id": str(uuid.uuid4()),
                "user_id": user_id,
                "verification_id": verification_id,
                "created_at": now,
                "attempts": 0,
            },
        )


@dataclass(frozen=True)
class QueuedVerification:
    """A claimed row, with all that its mail needs."""

    outbox_id: str
    attempts: int  # failed ones so far
    created_at: datetime
    username: str
    is_email_verified: bool  # then nobody waits for it any more
    verification_id: bytes
    email: str
    key_fingerprint: str
    expires_at: datetime


@dataclass(frozen=True)
class Batch:
    """What a claim gave."""

    mails: list[QueuedVerification]
    is_probe: bool = False  # one mail, to see whether the pause can end


class Outbox:
    """One deliverer's view of the queue. Any number may work on it, in any process.

    All of its moments are those of one clock, the database's, so that leases hold between processes
    whose own clocks differ.
    """

    def __init__(self, database: Database, holder: str, moment: Moment) -> None:
        """`holder` names the deliverer; no two may share a name. `moment` is of the clock that
        deliverers share."""
        self._database = database
        self._holder = holder
        self._moment = moment
        self._look = select(
            moment.label("now"), select(OutboxPause.probe_at).scalar_subquery().label("probe_at")
        )
        self._sent = (
            update(OutboxMail)
            .where(OutboxMail.id == bindparam("outbox_id"), OutboxMail.sent_at.is_(None))
            .values(due_at=None, claimed_by=None, sent_at=moment, dead_at=None, last_error=None)
        )

    def claim(self, limit: int) -> Batch:
        """Takes at most `limit` due rows, the longest due first, for the length of a lease.

        During a pause it takes nothing but, every 30 seconds, one row as a probe.
        """
        # Each statement may stand by itself: what is claimed and not delivered comes due again.
        with self._database.single() as connection:
            now, probe_at = connection.execute(self._look).one()
            if probe_at is None:
                return Batch(self._claim(connection, now, limit))
        return self._probe(now, probe_at)

    def _probe(self, now: datetime, probe_at: datetime) -> Batch:
        if now < probe_at:
            return Batch([])
        with self._database.write() as connection:
            turn = connection.execute(
                update(OutboxPause)
                .where(OutboxPause.probe_at == probe_at)
                .values(probe_at=now + PROBE_INTERVAL)
            )
            if not turn.rowcount:  # another deliverer's turn
                return Batch([])
            return Batch(self._claim(connection, now, 1), is_probe=True)

    def _claim(self, connection: Connection, now: datetime, limit: int) -> list[QueuedVerification]:
        claimed = connection.scalars(
            _CLAIM,
            {
                "moment": now,
                "most": limit,
                "end_of_lease": now + LEASE,
                "holder": self._holder,
            },
        ).all()
        if not claimed:
            return []
        held = {"claimed": claimed, "holder": self._holder}
        rows = connection.execute(_CLAIMED, held).mappings()
        mails = [QueuedVerification(**row) for row in rows]
        orphans = set(claimed).difference(mail.outbox_id for mail in mails)
        if orphans:  # their verification was cleaned up: there is no link left to send
            connection.execute(
                update(OutboxMail)
                .where(OutboxMail.id.in_(orphans), OutboxMail.claimed_by == self._holder)
                .values(due_at=None, claimed_by=None, dead_at=now, last_error="token gone")
            )
        return mails

    def is_wanted(self, outbox_id: str) -> bool:
        """Whether the claimed mail's user still waits for it, looked at anew."""
        with self._database.read() as connection:
            verified = connection.scalar(_OWNER_IS_VERIFIED, {"outbox_id": outbox_id})
        return verified is False  # None: the registration is gone, or another has sent the mail

    def sent(self, outbox_id: str) -> bool:
        """Settles a mail that was accepted. False if it was settled so already.

        Whoever holds its lease now: a mail that was accepted is not to be sent again.
        """
        with self._database.single() as connection:
            result = connection.execute(self._sent, {"outbox_id": outbox_id})
        return result.rowcount == 1

    def retry(self, mail: QueuedVerification, reason: str, delay: timedelta) -> bool:
        """Counts a failed attempt and makes the mail due again after `delay`."""
        with self._database.write() as connection:
            due_at = read_clock(connection, self._moment) + delay
            return self._settle(
                connection,
                mail.outbox_id,
                due_at=due_at,
                attempts=mail.attempts + 1,
                last_error=reason,
            )

    def bury(self, outbox_id: str, reason: str) -> bool:
        """Settles a mail that will never be sent, with the reason for the operator."""
        with self._database.write() as connection:
            now = read_clock(connection, self._moment)
            return self._settle(connection, outbox_id, due_at=None, dead_at=now, last_error=reason)

    def release(self, outbox_id: str) -> bool:
        """Gives a claimed row back untried."""
        with self._database.write() as connection:
            return self._settle(connection, outbox_id, due_at=read_clock(connection, self._moment))

    def pause(self, reason: str) -> bool:
        """Stops all deliverers, but for probes. Whether they were not stopped before."""
        with self._database.write() as connection:
            now = read_clock(connection, self._moment)
            known = connection.execute(
                update(OutboxPause).values(reason=reason, probe_at=now + PROBE_INTERVAL)
            )
            if known.rowcount:
                return False
        try:
            with self._database.write() as connection:
                connection.execute(
                    insert(OutboxPause).values(
                        id=_THE_PAUSE, reason=reason, since=now, probe_at=now + PROBE_INTERVAL
                    )
                )
        except IntegrityError:  # another deliverer was quicker
            return False
        return True

    def resume(self) -> None:
        """Ends the pause."""
        with self._database.write() as connection:
            connection.execute(delete(OutboxPause))

    def _settle(self, connection: Connection, outbox_id: str, **values: object) -> bool:
        result = connection.execute(
            update(OutboxMail)
            .where(OutboxMail.id == outbox_id, OutboxMail.claimed_by == self._holder)
            .values(claimed_by=None, **values)
        )
        return result.rowcount == 1
