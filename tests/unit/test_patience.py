"""Calls that keep a thread waiting are given up, sooner in a crowd."""

from contextlib import ExitStack

from identity.interceptors.patience import Patience
from tests.fakes import FakeClock


class Waiting:
    """A call's context, as far as Patience knows it."""

    def __init__(self) -> None:
        self.was_cancelled = False

    def cancel(self) -> None:
        self.was_cancelled = True


def test_patience_ends_for_each_call_by_itself() -> None:
    clock = FakeClock()
    patience = Patience(5, crowd=9, seconds_in_a_crowd=1, clock=clock.monotonic)
    first, second, third = Waiting(), Waiting(), Waiting()
    with patience.waiting(first):  # type: ignore[arg-type]
        clock.advance(seconds=3)
        with patience.waiting(second):  # type: ignore[arg-type]
            with patience.waiting(third):  # type: ignore[arg-type]
                pass
            clock.advance(seconds=2)
            patience.look()
            assert (first.was_cancelled, second.was_cancelled) == (True, False)
            clock.advance(seconds=3)
            patience.look()
    assert (second.was_cancelled, third.was_cancelled) == (True, False)


def test_patience_is_shorter_until_the_crowd_is_gone() -> None:
    clock = FakeClock()
    patience = Patience(5, crowd=2, seconds_in_a_crowd=1, clock=clock.monotonic)
    crowd = [Waiting() for _ in range(4)]
    with ExitStack() as stack:
        for each in crowd:
            stack.enter_context(patience.waiting(each))  # type: ignore[arg-type]
        clock.advance(seconds=0.9)
        patience.look()
        assert not any(each.was_cancelled for each in crowd)
        clock.advance(seconds=0.1)
        patience.look()
        assert [each.was_cancelled for each in crowd] == [True, True, False, False]
