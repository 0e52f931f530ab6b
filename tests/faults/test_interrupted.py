"""A caller that goes away at any step of Register leaves a whole registration or none."""

import pytest

from identity.database import Database
from tests.faults.interrupted import Caller, Leave, interrupt_each_step


@pytest.mark.parametrize("leave", [Caller.cancel, Caller.run_out_of_time])
def test_an_interrupted_register_is_whole_or_nothing(database: Database, leave: Leave) -> None:
    outcomes = interrupt_each_step(database, leave)
    assert [outcome for outcome in outcomes if not outcome.is_whole_or_nothing] == []
    steps = [outcome.step for outcome in outcomes]
    # The look for a first reply; the hash; key, lapsed holders, user, verification, mail; commit.
    assert [steps.count(f"before {kind}") for kind in ("INSERT", "the hash")] == [4, 1]
    assert steps[-1] == "before the commit"
    refused = [outcome.was_refused for outcome in outcomes]
    # The last look is before the commit: up to there nothing has happened, from there all of it.
    assert refused == [True] * (len(steps) - 1) + [False]
