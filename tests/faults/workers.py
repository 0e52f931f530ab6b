"""Workers on one port die one after the other under load; then all are told to stop."""

import threading
import time
from collections.abc import Iterator
from typing import Final

from tests.faults.bench import Bench, Conclude
from tests.faults.kills import DRAIN, accepted_and_not_marked, wait_for_the_marks
from tests.faults.ledger import settle
from tests.faults.load import Load
from tests.faults.nodes import channel_to, nodes
from tests.faults.postgres import postgres_server, url_of
from tests.faults.sink import Sink
from tests.faults.table import Figure, below, exactly, only

WORKERS: Final = 4
KILLS: Final = 20
KILLS_SHORT: Final = 5
_CHANNELS: Final = 16  # a connection each, so that every worker has some
_THREADS: Final = 8
_LONGEST_GAP: Final = 1.0  # seconds of load before the next kill
_STOP: Final = 10.0  # seconds


def workers(bench: Bench) -> Conclude:
    number = bench.rounds(KILLS, KILLS_SHORT)
    sink = bench.stack.enter_context(Sink())
    url = url_of(bench.stack.enter_context(postgres_server()))
    # Nobody is at the store's address, so that each worker counts by itself.
    shared = {"WORKERS": str(WORKERS), "RATE_LIMIT_STORE": "valkey://127.0.0.1:1"}
    (node,) = nodes(bench.stack, bench.folder, url, sink.port, 1, **shared)
    node.start()
    for _ in range(WORKERS):
        node.wait_for("worker_started")
    channels = [bench.stack.enter_context(channel_to(node)) for _ in range(_CHANNELS)]
    load = Load(channels, bench.random.getrandbits(32), _THREADS)
    load.start()
    rest = threading.Event()
    in_doubt: set[str] = set()
    for _ in range(number):
        rest.wait(bench.random.uniform(0, _LONGEST_GAP))
        victim = bench.random.choice(node.workers())
        victim.kill()
        node.wait_for("worker_died")
        in_doubt |= accepted_and_not_marked(url, sink)
        node.wait_for("worker_started")
    running = len(node.workers())
    rest.wait(_LONGEST_GAP)
    told = time.monotonic()
    node.stop()
    seconds = time.monotonic() - told
    exit_code = node.exit_code
    # Callers whose calls came too late repeat them.
    node.start()
    load.stop()

    def conclude() -> Iterator[Figure]:
        people = load.acknowledged()
        sink.wait_for(len(people), DRAIN)
        wait_for_the_marks(url)
        node.stop()
        died = node.events("worker_died")
        unforeseen = node.events("unforeseen", "job_failed", "worker_killed")
        yield exactly("workers that were killed", len(died), number)
        yield exactly("workers running after that", running, WORKERS)
        yield below("from SIGTERM to the exit", seconds, _STOP)
        yield exactly("exit code", -1 if exit_code is None else exit_code, 0)
        yield from settle(url, people, sink, in_doubt)
        yield only("failed calls", load.failures(), "UNAVAILABLE")
        yield exactly("unforeseen errors in the log", len(unforeseen), 0)

    return conclude
