"""Whether the windows of the rate limit can be counted where they should be."""

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from identity.config import Settings
from identity.doctor.finding import Finding, failed, foreign, passed, warned
from identity.values import Endpoint

CONNECT_TIMEOUT: Final = 2.0  # seconds
REPLY_TIMEOUT: Final = 2.0  # seconds, for each of the two replies
DEFAULT_PORT: Final = 6379

_NAME: Final = "limits"
_EVICTION: Final = "limits.eviction"


def limit_findings(settings: Settings) -> Iterator[Finding]:
    url = settings.rate_limit_store
    if url == "memory://":
        yield passed(_NAME, "counted in memory: right for one process")
        return
    parts = urlsplit(url)
    place = Endpoint(parts.hostname or "", parts.port or DEFAULT_PORT)
    yield from _valkey(url, f"Valkey, {place}")


def _valkey(url: str, where: str) -> Iterator[Finding]:
    import valkey  # noqa: PLC0415 - an extra
    from valkey.backoff import NoBackoff  # noqa: PLC0415
    from valkey.retry import Retry  # noqa: PLC0415

    options: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": REPLY_TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
    }
    if url.startswith("valkeys://"):
        options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
    try:
        with valkey.Valkey.from_url(url, **options) as client:
            client.ping()  # connects first
            before = time.perf_counter()
            client.ping()
            latency = f"answers in {(time.perf_counter() - before) * 1000:.1f} ms"
            try:
                told: Mapping[str, Any] = client.info()
            except valkey.ResponseError:  # its user may not ask
                yield passed(_NAME, f"{where}, {latency}")
                yield warned(_EVICTION, "not known: INFO is not allowed", "allow +info to look")
                return
    except valkey.AuthenticationError:
        mend = "look at the user in IDENTITY_RATE_LIMIT_STORE"
        yield failed(_NAME, f"{where}: login refused", mend)
    except valkey.ResponseError as error:  # NOPERM, LOADING, ...: the first word is its code
        code = foreign(str(error).partition(" ")[0])
        yield failed(_NAME, f"{where}: {type(error).__name__} {code}", "see the server's log")
    except (valkey.ValkeyError, OSError) as error:
        why = f"{where}: cannot be reached: {_cause(error)}"
        yield failed(_NAME, why, "start it, or mend IDENTITY_RATE_LIMIT_STORE")
    else:
        yield _server(where, latency, told)
        yield _eviction(told)


def _cause(error: BaseException) -> str:
    """The kind of the system's error below it. The texts above that quote what they were given."""
    below: BaseException | None = error
    while below is not None and not isinstance(below, OSError):
        below = below.__cause__ or below.__context__
    return type(below or error).__name__


def _server(where: str, latency: str, told: Mapping[str, Any]) -> Finding:
    version = foreign(str(told.get("valkey_version") or told.get("redis_version", "?")))
    if told.get("role") == "slave":
        found = f"{where}: a replica, which takes no writes"
        return failed(_NAME, found, "name the primary in IDENTITY_RATE_LIMIT_STORE")
    return passed(_NAME, f"{where}, version {version}, {latency}")


def _eviction(told: Mapping[str, Any]) -> Finding:
    if told.get("maxmemory") == 0:
        return passed(_EVICTION, "no maxmemory: nothing is evicted")
    policy = foreign(str(told.get("maxmemory_policy", "unknown")))
    if policy == "noeviction":
        return passed(_EVICTION, f"maxmemory-policy is {policy}")
    return warned(
        _EVICTION,
        f"maxmemory-policy is {policy}: counts are lost where memory is short",
        "set maxmemory-policy to noeviction",
    )
