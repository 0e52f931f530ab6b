"""Runs the checks, so that neither one that hangs nor one that breaks stops the others."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from identity import extras
from identity.doctor.finding import Finding, failed
from identity.tracebacks import kind_of

# Seconds for all checks, which run side by side. Each has shorter time-outs of its own wherever it
# waits; this one holds for what has none: names that are looked up, files on a dead network.
PATIENCE: Final = 10.0


@dataclass(frozen=True)
class Check:
    """Looks at one subject. `name` stands for it where it gives no findings of its own."""

    name: str
    findings: Callable[[], Iterable[Finding]]


def examine(checks: Sequence[Check], patience: float = PATIENCE) -> list[Finding]:
    """All findings, in the order of the checks, after `patience` seconds at most.

    What a check found before it hung or broke is among them.
    """
    end = time.monotonic() + patience
    looks = [_Look(check) for check in checks]
    found = []
    for look in looks:
        found += look.findings(end, patience)
    return found


class _Look:
    """One check, in a thread of its own."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._found: list[Finding] = []
        # A daemon: the program ends without those that hang.
        self._thread = threading.Thread(target=self._run, name=check.name, daemon=True)
        self._thread.start()

    def findings(self, end: float, patience: float) -> list[Finding]:
        self._thread.join(max(0.0, end - time.monotonic()))
        hangs = self._thread.is_alive()
        found = self._found.copy()
        if hangs:
            found.append(
                failed(
                    self._check.name,
                    f"no answer within {patience:.0f} s",
                    "see what this check waits for: a name server, a firewall, a network disk",
                )
            )
        return found

    def _run(self) -> None:
        try:
            for finding in self._check.findings():
                self._found.append(finding)  # each counts as soon as it is there
        except ModuleNotFoundError as error:
            self._found.append(
                failed(
                    self._check.name,
                    f"the package {error.name} is not installed",
                    extras.advice(error),
                )
            )
        except PermissionError as error:
            found = f"{error.filename}: {error.strerror}"
            self._found.append(failed(self._check.name, found, "run it as the service's user"))
        except Exception as error:  # noqa: BLE001 - the other checks must go on
            # Never its text, which may quote a URL with its password.
            self._found.append(
                failed(
                    self._check.name,
                    f"the check itself broke: {kind_of(error)}",
                    "report this as a defect of `identity doctor`",
                )
            )
