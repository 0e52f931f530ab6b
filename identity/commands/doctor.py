"""`identity doctor`: what `serve` would lack, and how to mend it."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from identity.clock import utc_now
from identity.commands.output import print_whole
from identity.config import Settings
from identity.doctor.checks import checks
from identity.doctor.examination import examine
from identity.doctor.finding import Finding, Result

EXIT_SOUND: Final = 0
EXIT_FAILED: Final = 1

_WORST_FIRST: Final = (Result.FAIL, Result.WARN, Result.PASS)


def run(given: argparse.Namespace, settings: Settings, files: Mapping[str, Path]) -> int:
    """Examines everything and prints the report; returns the exit code.

    `files`: those that settings were read from, by the variable that names each.
    """
    findings = examine(checks(settings, files, utc_now))
    worst = next(each for each in _WORST_FIRST if any(each is found.result for found in findings))
    why = print_whole(_document(findings, worst) if given.json else _lines(findings))
    if why:
        print(f"identity: {why}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_FAILED if worst is Result.FAIL else EXIT_SOUND


def _document(findings: Sequence[Finding], worst: Result) -> str:
    shown = [
        {"name": each.name, "result": each.result, "found": each.found, "mend": each.mend}
        for each in findings
    ]
    return json.dumps({"checks": shown, "result": worst}, indent=2)


def _lines(findings: Sequence[Finding]) -> str:
    """A line each, what mends it on an indented second one, and the counts at the end."""
    width = max(len(each.name) for each in findings)
    lines = []
    for each in findings:
        lines.append(f"{each.result}  {each.name.ljust(width)}  {each.found}")
        if each.mend is not None:
            lines.append(f"      {' ' * width}  -> {each.mend}")
    counts = Counter(each.result for each in findings)
    lines.append(", ".join(f"{counts[result]} {result}" for result in Result))
    return "\n".join(lines)
