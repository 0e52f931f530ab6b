"""What a scenario is given, and what it gives."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TypeAlias

import psutil
from sqlalchemy.engine import URL

from identity import migrate
from tests.bench.figures import Figure
from tests.bench.generators import Generators
from tests.bench.loads import Found, Load
from tests.bench.machine import cores
from tests.bench.programs import Program, work_of
from tests.bench.sink import Sink
from tests.faults.nodes import settings_of
from tests.faults.postgres import PostgresServer


@dataclass(frozen=True)
class Line:
    """What a plot draws: a value for each x."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Plot:
    """Lines over one axis whose ticks grow by powers."""

    file: str
    title: str
    x: str
    y: str
    lines: Sequence[Line]
    is_logarithmic: bool = False  # the y axis; the x axis is always


@dataclass
class Bench:
    """Room, tools and size of one scenario."""

    folder: Path
    random: Random
    is_short: bool
    stack: ExitStack  # ends what the scenario starts, when the scenario ends
    say: Callable[[str], None]  # progress, for whoever watches
    postgres: PostgresServer
    sink: Sink
    generators: Generators
    plots: list[Plot] = field(default_factory=list)
    shares: dict[str, list[Mapping[str, float]]] = field(default_factory=dict)

    def size(self, full: int, short: int) -> int:
        return short if self.is_short else full

    @property
    def rounds(self) -> int:
        return self.size(5, 2)

    def service(self, url: URL, **settings: str) -> Program:
        """The service as it runs in production, on the database; it answers calls."""
        migrate.upgrade(url)
        ours = settings_of(url, self.sink.port) | {
            "LISTEN": "127.0.0.1:0",
            "TRUSTED_PROXIES": "127.0.0.1",
            "REFLECTION": "off",
        }
        return self.start("identity", "serve", settings=ours | settings)

    def start(self, *arguments: str, settings: Mapping[str, str] | None = None) -> Program:
        log = self.folder / f"{arguments[0]}.log"
        program = Program(log, *arguments, settings=settings, folder=self.folder)
        return self.stack.enter_context(program)

    def run(self, name: str, load: Load, server: Program) -> Found:
        """Puts the load on the server, and notes which share of a core each part took."""
        parts = {
            "server": server.cpu,
            "PostgreSQL": lambda: work_of(postgres_processes(self.postgres)),
        }
        before = {part: work() for part, work in parts.items()}
        idle = psutil.cpu_times().idle
        found = self.generators.run(load)
        shares = {part: (work() - before[part]) / found.seconds for part, work in parts.items()}
        shares["generator"] = found.work / found.seconds
        shares["idle"] = min(float(cores()), (psutil.cpu_times().idle - idle) / found.seconds)
        self.shares.setdefault(f"{name} ({self.generators.for_load(load).name})", []).append(shares)
        return found


def postgres_processes(server: PostgresServer) -> list[psutil.Process]:
    pid = int((server.data / "postmaster.pid").read_text().splitlines()[0])
    postmaster = psutil.Process(pid)
    return [postmaster, *postmaster.children(recursive=True)]


Scenario: TypeAlias = Callable[[Bench], Iterable[Figure]]
