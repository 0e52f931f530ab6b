"""Metrics that are looked up when somebody asks for them."""

from collections.abc import Callable, Iterator

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from identity.database import Database
from identity.mail.depth import Depth, depth
from identity.tracebacks import kind_of
from identity.worker_process import Workers

_log = structlog.get_logger()


class OutboxCollector(Collector):
    """How deep the queue of mails is."""

    def __init__(self, database: Database) -> None:
        """`database` is the collector's own: calls must not keep it waiting, nor it them."""
        self._database = database

    def collect(self) -> Iterator[Metric]:
        try:
            found = depth(self._database)
        except Exception as error:  # noqa: BLE001 - the other metrics are wanted all the same
            _log.warning("outbox_not_readable", error=kind_of(error.__cause__ or error))
            yield readable(0)
        else:
            yield readable(1)
            yield from outbox_metrics(found)

    def describe(self) -> Iterator[Metric]:
        """Nothing: to be registered must not take a look at the database."""
        yield from ()


def readable(value: int) -> Metric:
    """Whether the queue could be looked at."""
    return GaugeMetricFamily(
        "identity_outbox_readable", "1 if the queue of mails could be looked at, 0 if not.", value
    )


def outbox_metrics(found: Depth) -> Iterator[Metric]:
    """The queue in figures."""
    yield GaugeMetricFamily(
        "identity_outbox_queued", "Mails that are still to be sent.", found.queued
    )
    yield GaugeMetricFamily(
        "identity_outbox_delayed", "Of these, mails that failed at least once.", found.delayed
    )
    yield GaugeMetricFamily(
        "identity_outbox_oldest_seconds",
        "Age of the oldest mail that is still to be sent; 0 if there is none.",
        found.oldest.total_seconds(),
    )
    yield GaugeMetricFamily(
        "identity_outbox_paused",
        "1 while no mail at all is accepted by the provider, 0 otherwise.",
        int(found.is_paused),
    )


class WorkersCollector(Collector):
    """How many worker processes there are."""

    def __init__(self, look: Callable[[], Workers]) -> None:
        self._look = look

    def collect(self) -> Iterator[Metric]:
        found = self._look()
        yield GaugeMetricFamily("identity_workers_running", "Worker processes.", found.running)
        yield GaugeMetricFamily(
            "identity_workers_serving", "Worker processes whose database answers.", found.serving
        )
        yield CounterMetricFamily(
            "identity_worker_restarts",
            "Worker processes that died and were followed by another.",
            found.restarts,
        )
