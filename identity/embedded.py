"""The embedded case: a database and a key under `var/`, so that a first start needs nothing."""

import os
import secrets
import tempfile
from pathlib import Path
from typing import Final

from identity.config import ConfigurationError
from identity.values import MINIMUM_KEY_LENGTH, secret_keys

DIRECTORY: Final = Path("var")
KEY_FILE: Final = DIRECTORY / "secret.keys"


def make_directory() -> None:
    """Makes the directory, for its owner's eyes only. Raises ConfigurationError."""
    try:
        DIRECTORY.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"cannot make the directory {DIRECTORY}: {error.strerror}"
        ) from None


def keys() -> tuple[str, ...]:
    """The keys that sign tokens; one is made at the first start. Raises ConfigurationError."""
    try:
        if not KEY_FILE.exists():
            _write_new_key()
        return secret_keys(KEY_FILE.read_text("utf-8").strip())
    except ValueError as error:
        raise ConfigurationError(f"{KEY_FILE}: {error}") from None
    except OSError as error:
        raise ConfigurationError(f"{KEY_FILE}: {error.strerror}") from None


def _write_new_key() -> None:
    # Written aside and linked: whole or not at all, and the quicker of two starts wins.
    descriptor, name = tempfile.mkstemp(dir=DIRECTORY, prefix=KEY_FILE.name)  # mode 0600
    aside = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(MINIMUM_KEY_LENGTH) + "\n")
            file.flush()
            os.fsync(descriptor)
        os.link(aside, KEY_FILE)
    except FileExistsError:
        return
    finally:
        aside.unlink()
