"""Lines are written in their order, whatever becomes of the other end."""

import json
import os
import threading

from identity.log_writer import MAXIMUM_LINES, LineWriter

PATIENCE = 20  # seconds


def test_what_was_taken_is_written_in_its_order() -> None:
    reading, writing = os.pipe()
    lines = LineWriter(writing)
    for number in range(1000):
        lines.write(f"{number}\n" if number % 2 else b"%d\n" % number)
    lines.close()
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert pipe.read().split() == [str(number) for number in range(1000)]


def test_a_reader_that_stands_still_holds_nobody_up_and_costs_lines_only() -> None:
    reading, writing = os.pipe()
    lines = LineWriter(writing)
    line = b"x" * 99 + b"\n"
    for _ in range(3 * MAXIMUM_LINES):  # 6 MB into a pipe that holds 64 KB
        lines.write(line)
    found: list[bytes] = []

    def read() -> None:
        with os.fdopen(reading, "rb") as pipe:
            found.extend(pipe)

    reader = threading.Thread(target=read)
    reader.start()
    lines.close()
    os.close(writing)
    reader.join(PATIENCE)
    written = [each for each in found if each == line]
    told = [json.loads(each) for each in found if each != line]
    assert {each["event"] for each in told} == {"log_lines_left_out"}
    assert MAXIMUM_LINES <= len(written) < 3 * MAXIMUM_LINES
    assert len(written) + sum(each["lines"] for each in told) == 3 * MAXIMUM_LINES


def test_a_reader_that_has_left_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    before = set(threading.enumerate())
    lines = LineWriter(writing)
    lines.write("x\n")
    assert len(set(threading.enumerate()) - before) == 1
    lines.close()
    os.close(writing)
    assert set(threading.enumerate()) <= before
