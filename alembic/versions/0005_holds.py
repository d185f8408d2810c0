"""Holds: what has become of each and of each of its postings, when the next one expires, and reversals, once each."""

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: None = None
depends_on: None = None

NAME = sa.Text(collation="C")
AMOUNT = sa.Numeric(38, 0)
INSTANT = sa.DateTime(timezone=True)

# An ended hold stays as it ended; what was captured or released is never taken back.
BACKWARD = {
    "holds": (
        "new.ledger_id <> old.ledger_id or new.hold <> old.hold or old.status <> 'pending' "
        "or new.expires_at is distinct from old.expires_at or new.lines <> old.lines"
    ),
    "hold_lines": (
        "new.ledger_id <> old.ledger_id or new.hold <> old.hold or new.line <> old.line "
        "or new.debit_id <> old.debit_id or new.credit_id <> old.credit_id or new.held <> old.held "
        "or new.captured < old.captured or new.released < old.released or old.ended"
    ),
}
# As in 0003, and nothing is held of an account that is not open. What is held of it already may still be released.
POSTED_WHILE_SHUT = (
    "new.revision = old.revision and old.status <> 'open' "
    "and (new.debits_posted <> old.debits_posted or new.credits_posted <> old.credits_posted "
    "or new.debits_pending > old.debits_pending or new.credits_pending > old.credits_pending)"
)
STATUS_WITHOUT_REVISION = "new.revision = old.revision and new.status <> old.status"


def upgrade() -> None:
    op.create_table(
        "holds",
        sa.Column("ledger_id", sa.Integer(), nullable=False),
        sa.Column("hold", sa.BigInteger(), nullable=False),
        sa.Column("status", NAME, nullable=False),
        sa.Column("expires_at", INSTANT),
        sa.Column("lines", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "hold", name="holds_pkey"),
        sa.CheckConstraint("status in ('pending', 'captured', 'voided', 'expired')", name="holds_status_check"),
    )
    op.create_table(
        "hold_lines",
        sa.Column("ledger_id", sa.Integer(), nullable=False),
        sa.Column("hold", sa.BigInteger(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("debit_id", sa.BigInteger(), nullable=False),
        sa.Column("credit_id", sa.BigInteger(), nullable=False),
        sa.Column("held", AMOUNT, nullable=False),
        sa.Column("captured", AMOUNT, nullable=False),
        sa.Column("released", AMOUNT, nullable=False),
        sa.Column("ended", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "hold", "line", name="hold_lines_pkey"),
        sa.CheckConstraint(
            "held > 0 and captured >= 0 and released >= 0 and captured + released <= held",
            name="hold_lines_held_check",
        ),
        sa.CheckConstraint("not ended or captured + released = held", name="hold_lines_ended_check"),
    )
    for name, table, columns, where in (
        (
            "holds_expiry_idx",
            "holds",
            ["ledger_id", "expires_at", "hold"],
            "status = 'pending' and expires_at is not null",
        ),
        ("hold_lines_debit_idx", "hold_lines", ["ledger_id", "debit_id", "hold"], "captured + released < held"),
        ("hold_lines_credit_idx", "hold_lines", ["ledger_id", "credit_id", "hold"], "captured + released < held"),
        ("heads_expiry_idx", "heads", ["next_expiry"], "next_expiry is not null"),
    ):
        op.create_index(name, table, columns, postgresql_where=sa.text(where))
    op.create_index(
        "events_reversal_key",
        "events",
        ["ledger_id", "subject"],
        unique=True,
        postgresql_where=sa.text("kind = 'transaction_reversed'"),
    )
    _guard()


def _guard() -> None:
    for table, backward in BACKWARD.items():
        for name, when in (("append_only", "delete"), ("kept", "truncate")):
            op.execute(
                f"create trigger {table}_{name} before {when} on {table} "
                "for each statement execute function refuse_change()"
            )
            op.execute(f"alter table {table} enable always trigger {table}_{name}")
        op.execute(
            f"create trigger {table}_forward before update on {table} for each row when ({backward}) "
            "execute function refuse_row()"
        )
    op.execute("drop trigger accounts_shut on accounts")
    op.execute(
        "create trigger accounts_shut before update on accounts for each row "
        f"when (({POSTED_WHILE_SHUT}) or ({STATUS_WITHOUT_REVISION})) execute function refuse_row()"
    )
