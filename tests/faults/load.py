"""People who register, one after the other, and repeat each call until it is answered."""

import random
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import grpc

from identity.v1.identity_pb2_grpc import IdentityServiceStub
from tests.refusals import outcome
from tests.requests import registration

DEADLINE: Final = 10.0  # seconds of each call
_REST: Final = 0.05  # seconds between two calls of one thread, on average
_END: Final = 60.0  # seconds to finish what has begun


@dataclass(frozen=True)
class Person:
    """Somebody whose registration was acknowledged."""

    id: str
    username: str
    email: str
    tries: int


class Load:
    """Threads that register people on any of the channels, each in turn.

    A call that fails is repeated with its request id, on the next channel, until it succeeds: an
    acknowledgement may have been lost, but no person is.
    """

    def __init__(self, channels: Sequence[grpc.Channel], seed: int, threads: int = 4) -> None:
        self._stubs = [IdentityServiceStub(channel) for channel in channels]
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._acknowledged: list[Person] = []
        self._failures: list[str] = []
        self._listeners: list[Callable[[], None]] = []
        self._threads = [
            threading.Thread(
                target=self._run, args=(random.Random(f"{seed} {number}"),), daemon=True
            )
            for number in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Takes on nobody new, and waits until everybody is registered."""
        self._ending.set()
        for thread in self._threads:
            thread.join(_END)
            if thread.is_alive():
                raise TimeoutError("a registration was not answered")

    def on_acknowledged(self, listener: Callable[[], None]) -> None:
        """From now on calls that with each registration, in the thread that made it."""
        self._listeners.append(listener)

    def acknowledged(self) -> list[Person]:
        with self._lock:
            return list(self._acknowledged)

    def failures(self) -> list[str]:
        """A code, and a reason if the service gave one, for each call that failed."""
        with self._lock:
            return list(self._failures)

    def _run(self, chance: random.Random) -> None:
        while not self._ending.wait(chance.uniform(0, 2 * _REST)):
            person = self._register(uuid.UUID(int=chance.getrandbits(128), version=4))
            with self._lock:
                self._acknowledged.append(person)
            for listener in self._listeners:
                listener()

    def _register(self, request_id: uuid.UUID) -> Person:
        name = request_id.hex[:20]
        request = registration(name, f"{name}@example.com", request_id=str(request_id))
        tries = 0
        while True:
            stub = self._stubs[(request_id.int + tries) % len(self._stubs)]
            tries += 1
            try:
                reply = stub.Register(request, timeout=DEADLINE)
            except grpc.RpcError as error:
                with self._lock:
                    self._failures.append(outcome(error))
                threading.Event().wait(_REST)
            else:
                return Person(reply.id, reply.username, reply.email, tries)
