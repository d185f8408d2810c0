"""What the tests do with a service over and over: open books, post, and hold the database against the invariants."""

import asyncio
import itertools
from collections.abc import Iterable
from typing import Any

import asyncpg
import httpx
from sqlalchemy.engine import make_url

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
    "each posting has its two entries": """
        with said as (
          select ledger_id, sequence, p, case kind when 'transaction_held' then 0 else p[5] end posted,
                 case when kind = 'transaction_held' then p[5] when p[6] is null then 0 else -p[5] - p[6] end pending
            from events, unnest(string_to_array(postings, ';')) posting,
                 lateral (select string_to_array(posting, ' ')::numeric[] p) x),
        sides as (
          select ledger_id, sequence, p[1] account_id, p[2] as version, true debit, posted, pending from said
          union all select ledger_id, sequence, p[3], p[4], false, posted, pending from said)
        select * from sides full join entries using (ledger_id, sequence, account_id, version, debit, posted, pending)
         where entries.balance is null or sides is null""",
    "pending counters are what remains of live holds": """
        with remaining as (
          select ledger_id, debit_id account_id, held - captured - released debits, 0 credits from hold_lines
          union all select ledger_id, credit_id, 0, held - captured - released from hold_lines)
        select a.ledger_id, a.path from accounts a left join remaining r using (ledger_id, account_id)
         group by a.ledger_id, a.account_id, a.path, a.debits_pending, a.credits_pending
        having (a.debits_pending, a.credits_pending)
            <> (coalesce(sum(r.debits), 0), coalesce(sum(r.credits), 0))""",
    "every event has its one key, and an expiry none": """
        with effects as (
          select ledger_id, generate_series(sequence, sequence + coalesce(events, 1) - 1) as sequence
            from idempotency_keys where refusal is null)
        select ledger_id, sequence, count(*), count(e.kind)
          from effects full join events e using (ledger_id, sequence)
         where e.kind is distinct from 'transaction_expired'
         group by ledger_id, sequence having count(*) <> 1 or count(e.kind) <> 1
        union all
        select e.ledger_id, e.sequence, 0, 0 from events e
         where (kind = 'transaction_expired')
               = exists (select from effects f where f.ledger_id = e.ledger_id and f.sequence = e.sequence)""",
    "late entries stand beside their entries": """
        select l.* from late_entries l left join entries e using (ledger_id, account_id, version)
         where e.version is null or l.effective_at >= e.latest_effective""",
}


async def check_invariants(database: str) -> None:
    """Assert every invariant from the rows themselves."""
    connection = await connect(database)
    try:
        await connection.execute("analyze")  # or joins of tables that filled a moment ago are planned as tiny ones
        for name, query in INVARIANTS.items():
            offenders = await connection.fetch(f"{query} limit 3")
            assert not offenders, f"{name}: {offenders}"
    finally:
        await connection.close()
