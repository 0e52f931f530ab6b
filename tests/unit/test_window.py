"""The sliding window, told as stories on a clock."""

import random

import pytest

from identity.ratelimit.window import (
    EMPTY,
    NANOSECONDS,
    Decision,
    Limit,
    Moments,
    admit,
    has_run_out,
)

LIMIT = Limit.per_seconds(100, 60)
MINUTE = 60 * NANOSECONDS


def calls_at(moments: list[int], limit: Limit) -> tuple[list[Decision], Moments]:
    """Calls at each of these moments, from an empty window on."""
    window, decisions = EMPTY, []
    for now in moments:
        decision, window = admit(window, limit, now)
        decisions.append(decision)
    return decisions, window


@pytest.mark.parametrize(
    "apart", [0, 1, NANOSECONDS // 10, MINUTE // 100], ids=["at once", "1 ns", "100 ms", "600 ms"]
)
@pytest.mark.parametrize("start", [0, 12_345_678_901, 1_767_268_800 * NANOSECONDS])
def test_a_hundred_calls_pass_and_the_next_is_refused_however_slowly_they_come(
    apart: int, start: int
) -> None:
    moments = [start + number * apart for number in range(100)]
    last = min(moments[-1] + apart, start + MINUTE - 1)
    decisions, _ = calls_at([*moments, last], LIMIT)
    assert [decision.admitted for decision in decisions] == [True] * 100 + [False]


def test_remaining_counts_down_to_none() -> None:
    decisions, _ = calls_at(list(range(101)), LIMIT)
    assert [decision.remaining for decision in decisions] == [*range(99, -1, -1), 0]


def test_the_next_call_passes_when_the_oldest_is_a_minute_old_and_not_a_nanosecond_before() -> None:
    _, full = calls_at([7, *range(1_000, 1_099)], LIMIT)
    early, _ = admit(full, LIMIT, 7 + MINUTE - 1)
    in_time, _ = admit(full, LIMIT, 7 + MINUTE)
    assert early == Decision(admitted=False, remaining=0, reset_after_ns=1, retry_after_ns=1)
    assert in_time == Decision(
        admitted=True, remaining=0, reset_after_ns=1_000 - 7, retry_after_ns=0
    )


def test_only_the_oldest_call_makes_room_for_one() -> None:
    _, full = calls_at([7, *range(1_000, 1_099)], LIMIT)
    _, full = admit(full, LIMIT, 7 + MINUTE)
    again, _ = admit(full, LIMIT, 7 + MINUTE)
    assert again == Decision(
        admitted=False, remaining=0, reset_after_ns=1_000 - 7, retry_after_ns=1_000 - 7
    )


@pytest.mark.parametrize("asked_after", [0, 1, 999_999_999, MINUTE // 2, MINUTE - 1])
def test_waiting_exactly_as_told_is_enough_and_less_is_not(asked_after: int) -> None:
    _, full = calls_at([0] * 100, LIMIT)
    refused, full = admit(full, LIMIT, asked_after)
    assert not refused.admitted
    impatient, full = admit(full, LIMIT, asked_after + refused.retry_after_ns - 1)
    assert not impatient.admitted
    patient, full = admit(full, LIMIT, asked_after + refused.retry_after_ns)
    assert patient.admitted


def test_refused_calls_are_not_counted() -> None:
    _, full = calls_at([0] * 100, LIMIT)
    knocking = [admit(full, LIMIT, now)[0].admitted for now in range(0, MINUTE, NANOSECONDS)]
    assert not any(knocking)
    _, after = calls_at([0] * 100 + list(range(0, MINUTE, NANOSECONDS)), LIMIT)
    assert admit(after, LIMIT, MINUTE)[0] == Decision(
        admitted=True, remaining=99, reset_after_ns=MINUTE, retry_after_ns=0
    )


def test_the_reset_is_the_moment_at_which_the_oldest_counted_call_leaves() -> None:
    window = EMPTY
    for now, expected in ((10, MINUTE), (20, MINUTE - 10), (MINUTE, 10), (MINUTE + 10, 10)):
        decision, window = admit(window, LIMIT, now)
        assert decision.reset_after_ns == expected


def test_a_limit_of_one_admits_one_call_a_period() -> None:
    limit = Limit.per_seconds(1, 1)
    decisions, _ = calls_at([0, 1, NANOSECONDS - 1, NANOSECONDS, NANOSECONDS + 1], limit)
    assert [decision.admitted for decision in decisions] == [True, False, False, True, False]
    assert [decision.remaining for decision in decisions] == [0] * 5
    assert decisions[-1].retry_after_ns == NANOSECONDS - 1


def test_a_burst_at_the_end_and_one_at_the_start_of_a_minute_are_one_window() -> None:
    before = [MINUTE - 1] * 60
    after = [MINUTE] * 60
    decisions, _ = calls_at(before + after, LIMIT)
    assert sum(decision.admitted for decision in decisions) == 100


@pytest.mark.parametrize("seed", range(20))
def test_at_random_moments_it_decides_as_a_naive_count_and_never_exceeds_the_limit(
    seed: int,
) -> None:
    chosen = random.Random(seed)
    limit = Limit(calls=chosen.randint(1, 12), period_ns=chosen.randint(1, 40))
    now, window, admitted = 0, EMPTY, list[int]()
    for _ in range(1_000):
        now += chosen.choice([0, 0, 0, 1, 2, limit.period_ns // 2, limit.period_ns])
        counted = [moment for moment in admitted if moment > now - limit.period_ns]
        decision, window = admit(window, limit, now)
        assert decision.admitted == (len(counted) < limit.calls)
        counted += [now] * decision.admitted
        admitted += [now] * decision.admitted
        assert decision.remaining == limit.calls - len(counted)
        assert decision.reset_after_ns == counted[0] + limit.period_ns - now
        assert decision.retry_after_ns == (
            0 if decision.admitted else counted[0] + limit.period_ns - now
        )
    for start in admitted:
        inside = [moment for moment in admitted if start <= moment < start + limit.period_ns]
        assert len(inside) <= limit.calls


def test_an_earlier_window_is_not_changed_by_a_later_call() -> None:
    _, window = admit(EMPTY, LIMIT, 0)
    admit(window, LIMIT, 1)
    assert list(window) == [0]
    assert list(EMPTY) == []


def test_a_window_has_run_out_when_its_newest_call_is_a_period_old() -> None:
    _, window = calls_at([0, 5], LIMIT)
    assert has_run_out(EMPTY, LIMIT, 0)
    assert not has_run_out(window, LIMIT, MINUTE + 4)
    assert has_run_out(window, LIMIT, MINUTE + 5)


@pytest.mark.parametrize(
    ("calls", "seconds", "told"),
    [
        (100, 60, "100 calls in any 60 seconds"),
        (1, 0.5, "1 calls in any 0.5 seconds"),
        (1_000, 86_400, "1000 calls in any 86400 seconds"),
    ],
)
def test_a_limit_says_what_it_allows(calls: int, seconds: float, told: str) -> None:
    assert str(Limit.per_seconds(calls, seconds)) == told
