"""Where the head of a ledger stands, and whether what guards the rows stands."""

from typing import Any

from sqlalchemy import Row, text

from app.ledger.verification.checks import Findings
from app.ledger.verification.rows import Rows

# What guards the rows, and how it has to be switched: always, or unless a session plays a replica.
TRIGGERS = {
    **{(table, f"{table}_append_only"): "A" for table in ("events", "entries", "late_entries")},
    **{(table, f"{table}_append_only"): "A" for table in ("idempotency_keys", "ledgers", "accounts", "heads")},
    **{(table, f"{table}_append_only"): "A" for table in ("holds", "hold_lines")},
    **{(table, f"{table}_kept"): "A" for table in ("events", "entries", "late_entries", "idempotency_keys")},
    **{(table, f"{table}_kept"): "A" for table in ("ledgers", "accounts", "heads", "holds", "hold_lines")},
    **{("api_keys", f"api_keys_{name}"): "A" for name in ("append_only", "kept")},
    ("api_keys", "api_keys_forward"): "O",
    ("entries", "entries_zero_sum"): "O",
    ("events", "events_gapless"): "O",
    ("heads", "heads_forward"): "O",
    ("heads", "heads_configured"): "O",
    ("accounts", "accounts_forward"): "O",
    ("accounts", "accounts_shut"): "O",
    ("holds", "holds_forward"): "O",
    ("hold_lines", "hold_lines_forward"): "O",
}

# The head with the last event, and the hold that expires first: one statement, so one snapshot.
HEAD = text("""
select h.sequence, h.recorded_at, h.closed_before, h.next_expiry,
       l.sequence as last_sequence, l.recorded_at as last_recorded_at, x.hold as first_due, x.expires_at as first_expiry
  from heads h
  left join lateral (select sequence, recorded_at from events where ledger_id = h.ledger_id
                      order by sequence desc limit 1) l on true
  left join lateral (select hold, expires_at from holds
                      where ledger_id = h.ledger_id and status = 'pending' and expires_at is not null
                      order by expires_at, hold limit 1) x on true
 where h.ledger_id = :ledger
""")
GUARDS = text("""
select c.relname::text as table_name, t.tgname::text as name, t.tgenabled::text as enabled
  from pg_trigger t join pg_class c on c.oid = t.tgrelid
 where not t.tgisinternal and pg_table_is_visible(c.oid)
""")


async def verify_head(rows: Rows, findings: Findings) -> Row[Any]:
    """Hold the head against the log and the holds, and give it."""
    (head,) = await rows.read(HEAD)
    holds = (head.sequence, head.recorded_at) == (head.last_sequence, head.last_recorded_at)
    where = f"head at {head.sequence}, last event {head.last_sequence}"
    findings.see("head_is_last_event", holds, where)
    # It may be early, never late: a batch looks for due holds only once it has come.
    holds = head.first_expiry is None or (head.next_expiry is not None and head.next_expiry <= head.first_expiry)
    findings.see("next_expiry_not_late", holds, f"hold {head.first_due}, which expires before the head expects one")
    return head


async def verify_guards(rows: Rows, findings: Findings) -> None:
    found = {(row.table_name, row.name): row.enabled for row in await rows.read(GUARDS)}
    for (table, name), enabled in TRIGGERS.items():
        findings.see("triggers_stand", found.get((table, name)) == enabled, f"trigger {name} on {table}")
