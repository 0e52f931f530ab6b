"""When a worker that died is started again."""

from identity.supervisor import restart_delay


def test_the_first_restart_is_at_once_and_the_next_ones_wait_ever_longer() -> None:
    assert [restart_delay(failures) for failures in range(8)] == [0, 1, 2, 4, 8, 16, 30, 30]


def test_a_day_of_failures_does_not_end_the_restarts() -> None:
    assert restart_delay(100_000) == 30
