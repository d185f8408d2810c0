"""A ledger's identity: random, so that no other ledger has it, whatever becomes of ids when a backup is restored."""

from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: None = None
depends_on: None = None

# As in 0001, and an identity never changes.
BACKWARD = (
    "new.ledger_id <> old.ledger_id or new.revision <> old.revision + 1 or new.sequence < old.sequence "
    "or new.recorded_at < old.recorded_at or new.identity <> old.identity"
)


def upgrade() -> None:
    # Not added with its default at once, which is volatile and would rewrite the table: to a snapshot from before, a
    # table that was rewritten is empty, so reads that wait here would find no ledger. An update leaves them their rows.
    op.add_column("heads", sa.Column("identity", sa.Uuid()))
    # A process of the version before adds heads without naming it.
    op.alter_column("heads", "identity", server_default=sa.text("gen_random_uuid()"))
    op.execute("drop trigger heads_forward on heads")
    # Hashed from one random seed: on Citus an update may not call a volatile function.
    seeded = sa.text("update heads set identity = md5(:seed || ledger_id)::uuid where identity is null")
    op.execute(seeded.bindparams(seed=str(uuid4())))
    op.alter_column("heads", "identity", nullable=False)
    op.execute(
        f"create trigger heads_forward before update on heads for each row when ({BACKWARD}) "
        "execute function refuse_row()"
    )
