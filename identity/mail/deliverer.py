"""Delivers the outbox: claims what is due, sends it outside any transaction, notes how it went."""

import random
import threading
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from identity.errors import DatabaseUnavailable
from identity.mail.outbox import LEASE, Outbox, QueuedVerification
from identity.mail.sender import Mail, PermanentFailure, Sender, TemporaryFailure
from identity.mail.templates import Templates, VerificationMail
from identity.security.tokens import TokenSigner
from identity.tracebacks import describe, kind_of

POLL_INTERVAL = 1.0  # seconds; what this process queues wakes the deliverer at once
BATCH = 20  # rows claimed at once
# A row that has waited longer than this in a claimed batch goes back: what is left of the lease
# must hold the slowest send (a sender's SEND_TIMEOUT), or another deliverer would send the same
# mail meanwhile.
STALE_CLAIM = LEASE / 4

FIRST_DELAY = timedelta(seconds=5)
LONGEST_DELAY = timedelta(minutes=10)

_log = structlog.get_logger()


def retry_delay(failures: int, uniform: Callable[[float, float], float]) -> timedelta:
    """The wait after the given number of failed attempts: doubling, capped, with full jitter."""
    # The exponent is bounded before the power is taken: it grows with every failure.
    ceiling = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(failures - 1, 10))
    return timedelta(seconds=uniform(0, ceiling.total_seconds()))


class Deliverer:
    """One thread that empties the outbox through a sender."""

    def __init__(
        self,
        outbox: Outbox,
        sender: Sender,
        templates: Templates,
        signer: TokenSigner,
        *,
        now: Callable[[], datetime],
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._outbox = outbox
        self._sender = sender
        self._templates = templates
        self._signer = signer
        self._now = now
        self._uniform = uniform
        self._work = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="deliverer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Says that a mail was queued, so that it does not wait for the next poll."""
        self._work.set()

    def stop(self, timeout: float) -> None:
        """Ends the thread after the mail at hand; what is still queued stays queued.

        A send that takes longer than `timeout` seconds is left to the lease.
        """
        self._stopping.set()
        self._work.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def deliver_due(self) -> int:
        """Claims one batch and tries each of its mails at most once. Returns how many it got.

        Raises DatabaseUnavailable; what was claimed then comes due again with its lease's end.
        """
        claimed_at = self._now()
        batch = self._outbox.claim(BATCH)
        try:
            for mail in batch:
                if self._stopping.is_set() or self._now() - claimed_at > STALE_CLAIM:
                    self._outbox.release(mail.outbox_id)
                else:
                    self._deliver(mail)
        finally:
            if len(batch) < BATCH:  # the queue is empty: nobody needs the connection
                self._sender.close()
        return len(batch)

    def _run(self) -> None:
        reachable = True
        while not self._stopping.is_set():
            self._work.clear()
            claimed = 0
            try:
                claimed = self.deliver_due()
                reachable = True
            except DatabaseUnavailable as error:
                if reachable:  # once, not with every poll of an outage
                    _log.warning("outbox_unavailable", error=kind_of(error.__cause__ or error))
                reachable = False
            except Exception as error:  # noqa: BLE001 - the thread must outlive a bad batch
                _log.error("delivery_failed", **describe(error))
            if not claimed:
                self._work.wait(POLL_INTERVAL)
        self._sender.close()

    def _deliver(self, mail: QueuedVerification) -> None:
        if mail.is_email_verified:
            self._bury(mail, "verified already")
            return
        if mail.expires_at <= self._now():
            self._bury(mail, "token expired")
            return
        try:
            self._sender.send(self._compose(mail))
        except TemporaryFailure as failure:
            self._retry(mail, failure.reason)
        except PermanentFailure as failure:
            self._bury(mail, failure.reason)
        except Exception as error:  # noqa: BLE001 - one mail must not hold up the others
            _log.error("delivery_failed", outbox_id=mail.outbox_id, **describe(error))
            self._retry(mail, type(error).__name__)
        else:
            held = self._outbox.sent(mail.outbox_id)
            _log.info("mail_sent", outbox_id=mail.outbox_id, lease_held=held)

    def _compose(self, mail: QueuedVerification) -> Mail:
        message = self._templates.verification(
            VerificationMail(
                outbox_id=mail.outbox_id,
                username=mail.username,
                email=mail.email,
                token=self._signer.token(mail.verification_id, mail.key_fingerprint),
                expires_at=mail.expires_at,
                written_at=mail.created_at,
            )
        )
        return Mail(mail.outbox_id, mail.email, message)

    def _retry(self, mail: QueuedVerification, reason: str) -> None:
        delay = retry_delay(mail.attempts + 1, self._uniform)
        held = self._outbox.retry(mail, reason, delay)
        _log.warning(
            "mail_delayed",
            outbox_id=mail.outbox_id,
            reason=reason,
            attempts=mail.attempts + 1,
            retry_in_s=round(delay.total_seconds(), 1),
            lease_held=held,
        )

    def _bury(self, mail: QueuedVerification, reason: str) -> None:
        held = self._outbox.bury(mail.outbox_id, reason)
        _log.warning("mail_dead", outbox_id=mail.outbox_id, reason=reason, lease_held=held)
