"""Names that deploy/ and the documents use are names that the service knows."""

import ast
import re
from pathlib import Path

import pytest

from identity import callers, policy
from identity.config import ConfigurationError
from tests.deploy.files import DEPLOY, ROOT, documents, settings

FILES = [path for path in sorted(DEPLOY.rglob("*")) if path.is_file()]
NAMES = sorted(
    {
        name
        for path in [*FILES, ROOT / "docs" / "operations.md"]
        for name in re.findall(r"\bIDENTITY_[A-Z][A-Z_]*[A-Z]\b", path.read_text())
    }
)


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_exists(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        settings(monkeypatch, {name: "x"})
    except ConfigurationError as error:
        assert "there is no such setting" not in str(error)  # noqa: PT017 - or none is raised


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".yaml"], ids=str)
def test_every_yaml_file_is_one(path: Path) -> None:
    assert all(documents(path.read_text()))


def test_the_example_of_a_callers_file_is_one() -> None:
    listed = callers.load(DEPLOY / "callers.example.toml", frozenset(policy.RULES))
    assert any(caller.rate for caller in listed.values())
    assert any(caller.forwards_clients for caller in listed.values())
    # Nothing that exists is left out of what it shows.
    assert (
        frozenset[str]().union(*(each.methods for each in listed.values())) == policy.RULES.keys()
    )


def events() -> set[str]:
    """Every event that the service logs, by its name."""
    found = set()
    for path in (ROOT / "identity").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="_log")),
                    args=[ast.Constant(value=str(event)), *_],
                ):
                    found.add(event)
    return found


@pytest.mark.parametrize("event", sorted(events()))
def test_every_event_has_its_line_for_the_operator(event: str) -> None:
    assert f"`{event}`" in (ROOT / "docs" / "operations.md").read_text()
