"""First light: the directory, the log, its entries, the accounts, the keys, and the triggers that guard them.

Each trigger reads only its transition tables, so that the tables can be distributed by ledger_id; TRUNCATE has
triggers of its own, because a trigger that names it as well is not carried to the shards.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: None = None
depends_on: None = None

NAME = sa.Text(collation="C")
AMOUNT = sa.Numeric(38, 0)
INSTANT = sa.DateTime(timezone=True)

AVAILABLE = (
    "case normal_side when 'debit' then debits_posted - credits_posted - credits_pending "
    "else credits_posted - debits_posted - debits_pending end"
)
EXPECTED = (
    "case normal_side when 'debit' then debits_posted - credits_posted + debits_pending "
    "else credits_posted - debits_posted + credits_pending end"
)

APPEND_ONLY = ("events", "entries", "late_entries", "idempotency_keys", "ledgers")
NEVER_DELETED = ("accounts", "heads")

REFUSE_CHANGE = """
create function refuse_change() returns trigger language plpgsql as $$
begin
  raise exception 'append_only: % on % is forbidden: what is recorded stays', tg_op, tg_table_name
    using errcode = 'restrict_violation', constraint = 'append_only';
end $$
"""

# What moves an amount gives it to one side and takes it from the other, in each column, within each asset.
CHECK_ZERO_SUM = """
create function check_zero_sum() returns trigger language plpgsql as $$
begin
  if exists (select from added group by ledger_id, sequence, asset
             having sum(case when debit then posted else -posted end) <> 0
                 or sum(case when debit then pending else -pending end) <> 0) then
    raise exception 'entries_zero_sum: the entries of an event do not sum to zero'
      using errcode = 'check_violation', constraint = 'entries_zero_sum';
  end if;
  return null;
end $$
"""

# The events that one statement adds follow one another without a gap, and their time never falls.
CHECK_GAPLESS = """
create function check_gapless() returns trigger language plpgsql as $$
begin
  if exists (select from added group by ledger_id having max(sequence) - min(sequence) + 1 <> count(*)) then
    raise exception 'events_gapless: the sequence of a log has no gaps'
      using errcode = 'check_violation', constraint = 'events_gapless';
  end if;
  return null;
end $$
"""

# Called by triggers whose condition says what is forbidden, and whose name says which rule that is.
REFUSE_ROW = """
create function refuse_row() returns trigger language plpgsql as $$
begin
  raise exception '%: % on % is forbidden', tg_name, tg_op, tg_table_name
    using errcode = 'check_violation', constraint = tg_name;
end $$
"""

# A head moves forward only, and each batch replaces its revision by the next one. What an account is never changes,
# and what was posted to it is never taken back. Conditions on the row cost next to nothing: a join of transition
# tables would be a nested loop under the writer's settings.
BACKWARD = {
    "heads": (
        "new.ledger_id <> old.ledger_id or new.revision <> old.revision + 1 or new.sequence < old.sequence "
        "or new.recorded_at < old.recorded_at"
    ),
    "accounts": (
        "new.ledger_id <> old.ledger_id or new.account_id <> old.account_id or new.path <> old.path "
        "or new.asset <> old.asset or new.normal_side <> old.normal_side or new.version < old.version "
        "or new.revision < old.revision or new.latest_effective < old.latest_effective "
        "or new.debits_posted < old.debits_posted or new.credits_posted < old.credits_posted"
    ),
}


def upgrade() -> None:
    op.create_table(
        "ledgers",
        sa.Column("ledger_id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", name="ledgers_pkey"),
        sa.UniqueConstraint("name", name="ledgers_name_key"),
    )
    op.create_table(
        "heads",
        sa.Column("ledger_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.Column("next_expiry", INSTANT),
        sa.Column("closed_before", INSTANT),
        sa.PrimaryKeyConstraint("ledger_id", name="heads_pkey"),
        sa.CheckConstraint("sequence >= 0 and revision >= 0", name="heads_counters_check"),
        postgresql_with={"fillfactor": 10},
    )
    op.create_table(
        "events",
        sa.Column("ledger_id", sa.Integer(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("kind", NAME, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("effective_at", INSTANT),
        sa.Column("postings", sa.Text()),
        sa.Column("reference", NAME),
        sa.Column("group", NAME),
        sa.Column("description", sa.Text()),
        sa.Column("metadata", sa.JSON()),
        sa.Column("account_id", sa.BigInteger()),
        sa.Column("configuration", postgresql.JSONB()),
        sa.Column("subject", sa.BigInteger()),
        sa.Column("expires_at", INSTANT),
        sa.PrimaryKeyConstraint("ledger_id", "sequence", name="events_pkey"),
    )
    op.create_index(
        "events_reference_key",
        "events",
        ["ledger_id", "reference"],
        unique=True,
        postgresql_where=sa.text("reference is not null"),
    )
    op.create_table(
        "entries",
        sa.Column("ledger_id", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("debit", sa.Boolean(), nullable=False),
        sa.Column("asset", NAME, nullable=False),
        sa.Column("posted", AMOUNT, nullable=False),
        sa.Column("pending", AMOUNT, nullable=False),
        sa.Column("balance", AMOUNT, nullable=False),
        sa.Column("latest_effective", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "account_id", "version", name="entries_pkey"),
        sa.CheckConstraint("posted >= 0", name="entries_posted_check"),
    )
    op.create_table(
        "late_entries",
        sa.Column("ledger_id", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("effective_at", INSTANT, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("amount", AMOUNT, nullable=False),
    )
    op.create_index(
        "late_entries_key",
        "late_entries",
        ["ledger_id", "account_id", "effective_at", "version"],
        unique=True,
        postgresql_include=["amount"],
    )
    op.create_table(
        "accounts",
        sa.Column("ledger_id", sa.Integer(), nullable=False),
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("path", NAME, nullable=False),
        sa.Column("asset", NAME, nullable=False),
        sa.Column("normal_side", NAME, nullable=False),
        sa.Column("status", NAME, nullable=False),
        sa.Column("minimum_balance", AMOUNT),
        sa.Column("maximum_balance", AMOUNT),
        sa.Column("debits_posted", AMOUNT, nullable=False),
        sa.Column("credits_posted", AMOUNT, nullable=False),
        sa.Column("debits_pending", AMOUNT, nullable=False),
        sa.Column("credits_pending", AMOUNT, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("configured_by", sa.BigInteger(), nullable=False),
        sa.Column("latest_effective", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("ledger_id", "account_id", name="accounts_pkey"),
        sa.CheckConstraint("normal_side in ('debit', 'credit')", name="accounts_normal_side_check"),
        sa.CheckConstraint("status in ('open', 'frozen', 'closed')", name="accounts_status_check"),
        sa.CheckConstraint(f"minimum_balance is null or {AVAILABLE} >= minimum_balance", name="accounts_minimum_check"),
        sa.CheckConstraint(f"maximum_balance is null or {EXPECTED} <= maximum_balance", name="accounts_maximum_check"),
        sa.CheckConstraint(
            "least(debits_posted, credits_posted, debits_pending, credits_pending) >= 0",
            name="accounts_counters_check",
        ),
        sa.CheckConstraint(
            "greatest(debits_posted + debits_pending, credits_posted + credits_pending) < 1e38",
            name="accounts_overflow_check",
        ),
        postgresql_with={"fillfactor": 70},
    )
    op.create_index(
        "accounts_path_key",
        "accounts",
        ["ledger_id", "path"],
        unique=True,
        postgresql_where=sa.text("path is not null"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("ledger_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("refusal", postgresql.JSONB()),
        sa.PrimaryKeyConstraint("ledger_id", "key", name="idempotency_keys_pkey"),
    )
    _guard()


def _guard() -> None:
    for function in (REFUSE_CHANGE, CHECK_ZERO_SUM, CHECK_GAPLESS, REFUSE_ROW):
        op.execute(function)
    for table, changes in (
        *((table, "update or delete") for table in APPEND_ONLY),
        *((table, "delete") for table in NEVER_DELETED),
    ):
        for name, when in (("append_only", changes), ("kept", "truncate")):
            op.execute(
                f"create trigger {table}_{name} before {when} on {table} "
                "for each statement execute function refuse_change()"
            )
            # Even a session that plays a replica, whose triggers sleep, changes nothing.
            op.execute(f"alter table {table} enable always trigger {table}_{name}")
    op.execute(
        "create trigger entries_zero_sum after insert on entries referencing new table as added "
        "for each statement execute function check_zero_sum()"
    )
    op.execute(
        "create trigger events_gapless after insert on events referencing new table as added "
        "for each statement execute function check_gapless()"
    )
    for table, backward in BACKWARD.items():
        op.execute(
            f"create trigger {table}_forward before update on {table} for each row when ({backward}) "
            "execute function refuse_row()"
        )
