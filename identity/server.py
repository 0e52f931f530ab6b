"""The composition root: the only place that wires the parts."""

import os
import ssl
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from time import sleep
from typing import Final

import grpc
import structlog
from grpc_health.v1 import health, health_pb2_grpc

from identity import embedded
from identity.clock import SteadyClock
from identity.config import ConfigurationError, Settings
from identity.database import REVISIONS, Database, SharedClock, behind
from identity.health import PROBE_TIMEOUT, DatabaseProbe
from identity.interceptors.clients import Clients
from identity.interceptors.hold import HoldInterceptor
from identity.interceptors.observe import ObserveInterceptor
from identity.interceptors.ratelimit import RateLimitInterceptor
from identity.mail.deliverer import Deliverer
from identity.mail.outbox import Outbox
from identity.mail.sender import Sender
from identity.mail.templates import Templates
from identity.ratelimit.memory import MemoryStore
from identity.ratelimit.window import Limit
from identity.security.passwords import PasswordHasher
from identity.security.tokens import TokenSigner
from identity.servicers.health import HealthServicer
from identity.servicers.identity import IdentityServicer
from identity.services.cleanup import Cleanup
from identity.services.registration import RegistrationService
from identity.services.resend import ResendService
from identity.services.verification import VerificationIssuer, VerificationService
from identity.startup import CannotListen, StartError
from identity.v1 import identity_pb2, identity_pb2_grpc
from identity.values import Endpoint
from identity.worker import Worker
from identity.worker_process import Supervision

MAXIMUM_REQUEST = 64 * 1024  # bytes; the longest honest one is under 1 KiB
# Threads beside those that wait for a hash, so that light calls are always answered.
LIGHT_THREADS: Final = 16
# All that stopping takes must fit into the 10 s after which supervisors kill.
GRACE: Final = 5.0  # seconds for calls that have begun, and one more to cancel the others
GRACE_FOR_MAIL: Final = 1.5  # seconds for the mail at hand
# Replies are held so long before the server stops, for the next calls of those who have their reply
# already, and so long after, for the word of it to reach all callers: some round trips each.
HOLD: Final = 0.03  # seconds

_SERVICE: Final = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].full_name

_log = structlog.get_logger()


class Service:
    """The running service: all its parts, started and stopped together."""

    def __init__(
        self,
        settings: Settings,
        now: Callable[[], datetime] | None = None,
        supervision: Supervision | None = None,
    ) -> None:
        """Wires the parts; nothing runs yet. `now` takes the place of every clock.

        Under `supervision` it is one of several that share the port.
        Raises ConfigurationError, StartError or DatabaseUnavailable.
        """
        self._supervision = supervision
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
        limit = Limit.per_seconds(
            settings.rate_limit.calls, settings.rate_limit.period.total_seconds()
        )
        self._health = HealthServicer(("", _SERVICE))
        self._probe = DatabaseProbe(
            Database(settings.database_url, connections=1, statement_timeout=PROBE_TIMEOUT),
            self._report,
        )
        self._hold = HoldInterceptor()
        self._server = grpc.server(
            ThreadPoolExecutor(
                self._hasher.admitted_at_most + LIGHT_THREADS, thread_name_prefix="rpc"
            ),
            interceptors=[
                self._hold,
                ObserveInterceptor(Clients(settings.trusted_proxies)),
                RateLimitInterceptor(MemoryStore(limit)),
            ],
            options=(
                ("grpc.max_receive_message_length", MAXIMUM_REQUEST),
                # On by default, and a second server would bind the same port without a word.
                ("grpc.so_reuseport", int(supervision is not None)),
            ),
        )
        identity_pb2_grpc.add_IdentityServiceServicer_to_server(servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if settings.reflection:
            _add_reflection(self._server)
        self.endpoint = _bind(self._server, settings.listen)

    def _wake(self) -> None:
        self._worker.wake()

    def _report(self, *, is_serving: bool) -> None:
        self._health.report(is_serving=is_serving)
        if self._supervision:
            self._supervision.report(is_serving=is_serving)

    def start(self) -> None:
        """Begins to answer calls and to deliver mails."""
        self._server.start()
        self._worker.start()
        self._report(is_serving=True)
        self._probe.start()

    def stop(self) -> None:
        """Refuses new calls, lets those that have begun end, and stops, within 10 seconds."""
        self._probe.stop()
        self._health.close()
        with self._hold.replies():
            sleep(HOLD)
            stopped = self._server.stop(GRACE)
            sleep(HOLD)
        stopped.wait(GRACE + 1)
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


def _add_reflection(server: grpc.Server) -> None:
    # Imported for its descriptors: reflection can then show the details of an error.
    from google.rpc import error_details_pb2  # noqa: F401, PLC0415
    from grpc_reflection.v1alpha import reflection  # noqa: PLC0415

    reflection.enable_server_reflection(
        (_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )


def _bind(server: grpc.Server, listen: Endpoint) -> Endpoint:
    try:
        port = server.add_insecure_port(str(listen))
    except RuntimeError:
        port = 0
    if not port:
        raise CannotListen(listen)
    return Endpoint(listen.host, port)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
