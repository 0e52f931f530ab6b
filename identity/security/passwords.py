"""Password hashes: bcrypt over a keyed digest, in a bounded pool of threads.

bcrypt reads 72 bytes and no more, and 48 characters can be 192 bytes. The password is therefore
digested first, in the established format `bcrypt_sha256` version 2 (as passlib writes it):

    $bcrypt-sha256$v=2,t=2b,r=COST$SALT$CHECKSUM
    CHECKSUM = bcrypt(base64(HMAC-SHA256(key=SALT, message=password)), COST, SALT)

The digest is keyed by the salt and base64-encoded, against shucking and NUL bytes (OWASP Password
Storage Cheat Sheet, "Pre-Hashing Passwords with bcrypt"). Plain `$2b$` hashes go on verifying.
"""

import base64
import hashlib
import hmac
import os
import re
import sys
import threading
import time
import unicodedata
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import Final, TypeVar

import bcrypt

from identity.deadlines import Deadline
from identity.errors import DeadlineTooShort, Overloaded
from identity.meters import SILENT, Meters

BCRYPT_MAXIMUM_BYTES = 72

# A hash never waits longer than this in the queue, whatever the caller's deadline: beyond it
# people have given up, and the work would be for nobody.
MAXIMUM_WAIT = 15.0  # seconds
# Registers in the pool at once, a core: the hard bound on queue and threads where a hash is so
# quick that MAXIMUM_WAIT alone would admit thousands.
ADMITTED_PER_CORE = 56
# What is left of the deadline after the hash must hold a transaction and the reply.
TIME_TO_COMMIT = 0.05  # seconds

_SECONDS_AT_COST_12 = 0.27  # a first guess until real hashes have been timed
_SMOOTHING = 0.2  # weight of the newest hash in the running mean

_PREFIX = "$bcrypt-sha256$v=2,t=2b,r="
_OURS = re.compile(
    r"\$bcrypt-sha256\$v=2,t=2b,r=(?P<cost>[4-9]|[12]\d|3[01])"
    r"\$(?P<salt>[./A-Za-z0-9]{22})\$(?P<checksum>[./A-Za-z0-9]{31})",
    re.ASCII,
)
_PLAIN = re.compile(r"\$2[abxy]\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}", re.ASCII)

# How far hashes stand back (nice(7), by which Linux weighs single threads): a light call that comes
# while all cores hash has one at once, and a hash takes as long as before where nobody comes.
_NICENESS: Final = 10

T = TypeVar("T")


def normalize(password: str) -> str:
    """NFKC: composed and decomposed spellings are one password (NIST SP 800-63B, 3.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


def hash_password(password: str, cost: int) -> str:
    """The hash to store. Blocks for the whole work of bcrypt: call it in the pool."""
    return _bcrypt_sha256(password, bcrypt.gensalt(cost)[7:].decode(), cost)


def verify_password(password: str, stored: str) -> bool:
    """Whether the password made the stored hash. False for a hash of an unknown format."""
    try:
        return _verify(password, stored)
    except ValueError:  # bcrypt's, for a salt that no bcrypt makes
        return False


def _verify(password: str, stored: str) -> bool:
    if ours := _OURS.fullmatch(stored):
        again = _bcrypt_sha256(password, ours["salt"], int(ours["cost"]))
        return hmac.compare_digest(again, stored)
    if _PLAIN.fullmatch(stored):
        secret = normalize(password).encode()
        # bcrypt would have to truncate, and two passwords would verify as one.
        return len(secret) <= BCRYPT_MAXIMUM_BYTES and bcrypt.checkpw(secret, stored.encode())
    return False


def _bcrypt_sha256(password: str, salt: str, cost: int) -> str:
    digest = hmac.digest(salt.encode(), normalize(password).encode(), hashlib.sha256)
    hashed = bcrypt.hashpw(base64.b64encode(digest), f"$2b${cost:02d}${salt}".encode()).decode()
    return f"{_PREFIX}{cost}${salt}${hashed[-31:]}"


def _step_back() -> None:
    if sys.platform == "linux":  # elsewhere it would be the whole process
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


class PasswordHasher:
    """Hashes and verifies in a pool of its own, one thread a core.

    bcrypt lets go of the GIL, so threads scale; more than one a core would only slow down the
    light calls beside them. The queue is bounded in time: what could not be done before its
    deadline is refused before any work.
    """

    def __init__(
        self,
        cost: int,
        cores: int,
        clock: Callable[[], float] = time.monotonic,
        meters: Meters = SILENT,
        before_wait: Callable[[], None] = lambda: None,
    ) -> None:
        """`before_wait` is told by each thread that is going to wait for a hash."""
        self.admitted_at_most = ADMITTED_PER_CORE * cores
        self._cost = cost
        self._cores = cores
        self._clock = clock
        self._meters = meters
        self._before_wait = before_wait
        self._lock = threading.Lock()
        self._admitted = 0
        self._recent = self._fastest = _SECONDS_AT_COST_12 * 2.0 ** (cost - 12)  # seconds a hash
        self._pool = ThreadPoolExecutor(cores, thread_name_prefix="hash", initializer=_step_back)

    def hash(self, password: str, deadline: Deadline) -> str:
        """The hash to store.

        Raises Overloaded, or DeadlineTooShort where the deadline can't hold a hash, before any
        work; and DeadlineTooShort when the deadline passes all the same.
        """
        return self._run(deadline, lambda: hash_password(password, self._cost))

    def verify(self, password: str, stored: str, deadline: Deadline) -> bool:
        """Whether the password made the stored hash. Raises as `hash` does."""
        return self._run(deadline, lambda: verify_password(password, stored))

    def close(self) -> None:
        """Ends the pool. What is still queued is refused; what runs is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, deadline: Deadline, work: Callable[[], T]) -> T:
        self._admit(deadline)
        self._meters.hash_waits()
        try:
            future = self._pool.submit(self._timed, work, deadline, time.monotonic())
        except RuntimeError:  # the pool is closed: the service stops
            self._meters.hash_given_up()
            self._release()
            raise Overloaded(retry_after=self._recent) from None
        # When it is done, not when nobody waits any more: a thread that works is not free.
        future.add_done_callback(self._done)
        self._before_wait()
        try:
            # The admission is an estimate: the deadline ends the wait all the same.
            timeout = deadline.remaining()
            return future.result(timeout if timeout < threading.TIMEOUT_MAX else None)
        except FutureTimeoutError:
            future.cancel()
            raise DeadlineTooShort from None
        except CancelledError:  # by close()
            raise Overloaded(retry_after=self._recent) from None

    def _done(self, future: Future[T]) -> None:
        if future.cancelled():
            self._meters.hash_given_up()
        self._release()

    def _release(self) -> None:
        with self._lock:
            self._admitted -= 1

    def _admit(self, deadline: Deadline) -> None:
        remaining = deadline.remaining()
        with self._lock:
            # By the fastest hash, not by the recent ones: a machine that once stood still would
            # otherwise refuse for ever, because only a hash that is done mends the estimate.
            if self._fastest + TIME_TO_COMMIT > remaining:
                raise DeadlineTooShort
            if self._admitted >= self._cores:  # no thread is free: there is a queue
                wait = (self._admitted + 1) * self._recent / self._cores
                if wait > min(remaining, MAXIMUM_WAIT) or self._admitted >= self.admitted_at_most:
                    raise Overloaded(retry_after=max(self._recent, wait / 2))
            self._admitted += 1

    def _timed(self, work: Callable[[], T], deadline: Deadline, admitted: float) -> T:
        self._meters.hash_begins(time.monotonic() - admitted)
        deadline.check()  # the caller may have gone while this waited
        started = self._clock()
        result = work()
        took = self._clock() - started
        with self._lock:
            self._recent += _SMOOTHING * (took - self._recent)
            self._fastest = min(self._fastest, took)
        return result
