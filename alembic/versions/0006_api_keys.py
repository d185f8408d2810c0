"""The keys that the operator makes. Of no ledger, so on Citus a reference table, as the directory of ledgers is."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: None = None
depends_on: None = None

INSTANT = sa.DateTime(timezone=True)

# A key is what it was made as, until it is revoked, and then for ever.
KEPT = "name, label, secret_digest, operations, ledgers, account_prefix, amount_max, created_at, created_by, expires_at"
CHANGED = (
    f"({', '.join(f'new.{name}' for name in KEPT.split(', '))}) is distinct from "
    f"({', '.join(f'old.{name}' for name in KEPT.split(', '))}) "
    "or old.revoked_at is not null or new.revoked_at is null or new.revision <= old.revision"
)


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("name", sa.Text(collation="C"), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("secret_digest", sa.LargeBinary(), nullable=False),
        sa.Column("operations", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("ledgers", postgresql.ARRAY(sa.Text())),
        sa.Column("account_prefix", sa.Text()),
        sa.Column("amount_max", sa.Numeric(38, 0)),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_at", INSTANT),
        sa.Column("revoked_at", INSTANT),
        sa.Column("revoked_by", sa.Text()),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="api_keys_pkey"),
        sa.UniqueConstraint("secret_digest", name="api_keys_secret_digest_key"),
        sa.UniqueConstraint("revision", name="api_keys_revision_key"),
        sa.CheckConstraint("octet_length(secret_digest) = 32", name="api_keys_secret_digest_check"),
        sa.CheckConstraint("label not in ('system', 'operator')", name="api_keys_label_check"),
        sa.CheckConstraint(
            "cardinality(operations) > 0 and operations <@ array['read', 'post', 'hold', 'admin']",
            name="api_keys_operations_check",
        ),
        sa.CheckConstraint("amount_max > 0", name="api_keys_amount_max_check"),
        sa.CheckConstraint("(revoked_at is null) = (revoked_by is null)", name="api_keys_revoked_check"),
    )
    for name, when in (("append_only", "delete"), ("kept", "truncate")):
        op.execute(
            f"create trigger api_keys_{name} before {when} on api_keys "
            "for each statement execute function refuse_change()"
        )
        op.execute(f"alter table api_keys enable always trigger api_keys_{name}")
    op.execute(
        f"create trigger api_keys_forward before update on api_keys for each row when ({CHANGED}) "
        "execute function refuse_row()"
    )
