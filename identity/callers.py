"""Who may call what: callers by the names in their certificates.

IDENTITY_CALLERS_FILE is TOML:

    [[caller]]
    name = "spiffe://example.com/signup"    # a URI or a DNS name among its alternative names
    methods = ["identity.v1.IdentityService/Register", "identity.v1.IdentityService/VerifyEmail"]
    rate_limit = "1000/60s"                 # optional: of the calls that are counted as its own
    forwards_clients = true                 # optional: whether its x-forwarded-for is believed
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from identity import values
from identity.config import ConfigurationError
from identity.values import Rate

MAXIMUM_CALLERS: Final = 1000  # each may have a window of its own
# What a name may hold: it stands in every line of the log about its calls.
_NAME: Final = re.compile(r"[!-~]{1,255}", re.ASCII)
_SETTING: Final = "IDENTITY_CALLERS_FILE"


@dataclass(frozen=True)
class Caller:
    """Who calls, as far as it is proven."""

    name: str  # empty where nothing proves one
    methods: frozenset[str]  # that it may call, each as "/identity.v1.IdentityService/Register"
    rate: Rate | None = None  # of its own
    forwards_clients: bool = False  # whether it may say for whom it calls


# Proven to be nobody: may call nothing.
NOBODY: Final = Caller("", frozenset())


class Callers:
    """Tells callers by the names in their certificates."""

    def __init__(
        self, open_methods: frozenset[str], listed: Mapping[str, Caller] | None = None
    ) -> None:
        """With no list, every caller that has a name may call the open methods."""
        self._open_methods = open_methods
        self._listed = listed

    def identify(self, names: Iterable[str]) -> Caller:
        """The caller whose certificate bears these names, the most telling first.

        The first that is listed counts. One that is not listed may call nothing, and neither may
        one without any name; a certificate's common name is none (RFC 9525, 2).
        """
        known = [name for name in names if _NAME.fullmatch(name)]
        if not known:
            return NOBODY
        if self._listed is None:
            return Caller(known[0], self._open_methods)
        for name in known:
            if name in self._listed:
                return self._listed[name]
        return Caller(known[0], frozenset())

    def rates(self) -> Mapping[str, Rate]:
        """The limits of those that have one of their own, by their names."""
        return {name: each.rate for name, each in (self._listed or {}).items() if each.rate}


def load(path: Path, methods: frozenset[str]) -> Mapping[str, Caller]:
    """The callers that the file lists, by name. `methods` are all there are.

    Raises ConfigurationError, in one line.
    """
    try:
        with path.open("rb") as file:
            written = _File(**tomllib.load(file))
    except OSError as error:
        raise _unusable(f"cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise _unusable("is not TOML") from None
    except ValidationError as error:
        mistake = error.errors(include_url=False, include_input=False)[0]
        raise _unusable(_told(mistake["loc"], mistake["msg"])) from None
    listed: dict[str, Caller] = {}
    for number, entry in enumerate(written.caller, 1):
        called = frozenset(f"/{method}" for method in entry.methods)
        if not called <= methods:
            known = ", ".join(sorted(method[1:] for method in methods))
            raise _unusable(f"caller {number}: methods: must be among {known}")
        if entry.name in listed:
            raise _unusable(f"caller {number}: name: stands there twice")
        listed[entry.name] = Caller(entry.name, called, entry.rate_limit, entry.forwards_clients)
    return listed


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    name: str = Field(pattern=_NAME.pattern.join(("^", "$")))
    methods: list[str]
    rate_limit: Annotated[Rate, PlainValidator(values.rate)] | None = None
    forwards_clients: bool = False


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    caller: list[_Entry] = Field(max_length=MAXIMUM_CALLERS)


def _told(place: Sequence[Any], message: str) -> str:
    where = [f"caller {part + 1}" if isinstance(part, int) else str(part) for part in place]
    if where[:1] == ["caller"] and len(where) > 1:
        where = where[1:3]
    return ": ".join([*where, message.removeprefix("Value error, ")])


def _unusable(why: str) -> ConfigurationError:
    return ConfigurationError(f"{_SETTING}: {why}")
