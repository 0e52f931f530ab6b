"""Journeys: Register, its mail, VerifyEmail, sixteen at once; and where their time goes."""

import time
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Final

import psutil

from tests.bench.bench import Bench, postgres_processes
from tests.bench.figures import Figure, interleaved, ratios, reached, told
from tests.bench.machine import cores
from tests.bench.people import People
from tests.bench.programs import Program, work_of
from tests.valkey import Valkey

AT_ONCE: Final = 16
CLIENTS: Final = 2  # processes
JOURNEYS: Final = 30  # each thread's, a round
JOURNEYS_SHORT: Final = 3


class _Travellers:
    """Client processes that stay connected to one server; each call of `travel` is a round."""

    def __init__(self, bench: Bench, name: str, server: Program, sink_port: int) -> None:
        """`sink_port` 0: there are no mails to wait for."""
        self._bench = bench
        self._name = name
        self._server = server
        endpoint, threads = server.listening(), str(AT_ONCE // CLIENTS)
        arguments = ("tests.bench.travellers", endpoint, str(sink_port), threads)
        self._clients = [bench.start(*arguments, str(number)) for number in range(CLIENTS)]

    def travel(self, journeys: int) -> float:
        """Journeys a second."""
        bench = self._bench
        processes = {
            "server": [self._server.process, *self._server.process.children()],
            "generator": [client.process for client in self._clients],
            "PostgreSQL": postgres_processes(bench.postgres),
            "mail server": [bench.sink.program.process],
        }
        before = {part: work_of(ones) for part, ones in processes.items()}
        idle, begun = psutil.cpu_times().idle, time.perf_counter()
        for client in self._clients:
            client.say(str(journeys))
        travelled = sum(int(client.line()) for client in self._clients)
        seconds = time.perf_counter() - begun
        shares = {
            part: (work_of(ones) - before[part]) / seconds for part, ones in processes.items()
        }
        shares["idle"] = min(float(cores()), (psutil.cpu_times().idle - idle) / seconds)
        bench.shares.setdefault(f"{self._name} (Python clients)", []).append(shares)
        return travelled / seconds


def journeys(bench: Bench) -> Iterable[Figure]:
    """Real ones, by one process and by two, and empty ones (two empty calls), in turn."""
    number = bench.size(JOURNEYS, JOURNEYS_SHORT)
    bench.sink.forget()
    with ExitStack() as stack:
        people = People(bench.postgres)
        one = stack.enter_context(bench.service(people.url))
        valkey = stack.enter_context(Valkey(bench.folder))
        store = f"valkey://127.0.0.1:{valkey.port}"
        two = stack.enter_context(
            bench.service(People(bench.postgres).url, RATE_LIMIT_STORE=store, WORKERS="2")
        )
        empty = stack.enter_context(bench.start("tests.bench.empty"))
        alone = _Travellers(bench, "journeys", one, bench.sink.question_port)
        both = _Travellers(bench, "journeys, two workers", two, bench.sink.question_port)
        hollow = _Travellers(bench, "empty journeys", empty, 0)
        for travellers in (alone, both, hollow):
            travellers.travel(JOURNEYS_SHORT)
        rates = interleaved(
            bench.rounds,
            lambda: both.travel(number),
            lambda: hollow.travel(4 * number),
            lambda: alone.travel(number),
        )
    yield reached("journeys", ratios(rates[0], rates[1]))
    yield told("journeys, 16 at once, two workers", rates[0], "/s")
    yield told("empty journeys, 16 at once", rates[1], "/s")
    yield told("journeys, 16 at once, one process", rates[2], "/s")
    yield told("the same, over empty journeys", ratios(rates[2], rates[1]))
