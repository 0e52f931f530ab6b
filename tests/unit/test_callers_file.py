"""IDENTITY_CALLERS_FILE: what it may say, and mistakes told in one line."""

from datetime import timedelta
from pathlib import Path

import pytest

from identity.callers import MAXIMUM_CALLERS, Caller, Callers, load
from identity.config import ConfigurationError

REGISTER = "identity.v1.IdentityService/Register"
VERIFY = "identity.v1.IdentityService/VerifyEmail"
METHODS = frozenset({f"/{REGISTER}", f"/{VERIFY}"})
OPEN = frozenset({f"/{REGISTER}"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "callers.toml"


def caller(name: str = "a.example.com", methods: str = "[]", more: str = "") -> str:
    return f'[[caller]]\nname = "{name}"\nmethods = {methods}\n{more}\n'


def test_a_caller_has_its_methods_its_limit_and_whether_it_forwards(path: Path) -> None:
    path.write_text(
        caller("spiffe://a/b", f'["{REGISTER}", "{VERIFY}"]')
        + caller("b.example.com", "[]", 'rate_limit = "9/1h"\nforwards_clients = true')
    )
    assert load(path, METHODS) == {
        "spiffe://a/b": Caller("spiffe://a/b", METHODS),
        "b.example.com": Caller("b.example.com", frozenset(), (9, timedelta(hours=1)), True),
    }


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("zzz", "is not TOML"),
        ("\xff", "is not TOML"),
        ("", "caller: Field required"),
        ("zzz = 1\n" + caller(), "zzz: Extra inputs are not permitted"),
        ("[[caller]]\nname = 'a'", "caller 1: methods: Field required"),
        ("[[caller]]\nmethods = []", "caller 1: name: Field required"),
        (caller() + "[[caller]]\nname = 'a'", "caller 2: methods: Field required"),
        (caller(name=""), "caller 1: name: String should match pattern"),
        (caller(name="a b"), "caller 1: name: String should match pattern"),
        (caller(name="a" * 256), "caller 1: name: String should match pattern"),
        (caller() + caller(), "caller 2: name: stands there twice"),
        (caller(methods='"x"'), "caller 1: methods: Input should be a valid list"),
        (caller(methods='["x"]'), f"caller 1: methods: must be among {REGISTER}, {VERIFY}"),
        (caller(methods=f'["/{REGISTER}"]'), "caller 1: methods: must be among"),
        (caller(methods=f'["{REGISTER.lower()}"]'), "caller 1: methods: must be among"),
        (caller(methods='["*"]'), "caller 1: methods: must be among"),
        (caller(more='rate_limit = "9"'), "caller 1: rate_limit: must be CALLS/PERIOD"),
        (caller(more="rate_limit = 9"), "caller 1: rate_limit: must be CALLS/PERIOD"),
        (caller(more='forwards_clients = "yes"'), "caller 1: forwards_clients: Input should be"),
        (caller(more="zzz = 1"), "caller 1: zzz: Extra inputs are not permitted"),
        (caller() * (MAXIMUM_CALLERS + 1), "caller: List should have at most 1000 items"),
    ],
)
def test_a_mistake_is_told_in_one_line(path: Path, written: str, told: str) -> None:
    path.write_text(written, encoding="latin-1")
    with pytest.raises(ConfigurationError) as caught:
        load(path, METHODS)
    assert str(caught.value).startswith(f"IDENTITY_CALLERS_FILE: {told}")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_told(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="CALLERS_FILE: cannot be read: No such file"):
        load(path, METHODS)


LISTED = {"b": Caller("b", METHODS), "c": Caller("c", frozenset())}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), Caller("", frozenset())),
        (("b",), LISTED["b"]),
        (("a", "c", "b"), LISTED["c"]),
        (("a",), Caller("a", frozenset())),
        (("B",), Caller("B", frozenset())),
        (("b\n",), Caller("", frozenset())),  # it would stand in the log
    ],
)
def test_the_first_listed_name_counts(names: tuple[str, ...], expected: Caller) -> None:
    assert Callers(OPEN, LISTED).identify(names) == expected


def test_without_a_list_the_first_name_counts_for_what_is_open() -> None:
    callers = Callers(OPEN)
    assert callers.identify(("a", "b")) == Caller("a", OPEN)
    assert callers.identify(()) == Caller("", frozenset())
