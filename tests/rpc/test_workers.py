"""Several worker processes on one port, and the supervisor that keeps them there."""

import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import psutil
import pytest

from identity import values
from identity.listening import reserved
from identity.v1.identity_pb2_grpc import IdentityServiceStub
from tests.processes import PATIENCE, Program, Start, start
from tests.refusals import outcome
from tests.requests import registration, verification

__all__ = ["start"]

LISTENING = r"^listening on (\S+)$"
# Each with a connection of its own, which the kernel gives to any of the workers: that one of two
# gets none of so many will not be seen.
CONNECTIONS = 30
REFUSED = "INVALID_ARGUMENT TOKEN_INVALID"
SETTINGS = {
    "WORKERS": "2",
    "RATE_LIMIT_STORE": "valkey://127.0.0.1:1",  # nobody is there: each worker counts by itself
    "RATE_LIMIT": "100000/60s",
    "LOG_FORMAT": "json",
}


def children(program: Program) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(program.process.pid).children()
    return found


@contextmanager
def connections(endpoint: str) -> Iterator[list[IdentityServiceStub]]:
    """Clients that are connected."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with ExitStack() as stack:
        channels = [
            stack.enter_context(grpc.insecure_channel(endpoint, options))
            for _ in range(CONNECTIONS)
        ]
        stubs = [IdentityServiceStub(channel) for channel in channels]
        assert {call(stub) for stub in stubs} == {REFUSED}
        yield stubs


def call(stub: IdentityServiceStub) -> str:
    """How a call ended that every worker refuses."""
    try:
        stub.VerifyEmail(verification("x"), timeout=PATIENCE)
    except grpc.RpcError as error:
        return outcome(error)
    return "OK"


def connected(worker: psutil.Process) -> int:
    """How many clients are connected to that worker."""
    return sum(one.status == psutil.CONN_ESTABLISHED for one in worker.net_connections("tcp"))


def test_workers_share_the_port_and_those_that_die_are_replaced(start: Start) -> None:
    program = start(**SETTINGS)
    endpoint = program.line(LISTENING)
    assert [program.event("worker_started")["slot"] for _ in range(2)] == [0, 1]
    first, second = children(program)
    with connections(endpoint) as stubs:
        shares = [connected(worker) for worker in (first, second)]
        assert min(shares) >= 1
        assert sum(shares) == CONNECTIONS
        first.kill()
        outcomes = [call(stub) for stub in stubs]
        assert set(outcomes) <= {REFUSED, "UNAVAILABLE"}
        assert outcomes.count("UNAVAILABLE") <= shares[0]
        died = program.event("worker_died")
        assert (died["slot"], died["pid"], died["signal"]) == (0, first.pid, "SIGKILL")
        assert died["serving"] == 1
        assert program.event("worker_started")["slot"] == 0
    second.terminate()  # by somebody else than the supervisor
    died = program.event("worker_died")
    assert (died["slot"], died["pid"], died["exit_code"]) == (1, second.pid, 0)
    with connections(endpoint):
        pass
    program.process.send_signal(signal.SIGTERM)
    assert program.end()[0] == 0


def test_the_port_stays_taken_while_no_worker_is_left(start: Start) -> None:
    program = start(**SETTINGS)
    endpoint = program.line(LISTENING)
    for worker in children(program):
        worker.kill()
    for workers in ("1", "2"):
        code, stderr = start(**SETTINGS | {"WORKERS": workers, "LISTEN": endpoint}).end()
        assert code == 1
        assert stderr == (
            f"identity: IDENTITY_LISTEN: cannot listen on {endpoint}: in use, or not ours\n"
        )


def test_calls_that_have_begun_end_well_in_all_workers(start: Start) -> None:
    program = start(**SETTINGS, BCRYPT_COST="10")
    with connections(program.line(LISTENING)) as stubs:
        begun = [
            stub.Register.future(registration(f"user{n}", f"u{n}@example.com"))
            for n, stub in enumerate(stubs)
        ]
        assert {call(stub) for stub in stubs} == {REFUSED}
        # To all of them, and twice, as from somebody in a hurry.
        for process in [program.process, *children(program), program.process]:
            process.send_signal(signal.SIGINT)
        assert {future.result(PATIENCE).username for future in begun} == {
            f"user{n}" for n in range(CONNECTIONS)
        }
    code, stderr = program.end()
    assert code == 0
    assert "worker_died" not in stderr


def test_a_hangup_replaces_all_workers_while_calls_go_on(start: Start, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("k" * 32)
    program = start(**SETTINGS, SECRET_KEYS_FILE=str(keys))
    endpoint = program.line(LISTENING)
    old = children(program)
    with connections(endpoint) as stubs, ThreadPoolExecutor(4) as pool, ExitStack() as stack:
        is_over = threading.Event()
        stack.callback(is_over.set)

        def go_on_calling(some: Sequence[IdentityServiceStub]) -> set[str]:
            outcomes = set()
            while not is_over.is_set():
                outcomes |= {call(stub) for stub in some}
            return outcomes

        calling = [pool.submit(go_on_calling, stubs[n::4]) for n in range(4)]
        keys.write_text("too short")
        program.process.send_signal(signal.SIGHUP)
        assert program.event("worker_died")["exit_code"] == 2
        assert program.event("reload_failed")["outdated"] == 2
        assert children(program) == old
        keys.write_text("K" * 32)
        program.process.send_signal(signal.SIGHUP)
        assert [program.event("worker_started")["slot"] for _ in range(2)] == [2, 0]
        program.event("reloaded")
        is_over.set()
        outcomes = set().union(*(calls.result() for calls in calling))
    # A connection that no worker had accepted yet may be lost with the worker: decision 12.
    assert outcomes <= {REFUSED, "UNAVAILABLE"}
    assert not {worker.pid for worker in children(program)} & {worker.pid for worker in old}
    program.process.send_signal(signal.SIGTERM)
    code, stderr = program.end()
    assert code == 0
    assert stderr.count("identity: IDENTITY_SECRET_KEYS: ") == 1


def test_workers_end_when_the_supervisor_is_killed_and_leave_the_port(start: Start) -> None:
    program = start("serve", **SETTINGS, stderr_closed="")
    endpoint = program.line(LISTENING)
    workers = children(program)
    with connections(endpoint) as stubs:
        stubs[0].Register(registration())
        program.line(r"token=([A-Za-z0-9_-]{64})$")
        program.process.kill()
        assert psutil.wait_procs(workers, PATIENCE)[1] == []
        assert program.end()[0] == -signal.SIGKILL
        with reserved(values.endpoint(endpoint)):  # though clients have their old connections
            pass


@pytest.mark.parametrize(
    ("settings", "code", "told"),
    [
        ({}, 2, "IDENTITY_SECRET_KEYS: required with"),
        ({"SECRET_KEYS": "k" * 32}, 1, "the database is at revision none"),
    ],
)
def test_what_stops_the_start_of_one_stops_that_of_all_with_one_line(
    start: Start, settings: dict[str, str], code: int, told: str
) -> None:
    program = start(**SETTINGS, DATABASE_URL="sqlite:///other.db", **settings)
    ended, stderr = program.end()
    assert ended == code
    (line,) = stderr.splitlines()
    assert line.startswith(f"identity: {told}")
    assert not program.has_spoken()


def test_a_port_in_use_is_one_line(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        code, stderr = start(**SETTINGS, LISTEN=endpoint).end()
    assert code == 1
    assert stderr == (
        f"identity: IDENTITY_LISTEN: cannot listen on {endpoint}: in use, or not ours\n"
    )
