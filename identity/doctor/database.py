"""Whether the service could work on its database."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from identity.config import Settings
from identity.doctor.finding import Finding


def database_findings(settings: Settings, now: Callable[[], datetime]) -> Iterator[Finding]:
    url = settings.database_url
    if url.get_backend_name() == "sqlite":
        from identity.doctor.sqlite import sqlite_findings  # noqa: PLC0415 - one of the two

        yield from sqlite_findings(Path(url.database or ""), is_embedded=settings.is_embedded)
        return
    from identity.doctor.postgres import postgres_findings  # noqa: PLC0415
    from identity.server import pool_size  # noqa: PLC0415 - gRPC takes a while

    # One more in each process for the probe of its health.
    yield from postgres_findings(url, settings.workers * (pool_size(settings) + 1), now)
