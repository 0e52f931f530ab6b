"""Shows whether the time of ResendVerification tells known addresses from others.

Starts the service on a database of its own and prints the median of 200 calls for an unverified,
a verified and an unknown address, taken in random turns, and the largest difference between them.

    .venv/bin/python -m scripts.resend_timing [--database-url URL]
"""

import argparse
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import grpc

from identity import config, logs, migrate
from identity.server import Service
from identity.v1 import identity_pb2_grpc
from identity.v1.identity_pb2 import (
    RegisterRequest,
    ResendVerificationRequest,
    VerifyEmailRequest,
)
from tests.mailbox import Mailbox

CALLS = 200
ADDRESSES = {
    "unverified": "unverified@example.com",
    "verified": "verified@example.com",
    "unknown": "unknown@example.com",
}


def prepare(stub: identity_pb2_grpc.IdentityServiceStub, mailbox: Mailbox) -> None:
    """Registers the known addresses, and verifies one."""
    for name in ("verified", "unverified"):
        stub.Register(
            RegisterRequest(username=name, email=ADDRESSES[name], password="Correct-Horse-7!")
        )
        token = mailbox.next_token()
        if name == "verified":
            stub.VerifyEmail(VerifyEmailRequest(token=token))


def measure(stub: identity_pb2_grpc.IdentityServiceStub) -> dict[str, float]:
    """The median of each address, in microseconds."""
    took: dict[str, list[float]] = {name: [] for name in ADDRESSES}
    for _ in range(CALLS):
        # In any order: what one call leaves to do may slow down the next.
        for name in random.sample(list(ADDRESSES), len(ADDRESSES)):
            started = time.perf_counter()
            stub.ResendVerification(ResendVerificationRequest(email=ADDRESSES[name]))
            took[name].append((time.perf_counter() - started) * 1e6)
    return {name: statistics.median(values) for name, values in took.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--database-url", help="an empty database; SQLite by default")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Mailbox() as mailbox:
        os.environ |= {
            "IDENTITY_LISTEN": "127.0.0.1:0",
            "IDENTITY_DATABASE_URL": given.database_url or f"sqlite:///{Path(folder, 'x.db')}",
            "IDENTITY_SECRET_KEYS": "for-measuring-only-for-measuring-only",
            "IDENTITY_EMAIL_SENDER": "smtp",
            "IDENTITY_SMTP_HOST": "127.0.0.1",
            "IDENTITY_SMTP_PORT": str(mailbox.port),
            "IDENTITY_SMTP_TLS": "none",
            "IDENTITY_RATE_LIMIT": "100000/60s",
            "IDENTITY_BCRYPT_COST": "4",
        }
        settings = config.load()
        logs.configure(logs.LogFormat.JSON, logs.LogLevel.ERROR)
        migrate.upgrade(settings.database_url)
        service = Service(settings)
        service.start()
        with grpc.insecure_channel(str(service.endpoint)) as channel:
            stub = identity_pb2_grpc.IdentityServiceStub(channel)
            prepare(stub, mailbox)
            medians = measure(stub)
        service.stop()
    for name, median in medians.items():
        print(f"{name:12} {median:8.0f} us")
    spread = max(medians.values()) / min(medians.values()) - 1
    print(f"largest difference {spread:.1%}")


if __name__ == "__main__":
    main()
