"""Whether the schema is that of this release."""

from identity.database import REVISIONS, behind
from identity.doctor.finding import Finding, failed, foreign, passed, warned

_NAME = "database.schema"


def schema(revision: str | None) -> Finding:
    """`revision` is the one that the database is at; None for an empty database."""
    if behind(revision):
        found = f"at revision {revision or 'none'}, this release needs {REVISIONS[-1]}"
        return failed(_NAME, found, "run `identity migrate`")
    if revision != REVISIONS[-1]:
        # Not one of ours: whatever text stands there.
        found = f"at revision {foreign(str(revision))}, this release knows {REVISIONS[-1]}"
        return warned(_NAME, found, "bring this process to the newer release soon")
    return passed(_NAME, f"at revision {revision}")
