"""Checks side by side: none that hangs or breaks keeps the others from being told."""

import threading
from collections.abc import Iterator

from identity.doctor.examination import Check, examine
from identity.doctor.finding import Finding, foreign, passed

PATIENCE = 20.0  # seconds; nothing waits that long unless the test fails


def sound() -> Iterator[Finding]:
    yield passed("sound", "all is well")


def test_one_that_hangs_is_told_with_what_it_found_before_and_the_others() -> None:
    released = threading.Event()

    def hangs() -> Iterator[Finding]:
        yield passed("hangs.first", "found in time")
        released.wait(PATIENCE)

    try:
        found = examine([Check("hangs", hangs), Check("sound", sound)], patience=0.1)
    finally:
        released.set()
    assert [(each.name, each.result) for each in found] == [
        ("hangs.first", "pass"),
        ("hangs", "fail"),
        ("sound", "pass"),
    ]
    assert found[1].found.startswith("no answer within")


def test_one_that_breaks_is_told_by_its_kind_alone() -> None:
    def breaks() -> Iterator[Finding]:
        raise RuntimeError("valkey://identity:hunter2@limits")
        yield

    first, second = examine([Check("breaks", breaks), Check("sound", sound)])
    assert (first.name, first.result) == ("breaks", "fail")
    assert first.found == "the check itself broke: RuntimeError"
    assert second.result == "pass"


def test_a_package_that_is_missing_is_told_with_the_extra_that_brings_it() -> None:
    def lacks() -> Iterator[Finding]:
        raise ModuleNotFoundError(name="botocore.config")
        yield

    (found,) = examine([Check("mail", lacks)])
    assert (found.result, found.mend) == ("fail", "install identity-service[ses]")


def test_what_another_program_says_is_cut_and_cannot_steer_a_terminal() -> None:
    assert foreign("at once\nand more") == "at once"
    assert foreign("\x1b[2Jred") == "?[2Jred"
    assert len(foreign("x" * 1000)) < 130
