"""What is known of the call at hand."""

from contextvars import ContextVar
from dataclasses import dataclass, field

from identity.callers import Caller


@dataclass(frozen=True)
class Call:
    """The call that this thread answers."""

    method: str  # "/identity.v1.IdentityService/Register"
    request_id: str
    client: str  # as the rate limit counts it
    caller: Caller
    # What its reply will bear, gathered here: gRPC would replace it each time it is told.
    trailing: list[tuple[str, str | bytes]] = field(default_factory=list)


current_call: ContextVar[Call] = ContextVar("current_call")
