"""What is recorded never changes, so a vacuum that meets it freezes it at once: there will be no better time."""

from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: None = None
depends_on: None = None

RECORDED = ("events", "entries", "late_entries", "idempotency_keys")


def upgrade() -> None:
    for table in RECORDED:
        op.execute(f"alter table {table} set (autovacuum_freeze_min_age = 0)")
