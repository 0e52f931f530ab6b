"""How many cores this process may use.

A limit on CPU time (Kubernetes' `limits.cpu`, systemd's CPUQuota) takes no core away from a
process, so the scheduler goes on showing it all of the machine's. Who sizes threads and pools by
those has 64 hashes run on two cores' time, and opens four times the connections.
"""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_CGROUPS: Final = Path("/sys/fs/cgroup")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")


def usable_cores(cgroups: Path = _CGROUPS, membership: Path = _MEMBERSHIP) -> int:
    """At least one; part of a core counts as a whole.

    Cores that it is bound to, or what the control groups (version 2) leave of them. Where there
    are none, or only those of version 1, nothing limits it.
    """
    return min([_scheduled(), *_quotas(cgroups, membership)])


def _scheduled() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quotas(cgroups: Path, membership: Path) -> Iterator[int]:
    """What its group and each one above allow; within a container the topmost is its own."""
    for group in _groups(cgroups, membership):
        with suppress(OSError, ValueError):  # ValueError: "max" is no number, and no limit
            quota, period = (group / "cpu.max").read_text("ascii").split()
            yield max(1, math.ceil(int(quota) / int(period)))


def _groups(cgroups: Path, membership: Path) -> Iterator[Path]:
    with suppress(OSError):
        for line in membership.read_text("utf-8").splitlines():
            if line.startswith("0::/"):  # version 2's only line
                group = Path(line.removeprefix("0::/"))
                yield from (cgroups / each for each in (group, *group.parents))
