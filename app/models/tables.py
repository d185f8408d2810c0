"""The tables. `ledger_id` leads every key, so that they distribute by it; the triggers are in the migrations.

There are no foreign keys between them: one writer per ledger guarantees what they would check, and they cost a
post more than everything else here together (docs/decisions/0002-row-shapes.md).
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    DateTime,
    Dialect,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    cast,
    text,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.types import TypeDecorator


class _Digits(TypeDecorator[int]):
    """Text that holds a whole number."""

    impl = Text
    cache_ok = True

    def process_result_value(self, value: str | None, dialect: Dialect) -> int | None:
        return None if value is None else int(value)


class Amount(TypeDecorator[int]):
    """NUMERIC(38,0), read as text and so as an int: no Decimal ever touches an amount."""

    impl = Numeric(38, 0)
    cache_ok = True

    def column_expression(self, column: ColumnElement[int]) -> ColumnElement[int]:
        return type_coerce(cast(column, Text), _Digits)


metadata = MetaData()
_name = Text(collation="C")
_instant = DateTime(timezone=True)
# What is recorded never changes: a vacuum that meets it freezes it at once, and none has to come back for it.
_RECORDED = {"autovacuum_freeze_min_age": 0}

# The directory of ledgers. A row without a head that has come to event 1 is a ledger that nobody created yet.
ledgers = Table(
    "ledgers",
    metadata,
    Column("ledger_id", Integer, Identity(), nullable=False),
    Column("name", _name, nullable=False),
    PrimaryKeyConstraint("ledger_id", name="ledgers_pkey"),
    UniqueConstraint("name", name="ledgers_name_key"),
)

# Where each log stands. Most of every page stays free, so that the row is replaced within its page.
heads = Table(
    "heads",
    metadata,
    Column("ledger_id", Integer, nullable=False, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("recorded_at", _instant, nullable=False),
    Column("next_expiry", _instant),
    Column("closed_before", _instant),
    # The event that says the ledger's configuration in force, and the revision of that.
    Column("configured_by", BigInteger, nullable=False, server_default=text("1")),
    Column("configuration_revision", BigInteger, nullable=False, server_default=text("1")),
    # Random, and never changed: after a backup was restored an id may be another ledger's, an identity never is.
    Column("identity", Uuid(as_uuid=False), nullable=False, server_default=text("gen_random_uuid()")),
    PrimaryKeyConstraint("ledger_id", name="heads_pkey"),
    CheckConstraint("sequence >= 0 and revision >= 0", name="heads_counters_check"),
    # For whoever looks where holds are due. It moves only with `next_expiry`, so most batches still replace the row
    # within its page.
    Index("heads_expiry_idx", "next_expiry", postgresql_where=text("next_expiry is not null")),
    postgresql_with={"fillfactor": 10},
)

# The log. `effective_at` is null where it equals `recorded_at`. `postings` is compact text, one posting being
# 'debit_id debit_version credit_id credit_version amount', joined by ';': it finds its entries by their key. Where a
# hold is captured, voided or expired, 'released' and the number of the hold's posting follow.
events = Table(
    "events",
    metadata,
    Column("ledger_id", Integer, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("kind", _name, nullable=False),
    Column("recorded_at", _instant, nullable=False),
    Column("actor", Text, nullable=False),
    Column("effective_at", _instant),
    Column("postings", Text),
    Column("reference", _name),
    Column("group", _name),
    Column("description", Text),
    # As it was said: jsonb would put the names into an order of its own, and a replay answers byte for byte.
    Column("metadata", JSON),
    Column("account_id", BigInteger),
    Column("configuration", JSONB),
    # The hold that an event captures, voids or expires, or the transaction that it reverses.
    Column("subject", BigInteger),
    Column("expires_at", _instant),
    PrimaryKeyConstraint("ledger_id", "sequence", name="events_pkey"),
    # What is reversed is reversed once.
    Index(
        "events_reversal_key",
        "ledger_id",
        "subject",
        unique=True,
        postgresql_where=text("kind = 'transaction_reversed'"),
    ),
    Index(
        "events_reference_key",
        "ledger_id",
        "reference",
        unique=True,
        postgresql_where=text("reference is not null"),
    ),
    Index("events_group_idx", "ledger_id", "group", "sequence", postgresql_where=text('"group" is not null')),
    Index(
        "events_effective_idx",
        "ledger_id",
        "effective_at",
        "sequence",
        postgresql_where=text("effective_at is not null"),
    ),
    postgresql_with=_RECORDED,
)

# What each posting adds to one side of one account. An on-time entry's effective time is `latest_effective`.
entries = Table(
    "entries",
    metadata,
    Column("ledger_id", Integer, nullable=False),
    Column("account_id", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("debit", Boolean, nullable=False),
    Column("asset", _name, nullable=False),
    Column("posted", Amount, nullable=False),
    Column("pending", Amount, nullable=False),
    Column("balance", Amount, nullable=False),
    Column("latest_effective", _instant, nullable=False),
    PrimaryKeyConstraint("ledger_id", "account_id", "version", name="entries_pkey"),
    CheckConstraint("posted >= 0", name="entries_posted_check"),
    postgresql_with=_RECORDED,
)

# A row beside each late entry, for balances in the past.
late_entries = Table(
    "late_entries",
    metadata,
    Column("ledger_id", Integer, nullable=False),
    Column("account_id", BigInteger, nullable=False),
    Column("effective_at", _instant, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("amount", Amount, nullable=False),
    # No primary key: this index is one that also holds the amount, so that a sum reads the index alone.
    Index(
        "late_entries_key",
        "ledger_id",
        "account_id",
        "effective_at",
        "version",
        unique=True,
        postgresql_include=["amount"],
    ),
    postgresql_with=_RECORDED,
)

_AVAILABLE = (
    "case normal_side when 'debit' then debits_posted - credits_posted - credits_pending "
    "else credits_posted - debits_posted - debits_pending end"
)
_EXPECTED = (
    "case normal_side when 'debit' then debits_posted - credits_posted + debits_pending "
    "else credits_posted - debits_posted + credits_pending end"
)

# What has become of a hold, beside the event that recorded it. `lines` is how many postings it has.
holds = Table(
    "holds",
    metadata,
    Column("ledger_id", Integer, nullable=False),
    Column("hold", BigInteger, nullable=False),
    Column("status", _name, nullable=False),
    Column("expires_at", _instant),
    Column("lines", Integer, nullable=False),
    PrimaryKeyConstraint("ledger_id", "hold", name="holds_pkey"),
    CheckConstraint("status in ('pending', 'captured', 'voided', 'expired')", name="holds_status_check"),
    # Those that expire, in the order in which they do.
    Index(
        "holds_expiry_idx",
        "ledger_id",
        "expires_at",
        "hold",
        postgresql_where=text("status = 'pending' and expires_at is not null"),
    ),
)

_LIVE = "captured + released < held"
hold_lines = Table(
    "hold_lines",
    metadata,
    Column("ledger_id", Integer, nullable=False),
    Column("hold", BigInteger, nullable=False),
    Column("line", Integer, nullable=False),
    Column("debit_id", BigInteger, nullable=False),
    Column("credit_id", BigInteger, nullable=False),
    Column("held", Amount, nullable=False),
    Column("captured", Amount, nullable=False),
    Column("released", Amount, nullable=False),
    Column("ended", Boolean, nullable=False),
    PrimaryKeyConstraint("ledger_id", "hold", "line", name="hold_lines_pkey"),
    CheckConstraint(
        "held > 0 and captured >= 0 and released >= 0 and captured + released <= held", name="hold_lines_held_check"
    ),
    CheckConstraint("not ended or captured + released = held", name="hold_lines_ended_check"),
    # The live holds of an account.
    Index("hold_lines_debit_idx", "ledger_id", "debit_id", "hold", postgresql_where=text(_LIVE)),
    Index("hold_lines_credit_idx", "ledger_id", "credit_id", "hold", postgresql_where=text(_LIVE)),
)

# What the writer needs of an account. What is only shown stands in the event `configured_by`.
accounts = Table(
    "accounts",
    metadata,
    Column("ledger_id", Integer, nullable=False),
    Column("account_id", BigInteger, nullable=False),
    Column("path", _name, nullable=False),
    Column("asset", _name, nullable=False),
    Column("normal_side", _name, nullable=False),
    Column("status", _name, nullable=False),
    Column("minimum_balance", Amount),
    Column("maximum_balance", Amount),
    Column("debits_posted", Amount, nullable=False),
    Column("credits_posted", Amount, nullable=False),
    Column("debits_pending", Amount, nullable=False),
    Column("credits_pending", Amount, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("configured_by", BigInteger, nullable=False),
    Column("latest_effective", _instant, nullable=False),
    PrimaryKeyConstraint("ledger_id", "account_id", name="accounts_pkey"),
    # Partial, so that the writer's look-up by id can never be planned over it.
    Index("accounts_path_key", "ledger_id", "path", unique=True, postgresql_where=text("path is not null")),
    Index("accounts_asset_idx", "ledger_id", "asset", "path", postgresql_where=text("asset is not null")),
    Index("accounts_status_idx", "ledger_id", "status", "path", postgresql_where=text("status is not null")),
    CheckConstraint("normal_side in ('debit', 'credit')", name="accounts_normal_side_check"),
    CheckConstraint("status in ('open', 'frozen', 'closed')", name="accounts_status_check"),
    CheckConstraint(f"minimum_balance is null or {_AVAILABLE} >= minimum_balance", name="accounts_minimum_check"),
    CheckConstraint(f"maximum_balance is null or {_EXPECTED} <= maximum_balance", name="accounts_maximum_check"),
    CheckConstraint(
        "least(debits_posted, credits_posted, debits_pending, credits_pending) >= 0",
        name="accounts_counters_check",
    ),
    CheckConstraint(
        "greatest(debits_posted + debits_pending, credits_posted + credits_pending) < 1e38",
        name="accounts_overflow_check",
    ),
    CheckConstraint(
        "status <> 'closed' or (debits_posted = credits_posted and debits_pending = 0 and credits_pending = 0)",
        name="accounts_closed_check",
    ),
    postgresql_with={"fillfactor": 70},
)

# One row per key: its effect's sequence, or a refusal and the last event that it was decided after.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("ledger_id", Integer, nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("refusal", JSONB),
    # Of a batch: how many events from `sequence` on are its effect, and what refused its other transactions, by place.
    Column("events", Integer),
    Column("refusals", JSON),
    PrimaryKeyConstraint("ledger_id", "key", name="idempotency_keys_pkey"),
    postgresql_with=_RECORDED,
)

# The keys that the operator made, of no ledger (on Citus they stay on the coordinator). Of a secret only its SHA-256 is
# kept. A row changes once, when its key is revoked; `revision` is the place of its last change among all.
api_keys = Table(
    "api_keys",
    metadata,
    Column("name", _name, nullable=False),
    Column("label", Text, nullable=False),
    Column("secret_digest", LargeBinary, nullable=False),
    Column("operations", ARRAY(Text), nullable=False),
    Column("ledgers", ARRAY(Text)),
    Column("account_prefix", Text),
    Column("amount_max", Amount),
    Column("created_at", _instant, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires_at", _instant),
    Column("revoked_at", _instant),
    Column("revoked_by", Text),
    Column("revision", BigInteger, nullable=False),
    PrimaryKeyConstraint("name", name="api_keys_pkey"),
    UniqueConstraint("secret_digest", name="api_keys_secret_digest_key"),
    UniqueConstraint("revision", name="api_keys_revision_key"),
    CheckConstraint("octet_length(secret_digest) = 32", name="api_keys_secret_digest_check"),
    CheckConstraint("label not in ('system', 'operator')", name="api_keys_label_check"),
    CheckConstraint(
        "cardinality(operations) > 0 and operations <@ array['read', 'post', 'hold', 'admin']",
        name="api_keys_operations_check",
    ),
    CheckConstraint("amount_max > 0", name="api_keys_amount_max_check"),
    CheckConstraint("(revoked_at is null) = (revoked_by is null)", name="api_keys_revoked_check"),
)
