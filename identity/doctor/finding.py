"""What a check found, in lines for the operator."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

# Characters of a text that another program gave us; what it says at the start is enough.
MAXIMUM_FOREIGN: Final = 120


class Result(StrEnum):
    """How a check ended, the worst last."""

    PASS = "pass"  # noqa: S105 - no password
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    `name` is stable: scripts look for it. `found` and `mend` may name hosts and paths of the
    operator's own settings, and never hold a secret.
    """

    name: str
    result: Result
    found: str
    mend: str | None = None  # what to do; None where nothing is to be done


def passed(name: str, found: str) -> Finding:
    return Finding(name, Result.PASS, found)


def warned(name: str, found: str, mend: str) -> Finding:
    """The service works, but not as it should in production."""
    return Finding(name, Result.WARN, found, mend)


def failed(name: str, found: str, mend: str) -> Finding:
    """The service would not start, or could not do its work."""
    return Finding(name, Result.FAIL, found, mend)


def foreign(text: str) -> str:
    """The first line of what another program said, fit to be shown on a terminal."""
    line = text.partition("\n")[0].strip()
    clean = "".join(character if character.isprintable() else "?" for character in line)
    return clean if len(clean) <= MAXIMUM_FOREIGN else clean[:MAXIMUM_FOREIGN] + "..."
