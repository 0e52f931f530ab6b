"""Looks at each revision for what would stop the service while it migrates, or break old code.

The SQL that a revision runs on PostgreSQL is judged by squawk. A revision that knows what it does,
such as one that drops what no release in use reads any more, names the rules in `accepted_dangers`.
"""

import subprocess
import sys
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory

VERSIONS: Final = Path(__file__).parent.parent / "migrations"
SQUAWK: Final = Path(sys.executable).parent / "squawk"

# Rules of taste, not of safety; and time-outs, which `identity migrate` sets.
NOT_OURS: Final = (
    "prefer-bigint-over-int",
    "prefer-bigint-over-smallint",
    "prefer-identity",
    "prefer-robust-stmts",
    "prefer-text-field",
    "require-lock-timeout",
    "require-statement-timeout",
)


def main(arguments: Sequence[str]) -> int:
    """Checks all revisions of a folder of migrations; ours if none is given."""
    folder = Path(arguments[0]) if arguments else VERSIONS
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    revisions = list(ScriptDirectory.from_config(config).walk_revisions())
    dangerous = [script.revision for script in revisions[::-1] if not _is_safe(config, script)]
    if dangerous:
        print(
            f"dangerous while old code runs: {', '.join(dangerous)}\n"
            "migrations/script.py.mako says how it is done instead",
            file=sys.stderr,
        )
    return int(bool(dangerous))


def _is_safe(config: Config, script: Script) -> bool:
    config.output_buffer = StringIO()
    command.upgrade(config, f"{script.down_revision or 'base'}:{script.revision}", sql=True)
    accepted = getattr(script.module, "accepted_dangers", ())
    judged = subprocess.run(  # noqa: S603 - our own program and our own files
        [
            SQUAWK,
            "--reporter=gcc",
            f"--exclude={','.join((*NOT_OURS, *accepted))}",
            f"--stdin-filepath={script.revision}",
        ],
        input=config.output_buffer.getvalue(),
        stdout=sys.stderr,
        text=True,
        check=False,
    )
    return judged.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
