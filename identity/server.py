"""The composition root: the only place that wires the parts."""

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Final

import structlog
from grpc_health.v1 import health, health_pb2_grpc

from identity import embedded, policy
from identity.call_pool import step_aside
from identity.clock import SteadyClock
from identity.config import ConfigurationError, Settings
from identity.cores import usable_cores
from identity.database import REVISIONS, Database, Moment, behind, moment_of
from identity.health import PROBE_TIMEOUT, DatabaseProbe
from identity.mail.configured import configured_sender
from identity.mail.deliverer import Deliverer
from identity.mail.outbox import MailQueue, Outbox
from identity.mail.templates import Templates
from identity.meters import SILENT, Meters
from identity.ratelimit.memory import MemoryWindows
from identity.ratelimit.store import Windows
from identity.security.passwords import PasswordHasher
from identity.security.tokens import TokenSigner
from identity.servicers.delivery import DeliveryServicer
from identity.servicers.health import HealthServicer
from identity.servicers.identity import IdentityServicer
from identity.services.cleanup import Cleanup
from identity.services.delivery import DeliveryStatusService
from identity.services.registration import RegistrationService
from identity.services.resend import ResendService
from identity.services.verification import VerificationIssuer, VerificationService
from identity.startup import StartError
from identity.transport import LIGHT_THREADS, Transport
from identity.v1 import delivery_pb2_grpc, identity_pb2_grpc
from identity.values import valkey_server
from identity.worker import Worker
from identity.worker_process import Supervision

# All that stopping takes must fit into the 10 s after which supervisors kill.
GRACE: Final = 5.0  # seconds for calls that have begun, and one more to cancel the others
GRACE_FOR_MAIL: Final = 1.5  # seconds for the mail at hand

_SERVICES: Final = tuple(service.full_name for service in policy.SERVICES)

_log = structlog.get_logger()


class Service:
    """The running service: all its parts, started and stopped together."""

    def __init__(
        self,
        settings: Settings,
        now: Callable[[], datetime] | None = None,
        meters: Meters = SILENT,
        supervision: Supervision | None = None,
    ) -> None:
        """Wires the parts; nothing runs yet. `now` takes the place of every clock.

        Under `supervision` it is one of several that share the port.
        Raises ConfigurationError, StartError or DatabaseUnavailable.
        """
        self._supervision = supervision
        if settings.is_embedded:
            embedded.make_directory()
        cores = cores_for_hashes(settings)
        signer = TokenSigner(_signing_keys(settings))
        self._database = _open_database(settings, pool_size(settings), meters)
        moment, now = _clocks(self._database, now)
        self._hasher = PasswordHasher(
            settings.bcrypt_cost, cores, meters=meters, before_wait=step_aside
        )
        issuer = VerificationIssuer(signer, settings.verification_ttl, MailQueue(moment))
        resends = ResendService(self._database, issuer, now=now)
        outbox = Outbox(self._database, _unique_name(), moment)
        deliverer = _deliverer(settings, outbox, signer, now, meters)
        self._worker = Worker(
            woken=[deliverer.deliver_due],
            polling=[resends.carry_out, Cleanup(self._database, now=now).run],
        )
        identity = IdentityServicer(
            RegistrationService(
                self._database, self._hasher, issuer, now=now, mail_queued=self._worker.wake
            ),
            VerificationService(self._database, signer, now=now, meters=meters),
            resends,
        )
        delivery = DeliveryServicer(DeliveryStatusService(self._database, moment))
        self._windows = _windows(settings, meters)
        self._probe = DatabaseProbe(
            Database(settings.database_url, connections=1, statement_timeout=PROBE_TIMEOUT),
            self._report,
        )
        self._transport = Transport(
            settings,
            waiting_threads=self._hasher.admitted_at_most,
            windows=self._windows,
            meters=meters,
            shares_port=supervision is not None,
        )
        self._health = HealthServicer(("", *_SERVICES), self._transport.patience_with_watchers)
        server = self._transport.server
        identity_pb2_grpc.add_IdentityServiceServicer_to_server(identity, server)
        delivery_pb2_grpc.add_DeliveryServiceServicer_to_server(delivery, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if settings.reflection:
            from identity.servicers.reflection import add_reflection  # noqa: PLC0415 - when wanted

            services = (*_SERVICES, health.SERVICE_NAME)
            add_reflection(server, services, self._transport.patience_with_reflection)
        self.endpoint = self._transport.bind()

    def is_serving(self) -> bool:
        """Whether calls are answered: the database answers, and the service is not stopping."""
        return self._health.is_serving

    def _report(self, *, is_serving: bool) -> None:
        self._health.report(is_serving=is_serving)
        if self._supervision:
            self._supervision.report(is_serving=is_serving)

    def start(self) -> None:
        """Begins to answer calls and to deliver mails."""
        self._windows.start()
        self._transport.start()
        self._worker.start()
        self._report(is_serving=True)
        self._probe.start()

    def stop(self) -> None:
        """Refuses new calls, lets those that have begun end, and stops, within 10 seconds."""
        self._probe.stop()
        self._health.close()
        self._transport.stop(GRACE)
        self._windows.close()
        self._hasher.close()
        self._worker.stop(GRACE_FOR_MAIL)
        self._database.close()


def cores_for_hashes(settings: Settings) -> int:
    """Those of this process. All workers together hash on as many threads as there are cores: more
    would only slow down the calls beside them.
    """
    return max(1, usable_cores() // settings.workers)


def pool_size(settings: Settings) -> int:
    """As many connections as threads may want one at once.

    These are light calls, Registers as they come from their hash, and the worker. The probe of
    the health has another connection of its own.
    """
    return LIGHT_THREADS + cores_for_hashes(settings) + 1


def _unique_name() -> str:
    """One that no other process has: host names are cut, and pids are 1 in containers."""
    return str(uuid.uuid4())


def _deliverer(
    settings: Settings,
    outbox: Outbox,
    signer: TokenSigner,
    now: Callable[[], datetime],
    meters: Meters,
) -> Deliverer:
    templates = Templates(settings.email_from, settings.verification_url)
    return Deliverer(outbox, configured_sender(settings), templates, signer, now=now, meters=meters)


def _signing_keys(settings: Settings) -> tuple[str, ...]:
    if settings.secret_keys is not None:
        return settings.secret_keys
    if not settings.is_embedded:
        # One made up here would differ from process to process: half of the links would not work.
        raise ConfigurationError(
            "IDENTITY_SECRET_KEYS: required with a database other than the default one"
        )
    return embedded.keys()


def _open_database(settings: Settings, connections: int, meters: Meters) -> Database:
    database = Database(settings.database_url, connections=connections, meters=meters)
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
) -> tuple[Moment, Callable[[], datetime]]:
    """The clock that leases go by, which all processes share, and the one for everything else."""
    if now is None and database.has_clock:
        return database.moment, SteadyClock().now
    own = now or SteadyClock().now
    return moment_of(own), own


def _windows(settings: Settings, meters: Meters) -> Windows:
    if settings.rate_limit_store == "memory://":
        return MemoryWindows()
    from identity.ratelimit.valkey import ValkeyWindows  # noqa: PLC0415

    return ValkeyWindows(valkey_server(settings.rate_limit_store), meters)
