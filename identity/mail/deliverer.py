"""Delivers the outbox: claims what is due, sends it outside any transaction, notes how it went."""

import random
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from identity.mail.outbox import LEASE, Outbox, QueuedVerification
from identity.mail.sender import (
    AccountFailure,
    Mail,
    PermanentFailure,
    Sender,
    TemporaryFailure,
)
from identity.mail.templates import Templates, VerificationMail
from identity.meters import SILENT, DeliveryResult, Meters
from identity.security.tokens import TokenSigner
from identity.tracebacks import describe

BATCH = 20  # rows claimed at once
# A row that has waited longer than this in a claimed batch goes back: what is left of the lease
# must hold the slowest send (a sender's SEND_TIMEOUT), or another deliverer would send the same
# mail meanwhile.
STALE_CLAIM = LEASE / 4

# For so long a claimed mail's user is believed not to have verified meanwhile: about as long as it
# takes to send a mail, whose user may verify meanwhile just as well.
FRESH_CLAIM = timedelta(seconds=0.1)

FIRST_DELAY = timedelta(seconds=5)
LONGEST_DELAY = timedelta(minutes=10)

_log = structlog.get_logger()


def retry_delay(failures: int, uniform: Callable[[float, float], float]) -> timedelta:
    """The wait after the given number of failed attempts: doubling, capped, with full jitter."""
    # The exponent is bounded before the power is taken: it grows with every failure.
    ceiling = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(failures - 1, 10))
    return timedelta(seconds=uniform(0, ceiling.total_seconds()))


def _never() -> bool:
    return False


class Deliverer:
    """Empties the outbox through a sender. For one thread at a time."""

    def __init__(
        self,
        outbox: Outbox,
        sender: Sender,
        templates: Templates,
        signer: TokenSigner,
        *,
        now: Callable[[], datetime],
        meters: Meters = SILENT,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._outbox = outbox
        self._sender = sender
        self._templates = templates
        self._signer = signer
        self._now = now
        self._meters = meters
        self._uniform = uniform
        # Ids of mails that were accepted while the database could not be told.
        self._untold: list[str] = []

    def deliver_due(self, is_stopping: Callable[[], bool] = _never) -> int:
        """Claims one batch and tries each of its mails at most once. Returns how many it got.

        Raises DatabaseUnavailable; what was claimed then comes due again with its lease's end,
        but for a mail that was accepted: that is noted as soon as the database is back.
        """
        self._note_accepted()
        claimed_at = self._now()
        batch = self._outbox.claim(BATCH)
        is_paused = False
        try:
            for mail in batch.mails:
                if is_paused or is_stopping() or self._now() - claimed_at > STALE_CLAIM:
                    self._outbox.release(mail.outbox_id)
                    continue
                try:
                    is_judged = self._deliver(mail, claimed_at)
                except AccountFailure as failure:
                    self._pause(mail, failure.reason)
                    is_paused = True
                else:
                    if batch.is_probe and is_judged:
                        self._outbox.resume()
                        _log.info("outbox_resumed")
        finally:
            if len(batch.mails) < BATCH:  # the queue is empty: nobody needs the connection
                self._sender.close()
        return 0 if is_paused else len(batch.mails)

    def _deliver(self, mail: QueuedVerification, claimed_at: datetime) -> bool:
        """Tries one mail. Whether the provider judged it, so that others are judged too."""
        if not self._is_wanted(mail, claimed_at):
            self._bury(mail, "verified already")
            return False
        if mail.expires_at <= self._now():
            self._bury(mail, "token expired")
            return False
        try:
            self._sender.send(self._compose(mail))
        except TemporaryFailure as failure:
            self._retry(mail, failure.reason)
            return False
        except PermanentFailure as failure:
            self._bury(mail, failure.reason)
        except AccountFailure:
            raise
        except Exception as error:  # noqa: BLE001 - one mail must not hold up the others
            _log.error("delivery_failed", outbox_id=mail.outbox_id, **describe(error))
            self._retry(mail, type(error).__name__)
            return False
        else:
            self._meters.delivery_tried(DeliveryResult.SENT)
            self._untold.append(mail.outbox_id)
            self._note_accepted()
        return True

    def _is_wanted(self, mail: QueuedVerification, claimed_at: datetime) -> bool:
        if mail.is_email_verified or self._now() - claimed_at <= FRESH_CLAIM:
            return not mail.is_email_verified
        return self._outbox.is_wanted(mail.outbox_id)  # others of the batch have taken a while

    def _note_accepted(self) -> None:
        while self._untold:
            is_news = self._outbox.sent(self._untold[0])
            _log.info("mail_sent", outbox_id=self._untold.pop(0), first_copy=is_news)

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
        self._meters.delivery_tried(DeliveryResult.DELAYED)
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
        self._meters.delivery_tried(DeliveryResult.DEAD)
        held = self._outbox.bury(mail.outbox_id, reason)
        _log.warning("mail_dead", outbox_id=mail.outbox_id, reason=reason, lease_held=held)

    def _pause(self, mail: QueuedVerification, reason: str) -> None:
        """Nothing is wrong with the mail: it goes back untried, and no attempt is burned."""
        self._meters.delivery_tried(DeliveryResult.PAUSED)
        self._outbox.release(mail.outbox_id)
        if self._outbox.pause(reason):
            _log.error("outbox_paused", reason=reason)
