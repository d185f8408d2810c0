"""What the tests do with a service over and over: open books, post, and hold the database against the invariants."""

import asyncio
import itertools
from collections.abc import Iterable
from typing import Any

import asyncpg
import httpx
from sqlalchemy.engine import make_url

from app.models import metadata

_keys = itertools.count(1)


def new_key() -> str:
    return f"key-{next(_keys)}"


def open_account(client: httpx.Client, ledger: str, path: str, **changes: Any) -> dict[str, Any]:
    body = {"path": path, "asset": "USD/2", "normal_side": "debit", **changes}
    answer = client.post(f"/v1/ledgers/{ledger}/accounts", json=body, headers={"Idempotency-Key": new_key()})
    assert answer.status_code == 201, answer.text
    return answer.json()


def transaction(debit: str, credit: str, amount: int | str = 1, **changes: Any) -> dict[str, Any]:
    return {"postings": [{"debit_account": debit, "credit_account": credit, "amount": str(amount)}], **changes}


def post(client: httpx.Client, ledger: str, body: dict[str, Any], key: str | None = None) -> httpx.Response:
    headers = {"Idempotency-Key": key or new_key()}
    return client.post(f"/v1/ledgers/{ledger}/transactions", json=body, headers=headers)


async def open_books(client: httpx.AsyncClient, ledger: str, paths: Iterable[str]) -> None:
    assert (await client.post("/v1/ledgers", json={"name": ledger})).status_code == 201
    for path in paths:
        body = {"path": path, "asset": "USD/2", "normal_side": "debit"}
        headers = {"Idempotency-Key": path}
        answer = await client.post(f"/v1/ledgers/{ledger}/accounts", json=body, headers=headers)
        assert answer.status_code == 201, answer.text


async def connect(database: str) -> asyncpg.Connection:
    """A connection of the driver's own, to look behind the service."""
    url = make_url(database)
    return await asyncpg.connect(
        host=url.query.get("host") or url.host, port=url.port or 5432, user=url.username, database=url.database
    )


async def fetch(database: str, query: str, *arguments: Any) -> list[asyncpg.Record]:
    connection = await connect(database)
    try:
        return await connection.fetch(query, *arguments)
    finally:
        await connection.close()


def fetch_now(database: str, query: str, *arguments: Any) -> list[asyncpg.Record]:
    return asyncio.run(fetch(database, query, *arguments))


# What the log says of each posting, and what that adds to what is posted and to what is pending.
SAID = """said as (
          select ledger_id, sequence, kind, subject, expires_at, number - 1 as number,
                 p[1] debit_id, p[2] debit_version, p[3] credit_id, p[4] credit_version,
                 case when kind = 'transaction_held' then 0 else p[5] end posted,
                 case when kind = 'transaction_held' then p[5] when cardinality(p) > 5 then -p[5] - p[6] else 0 end
                   pending,
                 coalesce(p[6], 0) released, p[7] hold_posting
            from events cross join unnest(string_to_array(postings, ';')) with ordinality as u (posting, number)
                 cross join lateral (select string_to_array(posting, ' ')::numeric[] p) x)"""

# Each query finds what breaks an invariant, and so finds nothing.
INVARIANTS = {
    "entries sum to zero": """
        select ledger_id, sequence, asset from entries group by ledger_id, sequence, asset
        having sum(case when debit then posted else -posted end) <> 0
            or sum(case when debit then pending else -pending end) <> 0""",
    "counters are the fold of entries": """
        select a.ledger_id, a.path from accounts a left join (
          select ledger_id, account_id, count(*) n, max(version) v,
                 sum(case when debit then posted else 0 end) dp, sum(case when debit then 0 else posted end) cp,
                 sum(case when debit then pending else 0 end) dn, sum(case when debit then 0 else pending end) cn
            from entries group by ledger_id, account_id) e using (ledger_id, account_id)
         where (a.debits_posted, a.credits_posted, a.debits_pending, a.credits_pending, a.version)
               is distinct from (coalesce(dp, 0), coalesce(cp, 0), coalesce(dn, 0), coalesce(cn, 0), coalesce(n, 0))
            or a.version <> coalesce(v, 0)""",
    "each entry's balance is the one before it, moved by what it posted": """
        select * from (
          select e.ledger_id, e.account_id, e.version, balance,
                 sum(case when debit = (a.normal_side = 'debit') then posted else -posted end)
                   over (partition by e.ledger_id, e.account_id order by e.version) as folded
            from entries e join accounts a using (ledger_id, account_id)) x
         where balance <> folded""",
    "the log is gapless and its time never falls": """
        select * from (
          select ledger_id, sequence, recorded_at, row_number() over w as place, lag(recorded_at) over w as former
            from events window w as (partition by ledger_id order by sequence)) x
         where sequence <> place or recorded_at < former""",
    "the head is the last event": """
        select h.* from heads h left join (select ledger_id, max(sequence) last from events group by ledger_id) e
         using (ledger_id) where h.sequence <> coalesce(last, 0)""",
    "each posting has its two entries": f"""
        with {SAID},
        sides as (
          select ledger_id, sequence, debit_id account_id, debit_version as version, true debit, posted, pending
            from said
          union all
          select ledger_id, sequence, credit_id, credit_version, false, posted, pending from said)
        select * from sides full join entries using (ledger_id, sequence, account_id, version, debit, posted, pending)
         where entries.balance is null or sides is null""",
    "every event has its one key, but for expiries, which nobody asked for": """
        with effects as (
          select ledger_id, generate_series(sequence, sequence + coalesce(events, 1) - 1) as sequence
            from idempotency_keys where refusal is null)
        select ledger_id, sequence, count(f), count(e)
          from effects f full join events e using (ledger_id, sequence)
         group by ledger_id, sequence
        having count(e) <> 1 or count(f) <> count(*) filter (where e.kind <> 'transaction_expired')""",
    "each hold has a row, and each of its postings has one": f"""
        with {SAID}
        select * from (select * from said where kind = 'transaction_held') s
          full join (select l.*, h.lines, h.expires_at from hold_lines l join holds h using (ledger_id, hold)) l
            on (l.ledger_id, l.hold, l.line) = (s.ledger_id, s.sequence, s.number)
         where (s.debit_id, s.credit_id, s.pending, s.expires_at)
               is distinct from (l.debit_id, l.credit_id, l.held, l.expires_at)
            or l.lines <> (select count(*) from said x where (x.ledger_id, x.sequence) = (s.ledger_id, s.sequence))""",
    "what was captured and released of a hold is what its events say, and all of it when it has ended": f"""
        with {SAID},
        gone as (
          select ledger_id, subject hold, hold_posting line, sum(posted) captured, sum(released) released
            from said where hold_posting is not null group by 1, 2, 3)
        select l.*, h.status, g.* from hold_lines l join holds h using (ledger_id, hold)
          full join gone g using (ledger_id, hold, line)
         where (l.captured, l.released) is distinct from (coalesce(g.captured, 0), coalesce(g.released, 0))
            or l.captured + l.released > l.held or l.ended <> (h.status <> 'pending')
            or l.ended and l.captured + l.released <> l.held""",
    "a hold is what its last event made of it, and pending only while something is held": """
        select h.*, e.kind from holds h
          left join (select distinct on (ledger_id, subject) ledger_id, subject hold, kind from events
                      where kind in ('transaction_captured', 'transaction_voided', 'transaction_expired')
                      order by ledger_id, subject, sequence desc) e using (ledger_id, hold)
          cross join lateral (select sum(held - captured - released) remaining from hold_lines l
                               where (l.ledger_id, l.hold) = (h.ledger_id, h.hold)) r
         where (h.status = 'pending') <> (remaining > 0)
            or h.status <> 'pending' and e.kind is distinct from 'transaction_' || h.status
            or h.status = 'pending' and coalesce(e.kind, 'transaction_captured') <> 'transaction_captured'""",
    "what is pending on an account is what remains of the holds that name it": """
        with remaining as (
          select ledger_id, debit_id account_id, held - captured - released d, 0 c from hold_lines
          union all select ledger_id, credit_id, 0, held - captured - released from hold_lines)
        select a.ledger_id, a.path from accounts a left join remaining using (ledger_id, account_id)
         group by a.ledger_id, a.account_id, a.path, a.debits_pending, a.credits_pending
        having (debits_pending, credits_pending) is distinct from (coalesce(sum(d), 0), coalesce(sum(c), 0))""",
    "the next expiry is never late": """
        select h.ledger_id, next_expiry, min(expires_at) from heads h join holds using (ledger_id)
         where status = 'pending' and expires_at is not null
         group by h.ledger_id, next_expiry having next_expiry is null or next_expiry > min(expires_at)""",
    "what was reversed is a post or a capture, and was reversed the other way": f"""
        with {SAID},
        sums as (select ledger_id, sequence, min(subject) subject, min(kind) kind,
                        string_agg(concat_ws(' ', debit_id, credit_id, posted), ';' order by number) forward,
                        string_agg(concat_ws(' ', credit_id, debit_id, posted), ';' order by number) backward
                   from said where posted > 0 group by 1, 2)
        select r.* from sums r left join sums o on (o.ledger_id, o.sequence) = (r.ledger_id, r.subject)
         where r.kind = 'transaction_reversed' and (r.backward is distinct from o.forward
            or o.kind not in ('transaction_posted', 'transaction_captured'))""",
    "no account is past its limits, whatever becomes of what is pending": """
        select ledger_id, path from accounts
          cross join lateral (select case when normal_side = 'debit' then 1 else -1 end sense) s
         where sense * (debits_posted - credits_posted)
               - case when sense = 1 then credits_pending else debits_pending end < minimum_balance
            or sense * (debits_posted - credits_posted)
               + case when sense = 1 then debits_pending else credits_pending end > maximum_balance""",
    "late entries stand beside their entries": """
        select l.* from late_entries l left join entries e using (ledger_id, account_id, version)
         where e.version is null or e.posted = 0 or l.effective_at >= e.latest_effective""",
}


async def _gather(connection: asyncpg.Connection) -> None:
    """On a cluster, bring the rows to where we are: no cluster joins what each invariant has to."""
    if await connection.fetchval("select count(*) from pg_extension where extname = 'citus'"):
        for table in metadata.tables:
            await connection.execute(f"create temporary table {table} as table public.{table}")


async def check_invariants(database: str) -> None:
    """Assert every invariant from the rows themselves."""
    connection = await connect(database)
    try:
        await _gather(connection)
        await connection.execute("analyze")  # or joins of tables that filled a moment ago are planned as tiny ones
        for name, query in INVARIANTS.items():
            offenders = await connection.fetch(f"{query} limit 3")
            assert not offenders, f"{name}: {offenders}"
    finally:
        await connection.close()
