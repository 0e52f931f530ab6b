"""Exceptions in the log: where and what kind, never their text."""

import sqlite3

import psycopg
import pytest
from sqlalchemy.exc import IntegrityError

from identity.tracebacks import Description, describe, kind_of


def secret(*parts: str) -> str:
    """Put together at run time: a source line, which a frame shows, does not hold it."""
    return "-".join(parts)


def failed(text: str) -> None:
    raise ValueError(text)


def failed_from(text: str, cause_text: str) -> None:
    try:
        failed(cause_text)
    except ValueError as error:
        raise KeyError(text) from error


def failed_while_handling(text: str, context_text: str) -> None:
    try:
        failed(context_text)
    except ValueError:
        raise LookupError(text)  # noqa: B904 - the case at hand


def failed_in_silence(text: str, hidden_text: str) -> None:
    try:
        failed(hidden_text)
    except ValueError:
        raise LookupError(text) from None


class Nested:
    class Odd(Exception):
        pass


def whole(description: Description) -> str:
    return f"{description['error']}\n{description['traceback']}"


def test_the_type_and_the_frames_are_told_and_the_text_is_not() -> None:
    text = secret("the", "duplicate", "address")
    with pytest.raises(ValueError, match=text) as caught:
        failed(text)
    told = describe(caught.value)
    assert told["error"] == "ValueError"
    assert ", in failed\n" in told["traceback"]
    assert told["traceback"].endswith("ValueError\n")
    assert text not in whole(told)


def test_neither_notes_nor_arguments_are_told() -> None:
    text = secret("told", "by", "nobody")
    error = OSError(5, text, text)
    error.add_note(text)
    told = describe(error)
    assert text not in whole(told)
    assert told["error"] == "OSError"


def test_a_cause_is_told_by_its_frames_and_type_only() -> None:
    texts = secret("outer", "text"), secret("inner", "text")
    with pytest.raises(KeyError) as caught:
        failed_from(*texts)
    told = describe(caught.value)
    assert told["error"] == "KeyError"
    assert told["traceback"].count("caused by:\n") == 1
    outer, inner = told["traceback"].split("caused by:\n")
    assert ", in failed_from\n" in outer
    assert outer.endswith("KeyError\n")
    assert ", in failed\n" in inner
    assert inner.endswith("ValueError\n")
    assert [text for text in texts if text in whole(told)] == []


def test_what_was_being_handled_is_told_by_its_frames_and_type_only() -> None:
    texts = secret("outer", "text"), secret("inner", "text")
    with pytest.raises(LookupError) as caught:
        failed_while_handling(*texts)
    told = describe(caught.value)
    assert "LookupError\ncaused by:\n" in told["traceback"]
    assert told["traceback"].endswith("ValueError\n")
    assert [text for text in texts if text in whole(told)] == []


def test_what_was_hidden_on_purpose_stays_hidden() -> None:
    with pytest.raises(LookupError) as caught:
        failed_in_silence("outer", "inner")
    told = describe(caught.value)
    assert "ValueError" not in told["traceback"]
    assert "caused by:" not in told["traceback"]


def test_a_chain_of_many_causes_is_told_to_its_end() -> None:
    error: Exception = ValueError(secret("link", "0"))
    for number in range(1, 20):
        outer = RuntimeError(secret("link", str(number)))
        outer.__cause__ = error
        error = outer
    told = describe(error)
    assert told["traceback"].count("caused by:\n") == 19
    assert told["traceback"].endswith("ValueError\n")
    assert "link-" not in whole(told)


def test_a_cycle_of_causes_ends() -> None:
    first, second = ValueError(secret("first", "text")), KeyError(secret("second", "text"))
    first.__cause__, second.__cause__ = second, first
    told = describe(first)
    assert told["traceback"] == "ValueError\ncaused by:\nKeyError\n"


def test_an_exception_that_is_its_own_context_ends() -> None:
    error = ValueError(secret("a", "text"))
    error.__cause__ = error
    assert describe(error)["traceback"] == "ValueError\n"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("text"), "ValueError"),
        (SystemExit("text"), "SystemExit"),
        (sqlite3.OperationalError("text"), "sqlite3.OperationalError"),
        (Nested.Odd("text"), f"{__name__}.Nested.Odd"),
    ],
)
def test_a_kind_is_the_name_of_its_type(error: BaseException, kind: str) -> None:
    assert kind_of(error) == kind


def test_the_sqlstate_of_postgresql_is_kept() -> None:
    assert kind_of(psycopg.errors.UniqueViolation("text")) == (
        "psycopg.errors.UniqueViolation (23505)"
    )


def test_the_sqlstate_is_kept_through_sqlalchemy() -> None:
    text = secret("a", "value")
    error = IntegrityError(text, {"email": text}, psycopg.errors.UniqueViolation(text))
    told = describe(error)
    assert told["error"] == "sqlalchemy.exc.IntegrityError (23505)"
    assert text not in whole(told)


def test_the_name_of_an_error_of_sqlite_is_kept_through_sqlalchemy() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE users (email TEXT UNIQUE)")
    text = secret("a", "value")
    with pytest.raises(sqlite3.IntegrityError) as caught:
        connection.executemany("INSERT INTO users VALUES (?)", [(text,), (text,)])
    connection.close()
    error = IntegrityError(text, {"email": text}, caught.value)
    told = describe(error)
    assert told["error"] == "sqlalchemy.exc.IntegrityError (SQLITE_CONSTRAINT_UNIQUE)"
    assert text not in whole(told)
