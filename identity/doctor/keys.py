"""The keys that sign tokens, and the files that secrets come from."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from identity import embedded, values
from identity.config import Settings
from identity.doctor.files import secret_file
from identity.doctor.finding import Finding, failed, passed, warned

_NAME: Final = "keys"
_MEND: Final = "make each with `openssl rand -hex 32`"
# Different characters in a key. Of 32 random hex digits, one key in 10^7 has fewer.
MINIMUM_VARIETY: Final = 8


def key_findings(settings: Settings, files: Mapping[str, Path]) -> Iterator[Finding]:
    """`files`: those that settings were read from, by the variable that names each."""
    yield _keys(settings)
    if settings.secret_keys is None and settings.is_embedded and embedded.KEY_FILE.exists():
        yield secret_file("keys.file", embedded.KEY_FILE)
    for variable, path in files.items():
        yield secret_file(f"files.{variable}", path)


def _keys(settings: Settings) -> Finding:
    keys = settings.secret_keys
    where = "IDENTITY_SECRET_KEYS"
    if keys is None and not settings.is_embedded:
        found = "IDENTITY_SECRET_KEYS is not set; only the default database makes its own"
        return failed(_NAME, found, f"set it, the same in every process; {_MEND}")
    if keys is None:
        where = str(embedded.KEY_FILE)
        if not embedded.KEY_FILE.exists():
            return passed(_NAME, f"{where}: the first start makes it")
        try:
            keys = values.secret_keys(embedded.KEY_FILE.read_text("utf-8").strip())
        except OSError as error:
            return failed(_NAME, f"{where}: {error.strerror}", "run as the user who owns the file")
        except ValueError as error:  # ours, or that of the codec, which quotes no more than a byte
            why = "is no text" if isinstance(error, UnicodeError) else str(error)
            return failed(_NAME, f"{where}: {why}", _MEND)
    weak = [number for number, key in enumerate(keys, 1) if is_weak(key)]
    if weak:
        told = ", ".join(map(str, weak))
        return warned(_NAME, f"{where}: key {told} of {len(keys)} can be guessed", _MEND)
    return passed(_NAME, f"{where}: {len(keys)}, the first one signs")


def is_weak(key: str) -> bool:
    """Whether it is out of few characters, or one piece over and over."""
    repeats = any(key[period:] == key[:-period] for period in range(1, len(key) // 2 + 1))
    return repeats or len(set(key)) < MINIMUM_VARIETY
