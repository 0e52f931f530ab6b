"""The composition root: the only place that wires the parts."""

import os
import ssl
import sys
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Final

import grpc
import structlog
from grpc_health.v1 import health, health_pb2_grpc

from identity import callers, embedded, policy
from identity.callers import Caller, Callers
from identity.clock import SteadyClock
from identity.config import ConfigurationError, Settings
from identity.database import REVISIONS, Database, SharedClock, behind
from identity.health import PROBE_TIMEOUT, DatabaseProbe
from identity.interceptors.callers import CallersInterceptor
from identity.interceptors.clients import Clients, certificate_names
from identity.interceptors.observe import ObserveInterceptor
from identity.interceptors.patience import Lookout, Patience
from identity.interceptors.ratelimit import RateLimitInterceptor
from identity.interceptors.reading import ReadingInterceptor
from identity.mail.deliverer import Deliverer
from identity.mail.outbox import Outbox
from identity.mail.sender import Sender
from identity.mail.templates import Templates
from identity.meters import Meters
from identity.ratelimit.limits import Limits, OpenWindows
from identity.ratelimit.memory import MemoryStore
from identity.ratelimit.window import Limit
from identity.security.passwords import PasswordHasher
from identity.security.tokens import TokenSigner
from identity.servicers.health import MAXIMUM_WATCHERS, HealthServicer
from identity.servicers.identity import IdentityServicer
from identity.services.cleanup import Cleanup
from identity.services.registration import RegistrationService
from identity.services.resend import ResendService
from identity.services.verification import VerificationIssuer, VerificationService
from identity.tls import certificate_files, server_credentials
from identity.v1 import identity_pb2_grpc
from identity.values import Endpoint, Rate
from identity.worker import Worker

MAXIMUM_REQUEST = 64 * 1024  # bytes; the longest honest one is under 1 KiB
MAXIMUM_METADATA: Final = 8 * 1024  # bytes of a call's headers
# Threads beside those that wait for a hash, so that light calls are always answered.
LIGHT_THREADS: Final = 16
# Calls that are answered, read, or wait for a thread; of health's watchers as many as it takes.
MAXIMUM_CALLS: Final = 2 * MAXIMUM_WATCHERS
# What a connection may do, in milliseconds where it is a time. A gateway carries many callers over
# one connection; one that is old is closed, so that clients spread anew over all processes.
CONNECTIONS: Final = (
    ("grpc.max_concurrent_streams", 1024),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 5 * 60_000),
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
# All that stopping takes must fit into the 10 s after which supervisors kill.
GRACE: Final = 5.0  # seconds for calls that have begun, and one more to cancel the others
GRACE_FOR_MAIL: Final = 1.5  # seconds for the mail at hand

_SERVICES: Final = tuple(service.full_name for service in policy.SERVICES)
_METHODS: Final = policy.methods_of(policy.SERVICES)

_log = structlog.get_logger()


class StartError(Exception):
    """The service can't start. The text is one line for the operator."""


class Service:
    """The running service: all its parts, started and stopped together."""

    def __init__(
        self,
        settings: Settings,
        now: Callable[[], datetime] | None = None,
        meters: Meters | None = None,
    ) -> None:
        """Wires the parts; nothing runs yet. `now` takes the place of every clock.

        Raises ConfigurationError, StartError or DatabaseUnavailable.
        """
        policy.check(_METHODS, policy.RULES)
        meters = meters or Meters()
        if settings.is_embedded:
            embedded.make_directory()
        cores = _cores()
        signer = TokenSigner(_signing_keys(settings))
        # As many connections as threads may want one at once: light calls, Registers as they come
        # from their hash, and the worker.
        self._database = _open_database(settings, LIGHT_THREADS + cores + 1)
        time, now = _clocks(self._database, now)
        self._hasher = PasswordHasher(settings.bcrypt_cost, cores)
        issuer = VerificationIssuer(signer, settings.verification_ttl, time=time)
        resends = ResendService(self._database, issuer, now=now)
        deliverer = Deliverer(
            # A name that no other process has: host names are cut, and pids are 1 in containers.
            Outbox(self._database, str(uuid.uuid4()), time=time),
            _sender(settings),
            Templates(settings.email_from, settings.verification_url),
            signer,
            now=now,
        )
        self._worker = Worker(
            [resends.carry_out, deliverer.deliver_due, Cleanup(self._database, now=now).run]
        )
        servicer = IdentityServicer(
            RegistrationService(
                self._database, self._hasher, issuer, now=now, mail_queued=self._wake
            ),
            VerificationService(self._database, signer, now=now),
            resends,
        )
        identify, rates_of_callers = _callers(settings)
        self._health = HealthServicer(("", *_SERVICES))
        self._probe = DatabaseProbe(
            Database(settings.database_url, connections=1, statement_timeout=PROBE_TIMEOUT),
            self._health.report,
        )
        # Requests are small and mostly come with the headers. Where more than a few keep us
        # waiting, the threads are wanted for others.
        calls = Patience(5.0, crowd=LIGHT_THREADS // 2, seconds_in_a_crowd=1.0)
        probes = Patience(5.0, crowd=4, seconds_in_a_crowd=0.2)
        reflections = Patience(60.0, crowd=2, seconds_in_a_crowd=1.0)
        self._lookout = Lookout(calls, probes, reflections)
        self._server = grpc.server(
            ThreadPoolExecutor(
                self._hasher.admitted_at_most + LIGHT_THREADS, thread_name_prefix="rpc"
            ),
            interceptors=[
                ObserveInterceptor(Clients(settings.trusted_proxies), identify, meters),
                RateLimitInterceptor(
                    _limits(settings, lambda _name, limit: MemoryStore(limit), rates_of_callers)
                ),
                CallersInterceptor(),
                ReadingInterceptor(calls, probes),
            ],
            options=(
                ("grpc.max_receive_message_length", MAXIMUM_REQUEST),
                # Above the first, calls are refused by chance; above the second, always.
                ("grpc.max_metadata_size", MAXIMUM_METADATA),
                ("grpc.absolute_max_metadata_size", MAXIMUM_METADATA),
                *CONNECTIONS,
                # On by default, and a second server would bind the same port without a word.
                ("grpc.so_reuseport", 0),
            ),
            maximum_concurrent_rpcs=self._hasher.admitted_at_most + MAXIMUM_CALLS,
        )
        identity_pb2_grpc.add_IdentityServiceServicer_to_server(servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if settings.reflection:
            from identity.servicers import reflection  # noqa: PLC0415 - only when wanted

            reflection.add_reflection(self._server, (*_SERVICES, health.SERVICE_NAME), reflections)
        self.endpoint = _bind(self._server, settings)

    def _wake(self) -> None:
        self._worker.wake()

    def start(self) -> None:
        """Begins to answer calls and to deliver mails."""
        self._lookout.start()
        self._server.start()
        self._worker.start()
        self._health.report(is_serving=True)
        self._probe.start()

    def stop(self) -> None:
        """Refuses new calls, lets those that have begun end, and stops, within 10 seconds."""
        self._probe.stop()
        self._health.close()
        self._server.stop(GRACE).wait(GRACE + 1)
        self._lookout.stop()
        self._hasher.close()
        self._worker.stop(GRACE_FOR_MAIL)
        self._database.close()


def _signing_keys(settings: Settings) -> tuple[str, ...]:
    if settings.secret_keys is not None:
        return settings.secret_keys
    if not settings.is_embedded:
        # One made up here would differ from process to process: half of the links would not work.
        raise ConfigurationError(
            "IDENTITY_SECRET_KEYS: required with a database other than the default one"
        )
    return embedded.keys()


def _open_database(settings: Settings, connections: int) -> Database:
    database = Database(settings.database_url, connections=connections)
    revision = database.revision()
    if revision == REVISIONS[-1]:
        return database
    why = behind(revision)
    if why:
        if not settings.is_embedded:
            raise StartError(why)
        from identity import migrate  # noqa: PLC0415 - 0.4 s that other starts need not pay

        migrate.upgrade(settings.database_url)
    else:
        _log.warning("schema_ahead", revision=revision, newest_known=REVISIONS[-1])
    return database


def _clocks(
    database: Database, now: Callable[[], datetime] | None
) -> tuple[SharedClock, Callable[[], datetime]]:
    """The clock that leases go by, which all processes share, and the one for everything else."""
    if now is None and database.has_clock:
        return database.time, SteadyClock().now
    own = now or SteadyClock().now
    return lambda _connection: own(), own


def _sender(settings: Settings) -> Sender:
    if settings.email_sender == "smtp":
        from identity.mail.smtp import SmtpSender, SmtpServer, SmtpTls  # noqa: PLC0415

        password = settings.smtp_password
        return SmtpSender(
            SmtpServer(
                settings.smtp_host,
                settings.smtp_port,
                SmtpTls(settings.smtp_tls),
                settings.smtp_username,
                password.get_secret_value() if password else None,
            ),
            settings.email_from.addr_spec,
            ssl.create_default_context(),
        )
    if settings.email_sender == "ses":
        return _ses_sender(settings)
    from identity.mail.console import ConsoleSender  # noqa: PLC0415

    if not settings.is_embedded:
        _log.warning("mail_goes_to_the_console", hint="set IDENTITY_EMAIL_SENDER")
    return ConsoleSender(sys.stdout)


def _ses_sender(settings: Settings) -> Sender:
    from botocore.exceptions import BotoCoreError, NoRegionError  # noqa: PLC0415 - boto3 takes 0.3 s

    from identity.mail.ses import SesSender, ses_client  # noqa: PLC0415

    try:
        return SesSender(ses_client(settings.ses_region), settings.ses_configuration_set)
    except NoRegionError:
        raise ConfigurationError("IDENTITY_SES_REGION: required with the sender ses") from None
    except (BotoCoreError, ValueError) as error:  # a profile that is not there, a bad endpoint
        why = f"boto3's settings are unusable: {type(error).__name__}"
        raise ConfigurationError(f"IDENTITY_EMAIL_SENDER: {why}") from None


def _bind(server: grpc.Server, settings: Settings) -> Endpoint:
    listen, files = settings.listen, certificate_files(settings)
    try:
        if files is None:
            port = server.add_insecure_port(str(listen))
        else:
            port = server.add_secure_port(str(listen), server_credentials(files))
    except RuntimeError:
        port = 0
    if not port:
        raise StartError(f"IDENTITY_LISTEN: cannot listen on {listen}: in use, or not ours")
    return Endpoint(listen.host, port)


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


def _limits(
    settings: Settings, open_windows: OpenWindows, rates_of_callers: Mapping[str, Rate]
) -> Limits:
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
    return Limits(open_windows, by_method, by_caller)


def _limit(rate: Rate) -> Limit:
    return Limit.per_seconds(rate.calls, rate.period.total_seconds())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
