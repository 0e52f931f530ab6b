"""Windows in Valkey while the server is out of reach, or not to be trusted."""

import queue
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from structlog.typing import EventDict

from identity.meters import Meters
from identity.ratelimit.valkey import ValkeyWindows
from identity.ratelimit.window import Decision
from identity.values import ValkeyServer
from tests.valkey import PATIENCE, Relay, Valkey
from tests.windows import SMALL, Open, RecordedMeters, remaining

SECRET = "Correct-Horse-7!"

LOST = "rate_limit_store_unreachable"
FOUND = "rate_limit_store_reachable"


# Out of reach


def test_a_server_that_dies_is_replaced_by_local_windows_and_comes_back_by_itself(
    own_valkey: Valkey, open_windows: Open, meters: RecordedMeters, lines: list[EventDict]
) -> None:
    windows = open_windows(own_valkey.address())
    first, second = windows.window("first", SMALL), windows.window("second", SMALL)
    assert meters.next() is True
    assert remaining(first, 2) == [2, 1]
    own_valkey.kill()
    assert remaining(first, 4) == [2, 1, 0, -1]
    assert remaining(second, 4) == [2, 1, 0, -1]
    assert meters.next() is False
    own_valkey.start()
    assert meters.next() is True
    assert meters.are_read
    assert [remaining(first, 1), remaining(second, 1)] == [[2], [2]]
    assert [(line["event"], line["log_level"]) for line in lines] == [
        (LOST, "error"),
        (FOUND, "info"),
    ]


def test_after_an_outage_processes_count_together_again(
    own_valkey: Valkey, open_windows: Open, meters: RecordedMeters
) -> None:
    other_meters = RecordedMeters()
    mine = open_windows(own_valkey.address()).window("default", SMALL)
    others = open_windows(own_valkey.address(), meters=other_meters).window("default", SMALL)
    own_valkey.kill()
    mine.hit("ann")
    others.hit("ann")
    own_valkey.start()
    for told in (meters, other_meters):
        assert [told.next(), told.next(), told.next()] == [True, False, True]
    assert remaining(mine, 1) + remaining(others, 1) + remaining(mine, 2) == [2, 1, 0, -1]


def test_an_outage_is_said_once_however_many_calls_and_windows_meet_it(
    own_valkey: Valkey, open_windows: Open, meters: RecordedMeters, lines: list[EventDict]
) -> None:
    windows = open_windows(own_valkey.address(), patience=1.0, interval=PATIENCE)
    stores = [windows.window(f"window {number}", SMALL) for number in range(5)]
    assert meters.next() is True
    own_valkey.freeze()
    together = threading.Barrier(20, timeout=PATIENCE)
    decisions: list[Decision] = []

    def call(number: int) -> None:
        together.wait()
        decisions.append(stores[number % 5].hit(f"client {number}"))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [decision.admitted for decision in decisions] == [True] * 20
    assert meters.next() is False
    assert meters.are_read
    assert lines == [{"event": LOST, "log_level": "error", "error": "TimeoutError"}]


def test_while_a_server_is_frozen_only_the_first_call_waits(
    own_valkey: Valkey, open_windows: Open, meters: RecordedMeters, lines: list[EventDict]
) -> None:
    store = open_windows(own_valkey.address(), patience=1.0).window("default", SMALL)
    assert meters.next() is True
    own_valkey.freeze()
    assert finished(lambda: remaining(store, 500)) == [2, 1, 0] + [-1] * 497
    assert meters.next() is False
    own_valkey.thaw()
    assert meters.next() is True
    assert [line["event"] for line in lines] == [LOST, FOUND]


def test_an_answer_that_never_ends_is_given_up(
    valkey: Valkey, open_windows: Open, meters: RecordedMeters, lines: list[EventDict]
) -> None:
    with Relay(valkey.port) as relay:
        windows = open_windows(relay.address(), patience=1.0, interval=PATIENCE)
        store = windows.window("default", SMALL)
        assert remaining(store, 1) == [2]
        assert meters.next() is True
        relay.drip()
        assert finished(lambda: remaining(store, 4)) == [2, 1, 0, -1]
        assert [line["error"] for line in lines] == ["TimeoutError"]
        windows.close()


def finished(call: Callable[[], list[int]]) -> list[int]:
    """What it returns, if it does in time."""
    results: queue.Queue[list[int]] = queue.Queue()
    threading.Thread(target=lambda: results.put(call()), daemon=True).start()
    return results.get(timeout=PATIENCE)


def test_a_server_that_refuses_to_count_is_out_of_reach_until_it_counts(
    own_valkey: Valkey, open_windows: Open, meters: RecordedMeters, lines: list[EventDict]
) -> None:
    store = open_windows(own_valkey.address()).window("default", SMALL)
    assert meters.next() is True
    with closing(own_valkey.client()) as operator:
        operator.config_set("maxmemory", 1)
        assert remaining(store, 4) == [2, 1, 0, -1]
        assert meters.next() is False
        operator.config_set("maxmemory", 0)
    assert meters.next() is True
    assert [line["event"] for line in lines] == [LOST, FOUND]
    assert lines[0]["error"] == "valkey.exceptions.OutOfMemoryError"


def test_a_server_that_is_out_of_reach_at_the_start_is_found_when_it_comes(
    tmp_path: Path, open_windows: Open, meters: RecordedMeters, lines: list[EventDict]
) -> None:
    later = Valkey(tmp_path)
    store = open_windows(later.address()).window("default", SMALL)
    assert remaining(store, 2) == [2, 1]
    assert meters.next() is False
    with later:
        assert meters.next() is True
        assert remaining(store, 2) == [2, 1]
        assert [(line["event"], line["log_level"]) for line in lines] == [
            (LOST, "error"),
            (FOUND, "info"),
        ]
        assert lines[0]["error"] == "ConnectionRefusedError"


def test_an_outage_that_lasts_is_said_once(
    open_windows: Open, meters: RecordedMeters, lines: list[EventDict]
) -> None:
    looks = threading.Semaphore(0)

    def turn_away() -> None:
        for _ in range(4):
            broken.accept()[0].close()
            looks.release()

    with socket.create_server(("127.0.0.1", 0)) as broken:
        broken.settimeout(PATIENCE)
        threading.Thread(target=turn_away, daemon=True).start()
        open_windows(ValkeyServer("127.0.0.1", broken.getsockname()[1]))
        for _ in range(4):  # the fourth begins when three are over
            assert looks.acquire(timeout=PATIENCE)
        assert meters.next() is False
        assert meters.are_read
        assert [line["event"] for line in lines] == [LOST]


def test_a_look_that_is_under_way_at_the_end_says_nothing(
    meters: RecordedMeters, lines: list[EventDict]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE)
        windows = ValkeyWindows(ValkeyServer("127.0.0.1", silent.getsockname()[1]), meters)
        starting = threading.Thread(target=windows.start)
        starting.start()
        accepted, _ = silent.accept()
        windows.close()
        accepted.close()
        starting.join(PATIENCE)
        for thread in threading.enumerate():
            if thread.name == "limits":
                thread.join(PATIENCE)
    assert lines == []
    assert meters.are_read


def test_a_name_that_nobody_knows_is_no_error_to_a_call(
    open_windows: Open, meters: RecordedMeters, lines: list[EventDict]
) -> None:
    store = open_windows(ValkeyServer("limits.invalid", 6379)).window("default", SMALL)
    assert remaining(store, 4) == [2, 1, 0, -1]
    assert meters.next() is False
    assert [line["error"] for line in lines] == ["socket.gaierror"]


def test_windows_that_are_closed_count_locally_and_say_nothing(
    valkey: Valkey, open_windows: Open, lines: list[EventDict]
) -> None:
    windows = open_windows(valkey.address())
    store = windows.window("default", SMALL)
    windows.close()
    assert remaining(store, 4) == [2, 1, 0, -1]
    assert lines == []


# Who may


def test_a_password_and_a_database_are_used(
    tmp_path: Path, open_windows: Open, meters: RecordedMeters
) -> None:
    with Valkey(tmp_path, "--requirepass", SECRET) as server:
        store = open_windows(server.address(password=SECRET, database=3)).window("default", SMALL)
        assert meters.next() is True
        assert remaining(store, 1) == [2]
        with closing(server.client(password=SECRET, db=3)) as look:
            assert look.dbsize() >= 1


def test_a_wrong_password_is_out_of_reach_and_is_not_logged(
    tmp_path: Path, open_windows: Open, meters: RecordedMeters, lines: list[EventDict]
) -> None:
    with Valkey(tmp_path, "--requirepass", "another") as server:
        address = server.address(password=SECRET)
        store = open_windows(address).window("default", SMALL)
        assert remaining(store, 4) == [2, 1, 0, -1]
        assert meters.next() is False
        error = "valkey.exceptions.AuthenticationError"
        assert lines == [{"event": LOST, "log_level": "error", "error": error}]
        assert SECRET not in repr(address)


@pytest.fixture
def trusted(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate is one of the system's, as an operator adds one."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))


@pytest.mark.usefixtures("trusted")
def test_tls_goes_to_a_server_whose_certificate_is_trusted(
    valkey: Valkey, server_tls: ssl.SSLContext, open_windows: Open, meters: RecordedMeters
) -> None:
    with Relay(valkey.port, tls=server_tls) as relay:
        windows = open_windows(relay.address(host="localhost", has_tls=True))
        assert meters.next() is True
        assert remaining(windows.window("default", SMALL), 2) == [2, 1]
        plain = open_windows(valkey.address(), meters=Meters())
        assert remaining(plain.window("default", SMALL), 2) == [0, -1]
        windows.close()


@pytest.mark.usefixtures("trusted")
def test_a_certificate_of_another_name_is_refused(
    valkey: Valkey,
    server_tls: ssl.SSLContext,
    open_windows: Open,
    meters: RecordedMeters,
    lines: list[EventDict],
) -> None:
    with Relay(valkey.port, tls=server_tls) as relay:
        windows = open_windows(relay.address(host="127.0.0.1", has_tls=True), interval=PATIENCE)
        assert remaining(windows.window("default", SMALL), 4) == [2, 1, 0, -1]
        assert meters.next() is False
        assert [line["error"] for line in lines] == ["ssl.SSLCertVerificationError"]


def test_a_certificate_that_nobody_vouches_for_is_refused(
    valkey: Valkey,
    server_tls: ssl.SSLContext,
    open_windows: Open,
    meters: RecordedMeters,
    lines: list[EventDict],
) -> None:
    with Relay(valkey.port, tls=server_tls) as relay:
        windows = open_windows(relay.address(host="localhost", has_tls=True), interval=PATIENCE)
        assert remaining(windows.window("default", SMALL), 4) == [2, 1, 0, -1]
        assert meters.next() is False
        assert [line["error"] for line in lines] == ["ssl.SSLCertVerificationError"]
