"""Configurations that change: where a ledger's is found, and what a closed or frozen account refuses."""

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: None = None
depends_on: None = None

# An account's status stays the same while its revision does. So what is posted to it meanwhile was posted to it
# at that status; and a batch that opens, posts and freezes again has moved the revision.
POSTED_WHILE_SHUT = (
    "new.revision = old.revision and old.status <> 'open' "
    "and (new.debits_posted <> old.debits_posted or new.credits_posted <> old.credits_posted)"
)
STATUS_WITHOUT_REVISION = "new.revision = old.revision and new.status <> old.status"
CONFIGURED_BACKWARD = (
    "new.configured_by < old.configured_by or new.configuration_revision < old.configuration_revision "
    "or (new.configured_by = old.configured_by) <> (new.configuration_revision = old.configuration_revision)"
)


def upgrade() -> None:
    # Constant defaults: no table is rewritten, and a writer of the version before goes on beside this one.
    for name in ("configured_by", "configuration_revision"):
        op.add_column("heads", sa.Column(name, sa.BigInteger(), server_default=sa.text("1"), nullable=False))
    op.create_check_constraint(
        "accounts_closed_check",
        "accounts",
        "status <> 'closed' or (debits_posted = credits_posted and debits_pending = 0 and credits_pending = 0)",
    )
    for name, table, forbidden in (
        ("accounts_shut", "accounts", f"({POSTED_WHILE_SHUT}) or ({STATUS_WITHOUT_REVISION})"),
        ("heads_configured", "heads", CONFIGURED_BACKWARD),
    ):
        op.execute(
            f"create trigger {name} before update on {table} for each row when ({forbidden}) "
            "execute function refuse_row()"
        )
