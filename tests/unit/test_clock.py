"""The wall clock is followed forward, and not back."""

from datetime import datetime, timedelta

from identity.clock import SteadyClock
from tests.fakes import START, FakeClock


class Machine:
    """A machine whose wall clock can be set; time goes on at its own pace."""

    def __init__(self) -> None:
        self._time = FakeClock()
        self._shift = timedelta()
        self.clock = SteadyClock(self.wall, self._time.monotonic)

    def wall(self) -> datetime:
        return self._time.now() + self._shift

    def set(self, shift: timedelta) -> None:
        """Sets the wall clock to what is right, and so much more."""
        self._shift = shift

    def passes(self, seconds: float) -> datetime:
        self._time.advance(seconds=seconds)
        return self.clock.now()


def seconds(moment: datetime) -> float:
    return (moment - START).total_seconds()


def test_it_is_the_wall_clock() -> None:
    machine = Machine()
    assert [seconds(machine.passes(step)) for step in (0, 1, 0, 30)] == [0, 1, 1, 31]


def test_a_clock_that_is_set_forward_is_followed() -> None:
    machine = Machine()
    machine.set(timedelta(minutes=10))
    assert seconds(machine.passes(1)) == 601


def test_a_clock_that_is_set_back_is_not_and_time_goes_on() -> None:
    machine = Machine()
    machine.set(timedelta(minutes=-10))
    assert [seconds(machine.passes(1)) for _ in range(3)] == [1, 2, 3]
    machine.set(timedelta(minutes=-20))
    assert seconds(machine.passes(1)) == 4
    machine.set(timedelta())
    assert seconds(machine.passes(1)) == 5


def test_a_clock_that_is_set_forth_and_back_stays_ahead_until_it_is_met() -> None:
    machine = Machine()
    machine.set(timedelta(minutes=10))
    machine.passes(0)
    machine.set(timedelta())
    assert seconds(machine.passes(60)) == 660
    machine.set(timedelta(minutes=11))
    assert seconds(machine.passes(0)) == 60 + 660


def test_a_clock_that_was_far_ahead_was_wrong() -> None:
    machine = Machine()
    machine.set(timedelta(days=365))
    machine.passes(0)
    machine.set(timedelta())
    assert seconds(machine.passes(1)) == 1
