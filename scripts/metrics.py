"""Checks that every metric named in the documents and in deploy/ is one that the service exposes.

A dashboard or an alert on a metric that nobody exposes is silent when it should not be.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Metric

from identity import policy
from identity.collectors import WorkersCollector, outbox_metrics, readable
from identity.mail.depth import Depth
from identity.metrics import PrometheusMeters
from identity.worker_process import Workers

ROOT: Final = Path(__file__).parent.parent
PLACES: Final = ("README.md", "docs", "deploy")
# A name of ours, but not of a module of the stubs.
_NAME: Final = re.compile(r"\b(?:identity|grpc_server)_(?!pb2|service\b)[a-z_]+\b")
_SUFFIXES: Final = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_sum", "_count"),
}


def exposed() -> frozenset[str]:
    """Every name that a scrape of the service can have."""
    registry = CollectorRegistry()
    PrometheusMeters(registry, policy.RULES)
    registry.register(WorkersCollector(lambda: Workers(0, 0, 0)))
    outbox = outbox_metrics(Depth(0, 0, timedelta(), is_paused=False))
    found = (*registry.collect(), *outbox, readable(1))
    return frozenset(name for metric in found for name in _names(metric))


def _names(metric: Metric) -> Iterator[str]:
    for suffix in _SUFFIXES.get(metric.type, ("",)):
        yield metric.name + suffix


def unknown(texts: Iterable[tuple[str, str]], known: frozenset[str]) -> Iterator[str]:
    """A line for each name in the texts (pairs of a place and its text) that is not exposed."""
    for place, text in texts:
        for number, line in enumerate(text.splitlines(), 1):
            for name in _NAME.findall(line):
                if name not in known:
                    yield f"{place}:{number}: {name} is not exposed"


def _documents() -> Iterator[tuple[str, str]]:
    for place in PLACES:
        path = ROOT / place
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and file.suffix not in {".svg", ".png"}:
                yield str(file.relative_to(ROOT)), file.read_text("utf-8")


def main() -> int:
    found = list(unknown(_documents(), exposed()))
    for line in found:
        print(line, file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
