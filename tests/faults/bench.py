"""What a scenario is given, and what it gives."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TypeAlias

from tests.faults.table import Figure


@dataclass(frozen=True)
class Bench:
    """Room, chance and size of one scenario."""

    folder: Path
    random: Random
    is_short: bool
    stack: ExitStack  # ends what the scenario starts, when the suite ends
    say: Callable[[str], None]  # progress, for whoever watches

    def rounds(self, full: int, short: int) -> int:
        return short if self.is_short else full


# Looks at what is left when the other scenarios have run: leases of dead processes last a minute,
# and nobody has to wait for them.
Conclude: TypeAlias = Callable[[], Iterable[Figure]]
Scenario: TypeAlias = Callable[[Bench], Conclude]
