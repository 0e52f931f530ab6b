"""People who register, read their mail and follow its link, as a program.

Arguments: endpoint, the sink's second port (0: no mail, both calls empty), threads, a number of its
own. Reads a number of journeys a thread from stdin, makes them, and prints how many were made.
"""

import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc

from identity.v1.identity_pb2_grpc import IdentityServiceStub
from tests.bench.sink import Questions
from tests.requests import registration, verification

_DEADLINE = 60.0  # seconds; a journey takes a fraction of one
_NO_TOKEN = "x" * 64


class Traveller:
    """One person after the other."""

    def __init__(self, channel: grpc.Channel, questions: Questions | None, client: str) -> None:
        self._stub = IdentityServiceStub(channel)
        self._questions = questions
        self._metadata = (("x-forwarded-for", client),)

    def travel(self, journeys: int) -> None:
        """Raises grpc.RpcError."""
        for _ in range(journeys):
            name = uuid.uuid4().hex[:20]
            address = f"{name}@example.com"
            request = registration(name, address)
            self._stub.Register(request, metadata=self._metadata, timeout=_DEADLINE)
            token = self._questions.ask(f"token {address}") if self._questions else _NO_TOKEN
            self._stub.VerifyEmail(verification(token), metadata=self._metadata, timeout=_DEADLINE)


def _connected(endpoint: str) -> grpc.Channel:
    """A connection of its own: several workers share them out."""
    channel = grpc.insecure_channel(endpoint, [("grpc.use_local_subchannel_pool", 1)])
    grpc.channel_ready_future(channel).result(_DEADLINE)
    return channel


def main() -> None:
    endpoint, sink_port, threads, number = sys.argv[1], *map(int, sys.argv[2:5])
    with ExitStack() as stack:
        travellers = [
            Traveller(
                stack.enter_context(_connected(endpoint)),
                stack.enter_context(Questions(sink_port)) if sink_port else None,
                f"10.1.{number}.{thread}",
            )
            for thread in range(threads)
        ]
        pool = stack.enter_context(ThreadPoolExecutor(threads))
        for line in sys.stdin:
            journeys = int(line)
            list(pool.map(Traveller.travel, travellers, [journeys] * threads))  # raises theirs
            print(journeys * threads, flush=True)


if __name__ == "__main__":
    main()
