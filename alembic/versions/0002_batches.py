"""Batches: a key may stand for several events, and for what refused the other transactions of its batch."""

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: None = None
depends_on: None = None


def upgrade() -> None:
    op.add_column("idempotency_keys", sa.Column("events", sa.Integer()))
    op.add_column("idempotency_keys", sa.Column("refusals", sa.JSON()))
