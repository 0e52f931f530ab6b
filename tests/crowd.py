"""Many calls at the same moment."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc

from tests.refusals import outcome

_PATIENCE = 60  # seconds until all callers must stand ready


def at_once(calls: Sequence[Callable[[], object]]) -> list[str]:
    """Makes all calls at the same moment; how each ended.

    `OK`, a code and a reason, or the kind of any other error.
    """
    barrier = threading.Barrier(len(calls), timeout=_PATIENCE)

    def make(call: Callable[[], object]) -> str:
        barrier.wait()
        try:
            call()
        except grpc.RpcError as error:
            return outcome(error)
        except Exception as error:  # noqa: BLE001 - it is one of the outcomes
            return type(error).__name__
        return "OK"

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(make, calls))


def mixed_case(text: str, number: int) -> str:
    """One of many spellings: the bits of the number choose the capitals."""
    return "".join(
        letter.upper() if number >> place & 1 else letter for place, letter in enumerate(text)
    )
