"""${message}

Revises: ${down_revision | comma,n}
Created: ${create_date.date()}

Old code runs while this migration does, and for a while after: expand (add what the new code
needs, nullable or with a default), migrate (fill it), contract in a later release.

`make check` refuses what would stop or break it. An index on a table that is there already is made
beside the calls, outside of the transaction, and again from the start where an earlier try failed:

    with op.get_context().autocommit_block():
        op.drop_index("ix_t_c", "t", if_exists=True, postgresql_concurrently=True)
        op.create_index("ix_t_c", "t", ["c"], postgresql_concurrently=True)

It then has a revision of its own, as what came before it is not undone when it fails.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision: str = ${repr(up_revision)}
down_revision: str | None = ${repr(down_revision)}
branch_labels: str | Sequence[str] | None = ${repr(branch_labels)}
depends_on: str | Sequence[str] | None = ${repr(depends_on)}

# Rules of the check that this revision breaks knowingly, each with the reason why that is safe.
accepted_dangers: Sequence[str] = ()


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
