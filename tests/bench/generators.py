"""Load generators: the quickest of those that the machine has, for each load."""

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Protocol

from google.protobuf.json_format import MessageToDict

from tests.bench.loads import SERVICE, Found, Load
from tests.bench.programs import Program

ROOT: Final = Path(__file__).parents[2]
PROTOS: Final = ROOT / "protos"
_TOOLS: Final = ROOT / "build" / "bin"  # where `make bench` puts what Go installs
# Addresses out of 10.0.0.0/8: 10 x 100 x 100 of them. ghz writes each call's own.
_ONE_OF_MANY: Final = "10.{{randomInt 0 10}}.{{randomInt 0 100}}.{{randomInt 0 100}}"
_NANOSECONDS: Final = 1e9
_MICROSECONDS: Final = 1e6
_PROCESSES: Final = 2  # of Python clients
LONGEST: Final = 300.0  # seconds of one load; the longest are 100,000 calls


class Generator(Protocol):
    """Puts a load on a server."""

    name: str

    def run(self, load: Load) -> Found:
        """Makes the calls. Raises RuntimeError where the generator itself failed."""


class H2load:
    """nghttp2's: a tenth of ghz's work, but one request over and over, and it reads no statuses."""

    name = "h2load"

    def __init__(self, program: str) -> None:
        self._program = program

    def run(self, load: Load) -> Found:
        (request,) = load.requests
        content = request.SerializeToString()
        with tempfile.TemporaryDirectory() as folder:
            frame, log = Path(folder) / "frame", Path(folder) / "log"
            frame.write_bytes(b"\0" + len(content).to_bytes(4, "big") + content)
            work, _ = _worked(
                [
                    *(self._program, "-n", str(load.calls)),
                    *("-c", str(connections(load.at_once)), "-m", str(streams(load.at_once))),
                    *("-d", str(frame), "--log-file", str(log)),
                    *("-H", "content-type: application/grpc", "-H", "te: trailers"),
                    *("-H", f"x-forwarded-for: {load.client or '10.0.0.1'}"),
                    f"http://{load.endpoint}/{SERVICE}/{load.rpc}",
                ]
            )
            rows = [[int(cell) for cell in line.split("\t")] for line in log.open()]
        if len(rows) != load.calls or any(status != 200 for _, status, _ in rows):
            raise RuntimeError("h2load: not every call was answered")
        latencies = [took / _MICROSECONDS for _, _, took in rows]
        begun = min(start for start, _, _ in rows)
        ended = max(start + took for start, _, took in rows)
        return Found((ended - begun) / _MICROSECONDS, latencies, work)


class Ghz:
    """Calls with requests of their own, from many clients, at a rate."""

    name = "ghz"

    def __init__(self, program: str) -> None:
        self._program = program

    def run(self, load: Load) -> Found:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as requests:
            json.dump([MessageToDict(request) for request in load.requests], requests)
            requests.flush()
            work, out = _worked(
                [
                    *(self._program, "--insecure", "--format", "json"),
                    *("--proto", str(PROTOS / "identity/v1/identity.proto")),
                    *("--import-paths", str(PROTOS), "--call", f"{SERVICE}/{load.rpc}"),
                    *("--metadata", json.dumps({"x-forwarded-for": load.client or _ONE_OF_MANY})),
                    *("--data-file", requests.name, "--total", str(load.calls)),
                    *("--concurrency", str(load.at_once)),
                    *("--connections", str(connections(load.at_once))),
                    *(["--rps", str(load.per_second)] if load.per_second else []),
                    load.endpoint,
                ]
            )
        report = json.loads(out)
        latencies = [call["latency"] / _NANOSECONDS for call in report["details"]]
        codes = report["statusCodeDistribution"]
        return Found(report["total"] / _NANOSECONDS, latencies, work, codes)


class PythonClients:
    """Several processes, for machines that have neither."""

    name = "Python clients"

    def run(self, load: Load) -> Found:
        processes = min(_PROCESSES, load.at_once)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            clients = []
            for number in range(processes):
                job = folder / f"job{number}"
                job.write_text(json.dumps(_share(load, number, processes)))
                client = Program(folder / "log", "tests.bench.clients", str(job))
                clients.append(stack.enter_context(client))
            for client in clients:
                client.line()  # it is connected
            begun = time.perf_counter()
            for client in clients:
                client.say("go")
            with ThreadPoolExecutor(processes) as pool:
                told = [json.loads(line) for line in pool.map(lambda one: one.line(), clients)]
            seconds = time.perf_counter() - begun
        latencies = [latency for one in told for latency in one["latencies"]]
        codes = sum((Counter(one["codes"]) for one in told), Counter())
        return Found(seconds, latencies, sum(one["work"] for one in told), codes)


class Generators:
    """Chooses."""

    def __init__(self) -> None:
        ghz, h2load = _find("ghz"), _find("h2load")
        self.distinct: Final[Generator] = Ghz(ghz) if ghz else PythonClients()
        self.constant: Final[Generator] = H2load(h2load) if h2load else self.distinct

    def for_load(self, load: Load) -> Generator:
        """For one request over and over as fast as can be, or for anything else."""
        is_simple = len(load.requests) == 1 and not load.per_second and load.client
        return self.constant if is_simple else self.distinct

    def run(self, load: Load) -> Found:
        return self.for_load(load).run(load)


def connections(at_once: int) -> int:
    """A gateway holds a few, and has many calls in each."""
    return min(4, at_once)


def streams(at_once: int) -> int:
    """Calls at once in each connection."""
    return at_once // connections(at_once)


def _share(load: Load, number: int, processes: int) -> dict[str, Any]:
    threads = load.at_once // processes + (number < load.at_once % processes)
    return {
        "endpoint": load.endpoint,
        "rpc": load.rpc,
        "requests": [one.SerializeToString().hex() for one in load.requests[number::processes]]
        or [load.requests[0].SerializeToString().hex()],
        "calls": load.calls // processes + (number < load.calls % processes),
        "threads": threads,
        "per_second": load.per_second / processes,
        "client": load.client,
        "seed": number,
    }


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{_TOOLS}{os.pathsep}{os.environ.get('PATH', os.defpath)}")


def _worked(command: Sequence[str]) -> tuple[float, str]:
    """Runs it; the CPU seconds that it took, and its stdout."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, cwd=ROOT)
        # A call that is never answered must not hold up the rest.
        watchdog = threading.Timer(LONGEST, process.kill)
        watchdog.daemon = True
        watchdog.start()
        _, status, usage = os.wait4(process.pid, 0)
        watchdog.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise RuntimeError(
                f"{Path(command[0]).name} ended with {process.returncode}: {err.read()[-500:]}"
            )
        return usage.ru_utime + usage.ru_stime, out.read()
