"""Indexes to find transactions by group and effective time, and accounts by asset and status.

All are partial, by a condition that only the queries they are made for imply: the writer's look-ups can never be
planned over them (docs/decisions/0005-indexes-for-finding.md).
"""

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: None = None
depends_on: None = None

INDEXES = (
    ("events_group_idx", "events", ["ledger_id", "group", "sequence"], '"group" is not null'),
    ("events_effective_idx", "events", ["ledger_id", "effective_at", "sequence"], "effective_at is not null"),
    ("accounts_asset_idx", "accounts", ["ledger_id", "asset", "path"], "asset is not null"),
    ("accounts_status_idx", "accounts", ["ledger_id", "status", "path"], "status is not null"),
)


def upgrade() -> None:
    for name, table, columns, where in INDEXES:
        op.create_index(name, table, columns, postgresql_where=sa.text(where))
