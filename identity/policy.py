"""What each RPC is subject to. One that is not listed here stops the start.

The table is the whole answer to who may call what: where IDENTITY_CALLERS_FILE names callers, it
narrows this down further, and never widens it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from google.protobuf.descriptor import ServiceDescriptor

from identity.v1 import delivery_pb2, identity_pb2

SERVICES: Final[tuple[ServiceDescriptor, ...]] = (
    identity_pb2.DESCRIPTOR.services_by_name["IdentityService"],
    delivery_pb2.DESCRIPTOR.services_by_name["DeliveryService"],
)

# The limit that IDENTITY_RATE_LIMIT sets. RPCs of one limit are counted together.
GENERAL: Final = "general"


class PolicyError(Exception):
    """An RPC without a rule, or a rule without an RPC: a defect of ours, found at the start."""


@dataclass(frozen=True)
class Rule:
    """What holds for one RPC."""

    limit: str  # whose window counts it, unless IDENTITY_RATE_LIMITS gives it one of its own
    is_open: bool  # to every caller that may connect; else only to those that are named for it
    hashes: bool = False  # takes a third of a second of a core, and most calls a millisecond


RULES: Final = {
    "/identity.v1.IdentityService/Register": Rule(GENERAL, is_open=True, hashes=True),
    "/identity.v1.IdentityService/VerifyEmail": Rule(GENERAL, is_open=True),
    "/identity.v1.IdentityService/ResendVerification": Rule(GENERAL, is_open=True),
    # Tells who is registered.
    "/identity.v1.DeliveryService/GetDeliveryStatus": Rule(GENERAL, is_open=False),
}

OPEN: Final = frozenset(method for method, rule in RULES.items() if rule.is_open)
HASHING: Final = frozenset(method for method, rule in RULES.items() if rule.hashes)


def methods_of(services: Iterable[ServiceDescriptor]) -> frozenset[str]:
    """Their RPCs, each as "/identity.v1.IdentityService/Register"."""
    return frozenset(
        f"/{service.full_name}/{method.name}" for service in services for method in service.methods
    )


def check(methods: frozenset[str], rules: Iterable[str]) -> None:
    """Raises PolicyError unless every RPC has a rule and every rule an RPC."""
    astray = methods.symmetric_difference(rules)
    if astray:
        raise PolicyError(f"no rule, or no RPC: {', '.join(sorted(astray))}")
