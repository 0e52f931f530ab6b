"""What the machine allows, and how quick it is."""

import resource
import time
from collections.abc import Iterator
from typing import Final

from identity.config import Settings
from identity.doctor.finding import Finding, passed, warned
from identity.security.passwords import hash_password

# Each caller's connection takes one, and so do those to the database.
SUFFICIENT_DESCRIPTORS: Final = 4096
# OWASP's Password Storage Cheat Sheet, "bcrypt": a work factor of 10 or more.
MINIMUM_COST: Final = 10
_TIMED_COST: Final = 8  # some 20 ms; each step above doubles the work, by definition


def machine_findings(settings: Settings) -> Iterator[Finding]:
    yield _descriptors()
    yield _hash(settings.bcrypt_cost)


def _descriptors() -> Finding:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return passed("descriptors", "no limit")
    found = f"at most {limit} open files and connections"
    if limit < SUFFICIENT_DESCRIPTORS:
        mend = f"raise `ulimit -n` (LimitNOFILE in systemd) to {SUFFICIENT_DESCRIPTORS} or more"
        return warned("descriptors", found, mend)
    return passed("descriptors", found)


def _hash(cost: int) -> Finding:
    started = time.thread_time()  # not what other work on this machine takes
    hash_password("Correct-Horse-7!", min(cost, _TIMED_COST))
    took = (time.thread_time() - started) * 2.0 ** max(0, cost - _TIMED_COST)
    found = f"cost {cost}, about {took:.2g} s a hash on one core"
    if cost < MINIMUM_COST:
        mend = f"set IDENTITY_BCRYPT_COST to {MINIMUM_COST} or more"
        return warned("bcrypt", found, mend)
    return passed("bcrypt", found)
