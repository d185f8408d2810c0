"""WRITE: what a batch decided, as arrays, in one statement that takes effect only on the revision that was read."""

import json
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from app.connections import Connection
from app.ledger.book import Book, KeyRow
from app.ledger.known_ledgers import LedgerRef
from app.ledger.values import (
    Account,
    AccountEvent,
    Entry,
    Event,
    Hold,
    HoldLine,
    LedgerEvent,
    PeriodEvent,
    TransactionEvent,
)

# Everything hangs on `head`: if a rival replaced the revision, or the ledger is another one, nothing at all is written.
# Accounts go in whole, each once, opened or moved alike: `on conflict` names its index, so that no plan of it can go
# wrong. So do holds.
_WRITE = """
with head as (
  update heads set sequence = $3, revision = revision + 1, recorded_at = $4, next_expiry = $5::text::timestamptz,
                   closed_before = $6, configured_by = $52, configuration_revision = $53
   where ledger_id = $1 and revision = $2 and identity = $54 returning ledger_id
), new_events as (
  insert into events (ledger_id, sequence, kind, recorded_at, actor, effective_at, postings, reference, "group",
                      description, metadata, account_id, configuration<, subject, expires_at>)
  select $1, u.sequence, u.kind, $4, u.actor, u.effective_at, u.postings, u.reference, u.grp,
         u.description, u.metadata, u.account_id, u.configuration<, u.subject, u.expires_at>
    from unnest($7::bigint[], $8::text[], $9::text[], $10::timestamptz[], $11::text[], $12::text[], $13::text[],
                $14::text[], $15::json[], $16::bigint[], $17::jsonb[]<, $55::bigint[], $56::text[]::timestamptz[]>)
         as u (sequence, kind, actor, effective_at, postings, reference, grp, description, metadata, account_id,
               configuration<, subject, expires_at>)
   where exists (select from head)
), new_entries as (
  insert into entries (ledger_id, account_id, version, sequence, debit, asset, posted, pending, balance,
                       latest_effective)
  select $1, u.*
    from unnest($18::bigint[], $19::bigint[], $20::bigint[], $21::boolean[], $22::text[], $23::text[]::numeric[],
                $24::text[]::numeric[], $25::text[]::numeric[], $26::timestamptz[]) as u
   where exists (select from head)
), new_late_entries as (
  insert into late_entries (ledger_id, account_id, effective_at, version, amount)
  select $1, u.* from unnest($27::bigint[], $28::timestamptz[], $29::bigint[], $30::text[]::numeric[]) as u
   where exists (select from head)
), touched_accounts as (
  insert into accounts (ledger_id, account_id, path, asset, normal_side, status, minimum_balance, maximum_balance,
                        debits_posted, credits_posted, debits_pending, credits_pending, version, revision,
                        configured_by, latest_effective)
  select $1, u.*
    from unnest($31::bigint[], $32::text[], $33::text[], $34::text[], $35::text[], $36::text[]::numeric[],
                $37::text[]::numeric[], $38::text[]::numeric[], $39::text[]::numeric[], $40::text[]::numeric[],
                $41::text[]::numeric[], $42::bigint[], $43::bigint[], $44::bigint[], $45::timestamptz[]) as u
   where exists (select from head)
  on conflict (ledger_id, account_id) do update
     set status = excluded.status, minimum_balance = excluded.minimum_balance,
         maximum_balance = excluded.maximum_balance, debits_posted = excluded.debits_posted,
         credits_posted = excluded.credits_posted, debits_pending = excluded.debits_pending,
         credits_pending = excluded.credits_pending, version = excluded.version, revision = excluded.revision,
         configured_by = excluded.configured_by, latest_effective = excluded.latest_effective
), new_keys as (
  insert into idempotency_keys (ledger_id, key, fingerprint, sequence, refusal, events, refusals)
  select $1, u.*
    from unnest($46::bytea[], $47::bytea[], $48::bigint[], $49::jsonb[], $50::integer[], $51::json[]) as u
   where exists (select from head)
)<, touched_holds as (
  insert into holds (ledger_id, hold, status, expires_at, lines)
  select $1, u.* from unnest($57::bigint[], $58::text[], $59::text[]::timestamptz[], $60::integer[]) as u
   where exists (select from head)
  on conflict (ledger_id, hold) do update set status = excluded.status
), touched_lines as (
  insert into hold_lines (ledger_id, hold, line, debit_id, credit_id, held, captured, released, ended)
  select $1, u.*
    from unnest($61::bigint[], $62::integer[], $63::bigint[], $64::bigint[], $65::text[]::numeric[],
                $66::text[]::numeric[], $67::text[]::numeric[], $68::boolean[]) as u
   where exists (select from head)
  on conflict (ledger_id, hold, line) do update
     set captured = excluded.captured, released = excluded.released, ended = excluded.ended
)>
select 1 from head
"""
# What stands in angle brackets costs a batch without holds and reversals nothing: it goes without.
WRITE = re.sub(r"<, [^>]*>", "", _WRITE)
WRITE_WITH_HOLDS = re.sub(r"<(, [^>]*)>", r"\1", _WRITE)


async def write_book(connection: Connection, ledger: LedgerRef, book: Book, *, now: datetime, timeout_s: float) -> bool:
    """Write what the batch decided, whole. False if the head's revision is no longer the one read, or its identity
    is another: then nothing was written."""
    head = book.head
    late = [entry for entry in book.entries if entry.late_effective is not None]
    arguments = [
        ledger.ledger_id,
        head.revision,
        book.sequence,
        book.recording_time(now) if book.events else head.recorded_at,
        _moment(book.next_expiry),
        book.closed_before,
        *_columns(11, map(_event_row, book.events)),
        *_columns(9, map(_entry_row, book.entries)),
        *_columns(4, ((e.account_id, e.late_effective, e.version, str(e.raised)) for e in late)),
        *_columns(15, map(_account_row, book.moved.values())),
        *_columns(6, map(_key_row, book.new_keys)),
        book.configured_by,
        book.configuration_revision,
        ledger.identity,
    ]
    if book.changed_holds or book.reversed:
        lines = ((hold, line) for hold in book.changed_holds.values() for line in hold.lines)
        arguments += [
            *_columns(2, map(_subject_row, book.events)),
            *_columns(
                4, ((h.hold, h.status, _moment(h.expires_at), len(h.lines)) for h in book.changed_holds.values())
            ),
            *_columns(8, (_line_row(hold, line) for hold, line in lines)),
        ]
        return await connection.fetchval(WRITE_WITH_HOLDS, *arguments, timeout=timeout_s) is not None
    return await connection.fetchval(WRITE, *arguments, timeout=timeout_s) is not None


def _columns(width: int, rows: Iterable[tuple[Any, ...]]) -> list[Any]:
    """Rows turned into one array per column, which may be empty."""
    columns = list(zip(*rows, strict=True))
    return columns or [()] * width


def _event_row(event: Event) -> tuple[Any, ...]:
    described = event.description, json.dumps(event.metadata) if event.metadata else None
    said: tuple[Any, ...]
    configuration: dict[str, Any]
    match event:
        case TransactionEvent():
            postings = ";".join(
                f"{p.debit_id} {p.debit_version} {p.credit_id} {p.credit_version} {p.amount}"
                + ("" if p.hold_posting is None else f" {p.released} {p.hold_posting}")
                for p in event.postings
            )
            effective_at = None if event.effective_at == event.recorded_at else event.effective_at
            said = effective_at, postings, event.reference, event.group, *described, None, None
        case AccountEvent():
            configuration = {
                "path": event.path,
                "asset": event.asset,
                "normal_side": event.normal_side,
                "status": event.status,
                "minimum_balance": _text(event.minimum_balance),
                "maximum_balance": _text(event.maximum_balance),
                "revision": event.revision,
            }
            said = None, None, None, None, *described, event.account_id, json.dumps(configuration)
        case LedgerEvent():
            configuration = {"name": event.name, "revision": event.revision}
            said = None, None, None, None, *described, None, json.dumps(configuration)
        case PeriodEvent():
            configuration = {"closed_before": event.closed_before.isoformat() if event.closed_before else None}
            said = None, None, None, None, *described, None, json.dumps(configuration)
    return event.sequence, event.kind, event.actor, *said


def _subject_row(event: Event) -> tuple[Any, ...]:
    if not isinstance(event, TransactionEvent):
        return None, None
    return event.hold or event.reverses, _moment(event.expires_at)


def _moment(moment: datetime | None) -> str | None:
    """As text, since the driver takes the last instant of the calendar for infinity, which it reads back without a
    time zone. A hold may expire at any instant."""
    return None if moment is None else moment.isoformat()


def _line_row(hold: Hold, line: HoldLine) -> tuple[Any, ...]:
    amounts = str(line.held), str(line.captured), str(line.released)
    return hold.hold, line.posting, line.debit_id, line.credit_id, *amounts, hold.status != "pending"


def _entry_row(entry: Entry) -> tuple[Any, ...]:
    return (
        entry.account_id,
        entry.version,
        entry.sequence,
        entry.side == "debit",
        entry.asset,
        str(entry.posted),
        str(entry.pending),
        str(entry.balance),
        entry.latest_effective,
    )


def _account_row(account: Account) -> tuple[Any, ...]:
    return (
        account.account_id,
        account.path,
        account.asset,
        account.normal_side,
        account.status,
        _text(account.minimum_balance),
        _text(account.maximum_balance),
        str(account.debits_posted),
        str(account.credits_posted),
        str(account.debits_pending),
        str(account.credits_pending),
        account.version,
        account.revision,
        account.configured_by,
        account.latest_effective,
    )


def _key_row(row: KeyRow) -> tuple[Any, ...]:
    frozen = (None if said is None else json.dumps(said) for said in (row.refusal, row.refusals))
    refusal, refusals = frozen
    return row.key, row.fingerprint, row.sequence, refusal, row.events, refusals


def _text(amount: int | None) -> str | None:
    return None if amount is None else str(amount)
