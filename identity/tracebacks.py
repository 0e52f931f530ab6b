"""Exceptions for the log: where and what kind, never their text.

The text of an exception quotes what it was about: a driver's names the duplicate address, a
parser's the token. Frames and types lead to a defect as well, and hold source lines, never values.
"""

import traceback
from typing import TypedDict


class Description(TypedDict):
    """The fields of a log line about an exception."""

    error: str
    traceback: str


def describe(error: BaseException) -> Description:
    """The exception, its causes and their frames. Databases' own codes are kept."""
    parts: list[str] = []
    current: BaseException | None = error
    seen: set[int] = set()
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        frames = "".join(traceback.format_tb(current.__traceback__))
        parts.append(f"{frames}{kind_of(current)}\n")
        # As the interpreter itself would show it: `from X`, else what was being handled.
        if current.__cause__ is not None or current.__suppress_context__:
            current = current.__cause__
        else:
            current = current.__context__
    return {"error": kind_of(error), "traceback": "caused by:\n".join(parts)}


def kind_of(error: BaseException) -> str:
    """The exception's type, with the database's own code where there is one."""
    kind = type(error)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    driver = getattr(error, "orig", None) or error  # SQLAlchemy wraps what the driver raised
    code = getattr(driver, "sqlstate", None) or getattr(driver, "sqlite_errorname", None)
    return f"{name} ({code})" if code else name
