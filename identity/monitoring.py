"""Metrics and probes, as far as IDENTITY_METRICS_LISTEN asks for them.

A process that serves alone counts and shows by itself. Of several, each worker counts in the files
of its slot, and their supervisor shows what all have counted.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from identity.config import Settings
from identity.meters import SILENT, Meters
from identity.startup import StartError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from identity.worker_process import Workers

# How a worker is told where all count: as prometheus-client itself wants to be told.
DIRECTORY_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"


class Monitoring:
    """What one serving process counts, and what it shows."""

    def __init__(self, settings: Settings, slot: int | None) -> None:
        """`slot` of a worker; None for a process that serves alone."""
        self.meters: Meters = SILENT
        self._settings = settings
        self._registry: CollectorRegistry | None = None
        if settings.metrics_listen is None:
            return
        from identity import metrics, policy  # noqa: PLC0415 - an extra

        if slot is not None:
            metrics.count_in_slot(slot)
        registry = metrics.registry_of_this_process()
        self.meters = metrics.PrometheusMeters(registry, policy.RULES)
        if slot is None:
            self._registry = registry

    @contextmanager
    def shown(self, is_serving: Callable[[], bool]) -> Iterator[None]:
        """Answers on the port, if there is one for this process. Raises StartError."""
        with (
            nullcontext()
            if self._registry is None
            else _shown(self._settings, self._registry, is_serving)
        ):
            yield


class SharedMonitoring:
    """What all workers count, as their supervisor shows it."""

    def __init__(self, settings: Settings, directory: Path | None) -> None:
        self._settings = settings
        self._directory = directory

    @property
    def environment(self) -> dict[str, str]:
        """What workers need to know."""
        return {} if self._directory is None else {DIRECTORY_VARIABLE: str(self._directory)}

    def slot_ended(self, slot: int) -> None:
        """The worker of the slot has ended."""
        if self._directory is not None:
            from identity import metrics  # noqa: PLC0415 - an extra

            metrics.slot_ended(slot, self._directory)

    @contextmanager
    def shown(self, look: "Callable[[], Workers]") -> Iterator[None]:
        """Answers on the port, if one is set. Raises StartError."""
        if self._directory is None:
            yield
            return
        from identity import metrics  # noqa: PLC0415 - an extra
        from identity.collectors import WorkersCollector  # noqa: PLC0415

        registry = metrics.registry_of_all(self._directory)
        registry.register(WorkersCollector(look))
        with _shown(self._settings, registry, lambda: look().serving > 0):
            yield


@contextmanager
def shared(settings: Settings) -> Iterator[SharedMonitoring]:
    """For a supervisor. Workers count in a directory that goes with it."""
    if settings.metrics_listen is None:
        yield SharedMonitoring(settings, None)
        return
    try:
        directory = TemporaryDirectory(prefix="identity-metrics-")
    except OSError as error:
        why = f"workers need a directory for temporary files: {error.strerror}"
        raise StartError(f"IDENTITY_METRICS_LISTEN: {why}") from None
    with directory:
        yield SharedMonitoring(settings, Path(directory.name))


@contextmanager
def _shown(
    settings: Settings, registry: "CollectorRegistry", is_serving: Callable[[], bool]
) -> Iterator[None]:
    from identity.collectors import OutboxCollector  # noqa: PLC0415 - an extra
    from identity.database import Database  # noqa: PLC0415
    from identity.exposition import Exposition  # noqa: PLC0415

    assert settings.metrics_listen is not None  # noqa: S101 - for the type
    # Its own, of two connections: scrapes must not keep calls waiting, nor the other way around.
    with closing(Database(settings.database_url, connections=2)) as database:
        registry.register(OutboxCollector(database))
        exposition = Exposition(settings.metrics_listen, registry, is_serving)
        exposition.start()
        try:
            yield
        finally:
            exposition.stop()
