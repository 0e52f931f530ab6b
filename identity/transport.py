"""What stands between the wire and the servicers: the port, its bounds, the interceptors."""

from collections.abc import Callable, Mapping
from time import sleep
from typing import Final

import grpc

from identity import callers, policy
from identity.call_pool import CallPool
from identity.callers import Caller, Callers
from identity.config import ConfigurationError, Settings
from identity.interceptors.callers import CallersInterceptor
from identity.interceptors.clients import Clients, certificate_names
from identity.interceptors.hold import HoldInterceptor
from identity.interceptors.observe import ObserveInterceptor
from identity.interceptors.patience import Lookout, Patience
from identity.interceptors.pools import PoolInterceptor
from identity.interceptors.ratelimit import RateLimitInterceptor
from identity.interceptors.reading import ReadingInterceptor
from identity.meters import Meters
from identity.ratelimit.limits import Limits
from identity.ratelimit.store import Windows
from identity.ratelimit.window import Limit
from identity.servicers.health import MAXIMUM_WATCHERS
from identity.startup import CannotListen
from identity.tls import certificate_files, server_credentials
from identity.values import Endpoint, Rate

MAXIMUM_REQUEST: Final = 64 * 1024  # bytes; the longest honest one is under 1 KiB
MAXIMUM_METADATA: Final = 8 * 1024  # bytes of a call's headers
# Calls that are answered, read, or wait for a thread; of health's watchers as many as it takes.
MAXIMUM_CALLS: Final = 2 * MAXIMUM_WATCHERS
# Light calls that may wait for the database at once without waiting for a connection to it.
LIGHT_THREADS: Final = 16
# Light calls that run at once. With one, calls without SQL are quicker by a fourth; with three, all
# are slower. Of the calls that hash one is enough, on its way to the hash and from it.
RUNNERS: Final = 2
HASHING_RUNNERS: Final = 1

BOUNDS: Final = (
    ("grpc.max_receive_message_length", MAXIMUM_REQUEST),
    # Above the first, calls are refused by chance; above the second, always.
    ("grpc.max_metadata_size", MAXIMUM_METADATA),
    ("grpc.absolute_max_metadata_size", MAXIMUM_METADATA),
    # A gateway carries many callers over one connection.
    ("grpc.max_concurrent_streams", 1024),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 5 * 60_000),
    # One that is old is closed, so that clients spread anew over all processes.
    ("grpc.max_connection_age_ms", 30 * 60_000),
    ("grpc.max_connection_age_grace_ms", 30_000),
    # A peer that is gone without a word is noticed.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Clients may look whether we are there, but not more often than so.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
)

# Replies are held so long before the server stops, for the next calls of those who have their reply
# already, and so long after, for the word of it to reach all callers: some round trips each.
HOLD: Final = 0.03  # seconds

_METHODS: Final = policy.methods_of(policy.SERVICES)


class Transport:
    """The gRPC server without what it serves."""

    def __init__(
        self,
        settings: Settings,
        *,
        waiting_threads: int,
        windows: Windows,
        meters: Meters,
        shares_port: bool,
    ) -> None:
        """`waiting_threads` may all wait for a hash; `shares_port` with other processes of ours.

        Raises ConfigurationError.
        """
        policy.check(_METHODS, policy.RULES)
        self._settings = settings
        # Requests are small and mostly come with the headers. Where more than a few keep us
        # waiting, the threads are wanted for others.
        calls = Patience(5.0, crowd=LIGHT_THREADS // 2, seconds_in_a_crowd=1.0)
        probes = Patience(5.0, crowd=4, seconds_in_a_crowd=0.2)
        self.patience_with_reflection: Final = Patience(60.0, crowd=2, seconds_in_a_crowd=1.0)
        self.patience_with_watchers: Final = Patience(5.0, crowd=0, seconds_in_a_crowd=1.0)
        self._lookout = Lookout(
            calls, probes, self.patience_with_reflection, self.patience_with_watchers
        )
        self._hold = HoldInterceptor()
        # Two, so that others do not queue behind a crowd of calls that hash.
        # More threads than may wait for a hash: whom there is no room for must be told.
        threads = waiting_threads + LIGHT_THREADS
        self._light = CallPool(threads, "rpc", runners=RUNNERS)
        self._hashing = CallPool(threads, "hashing-rpc", runners=HASHING_RUNNERS)
        identify, rates_of_callers = _callers(settings)
        limits = _limits(settings, windows, rates_of_callers)
        self.server: Final = grpc.server(
            self._light,
            interceptors=[
                PoolInterceptor(dict.fromkeys(policy.HASHING, self._hashing)),
                self._hold,
                ObserveInterceptor(Clients(settings.trusted_proxies), identify, meters),
                RateLimitInterceptor(limits),
                CallersInterceptor(),
                ReadingInterceptor(calls, probes),
            ],
            options=(
                *BOUNDS,
                # On by default, and a second server would bind the same port without a word.
                ("grpc.so_reuseport", int(shares_port)),
            ),
            maximum_concurrent_rpcs=waiting_threads + MAXIMUM_CALLS,
        )

    def bind(self) -> Endpoint:
        """Takes the port; answers nothing yet. Raises ConfigurationError, CannotListen."""
        listen, files = self._settings.listen, certificate_files(self._settings)
        try:
            if files is None:
                port = self.server.add_insecure_port(str(listen))
            else:
                port = self.server.add_secure_port(str(listen), server_credentials(files))
        except RuntimeError:
            port = 0
        if not port:
            raise CannotListen(listen)
        return Endpoint(listen.host, port)

    def start(self) -> None:
        """Begins to answer calls."""
        self._lookout.start()
        self._light.start()
        self._hashing.start()
        self.server.start()

    def stop(self, grace: float) -> None:
        """Refuses new calls, and lets those that have begun end within `grace` seconds."""
        with self._hold.replies():
            sleep(HOLD)
            stopped = self.server.stop(grace)
            sleep(HOLD)
        stopped.wait(grace + 1)
        self._light.shutdown(wait=False)
        self._hashing.shutdown(wait=False)
        self._lookout.stop()


def _callers(
    settings: Settings,
) -> tuple[Callable[[grpc.ServicerContext], Caller], Mapping[str, Rate]]:
    """How callers are told, and the limits that they have of their own."""
    if settings.tls_client_ca is None:
        anybody = Caller("", policy.OPEN)
        return lambda _context: anybody, {}
    path = settings.callers_file
    known = Callers(policy.OPEN, None if path is None else callers.load(path, _METHODS))
    return lambda context: known.identify(certificate_names(context)), known.rates()


def _limits(settings: Settings, windows: Windows, rates_of_callers: Mapping[str, Rate]) -> Limits:
    own = settings.rate_limits
    by_method = {}
    for method, rule in policy.RULES.items():
        rpc = method.rpartition("/")[2]
        name, rate = (rpc, own[rpc]) if rpc in own else (rule.limit, settings.rate_limit)
        by_method[method] = (name, _limit(rate))
    if not own.keys() <= {name for name, _ in by_method.values()}:
        known = ", ".join(sorted(method.rpartition("/")[2] for method in policy.RULES))
        raise ConfigurationError(f"IDENTITY_RATE_LIMITS: must name RPCs among {known}")
    by_caller = {name: _limit(rate) for name, rate in rates_of_callers.items()}
    return Limits(windows, by_method, by_caller)


def _limit(rate: Rate) -> Limit:
    return Limit.per_seconds(rate.calls, rate.period.total_seconds())
