"""What stands in deploy/, read as those for whom it is written read it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from identity.config import Settings, load

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"

Document = dict[str, Any]


def documents(text: str) -> list[Document]:
    """The documents of a YAML stream."""
    return list(yaml.safe_load_all(text))


def assignments(text: str) -> Iterator[tuple[str, str]]:
    """The names and values in a file of NAME=VALUE lines."""
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield name, value


def settings(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Settings:
    """What the service makes of these variables. Raises ConfigurationError."""
    for name in [name for name in os.environ if name.startswith("IDENTITY_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load()


def write_secrets(folder: Path) -> None:
    """Files such as an operator makes them, by the names that deploy/ gives them."""
    folder.mkdir()
    for name, text in {
        "database-url": "postgresql+psycopg://identity:secret@db/identity\n",
        "secret-keys": "k" * 43 + "\n",
        "rate-limit-store": "valkey://identity:secret@limits\n",
        "smtp-password": "secret\n",
    }.items():
        (folder / name).write_text(text)
