"""READ: one statement, one snapshot, and so the Book that a batch is decided on."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from asyncpg import Connection

from app.ledger.refusals import LedgerNotFound
from app.ledger.values import Account, Decision, Entry, Event, Head, LedgerEvent, PeriodEvent

# Each look-up is fenced (`offset 0`) so that a plan made on empty tables goes through the index even then.
# The parts are rows of one shape, since arrays of rows do not travel between the nodes of a cluster.
READ = """
select 'head' as part, sequence as id, revision as number, recorded_at as a, next_expiry as b, closed_before as c,
       array[configured_by::text, configuration_revision::text] as texts
  from heads where ledger_id = $1
union all
select 'key', x.sequence, null, null, null, null,
       array[encode(x.key, 'hex'), encode(x.fingerprint, 'hex'), x.refusal::text, x.events::text, x.refusals::text]
  from unnest($2::bytea[]) as u (key) cross join lateral (
       select * from idempotency_keys where ledger_id = $1 and key = u.key offset 0) as x
union all
select 'account', x.account_id, x.version, x.latest_effective, null, null,
       array[x.path, x.asset, x.normal_side, x.status, x.minimum_balance::text, x.maximum_balance::text,
             x.debits_posted::text, x.credits_posted::text, x.debits_pending::text, x.credits_pending::text,
             x.revision::text, x.configured_by::text]
  from unnest($3::text[]) as u (path) cross join lateral (
       select * from accounts where ledger_id = $1 and path = u.path offset 0) as x
union all
select 'reference', x.sequence, null, null, null, null, array[x.reference]
  from unnest($4::text[]) as u (reference) cross join lateral (
       select * from events where ledger_id = $1 and reference = u.reference offset 0) as x
"""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """What an idempotency key stands for: an effect, or a refusal as it was decided after `sequence`.

    The effect of a batch is `events` events from `sequence` on, and what refused its other transactions, by place.
    """

    key: bytes
    fingerprint: bytes
    sequence: int
    refusal: dict[str, Any] | None = None
    events: int | None = None
    refusals: dict[str, dict[str, Any]] | None = None


class Book:
    """The part of a ledger that a batch names, moved along by each decision as it is applied."""

    def __init__(
        self,
        head: Head,
        *,
        accounts: dict[str, Account] | None = None,
        references: set[str] | None = None,
        keys: dict[bytes, KeyRow] | None = None,
    ) -> None:
        self.head = head
        self.closed_before = head.closed_before
        self.configured_by = head.configured_by
        self.configuration_revision = head.configuration_revision
        self.accounts = accounts or {}
        self.references = references or set()
        self.keys = keys or {}
        self.events: list[Event] = []
        self.entries: list[Entry] = []
        self.new_keys: list[KeyRow] = []
        self.moved: dict[int, Account] = {}

    @property
    def sequence(self) -> int:
        """The last event, counting those that this batch adds."""
        return self.head.sequence + len(self.events)

    @property
    def next_sequence(self) -> int:
        return self.sequence + 1

    def recording_time(self, now: datetime) -> datetime:
        """The batch's clock, unless the log has seen a later one: recorded times never fall along the log."""
        return max(now, self.head.recorded_at)

    def apply(self, decision: Decision) -> None:
        """Take a whole decision over, so that the next command is decided after it."""
        self.events.append(decision.event)
        self.entries += decision.entries
        for account in decision.accounts:
            self.accounts[account.path] = account
            self.moved[account.account_id] = account
        if isinstance(decision.event, LedgerEvent):
            self.configured_by = decision.event.sequence
            self.configuration_revision = decision.event.revision
        elif isinstance(decision.event, PeriodEvent):
            self.closed_before = decision.event.closed_before
        reference = getattr(decision.event, "reference", None)
        if reference is not None:
            self.references.add(reference)

    def save(self) -> tuple[Any, ...]:
        """Where the book stands, for `restore`."""
        state = dict(self.accounts), set(self.references), dict(self.moved)
        return *state, len(self.events), len(self.entries)

    def restore(self, state: tuple[Any, ...]) -> None:
        """Take back whatever was applied since."""
        self.accounts, self.references, self.moved, events, entries = state
        del self.events[events:], self.entries[entries:]

    def keep(self, row: KeyRow) -> None:
        """Freeze what a key stands for."""
        self.keys[row.key] = row
        self.new_keys.append(row)


async def read_book(
    connection: Connection,
    ledger_id: int,
    *,
    keys: Collection[bytes],
    paths: Collection[str],
    references: Collection[str],
    timeout_s: float,
) -> Book:
    """Read the head, and the keys, accounts and references of a batch, as one snapshot has them."""
    rows = await connection.fetch(READ, ledger_id, list(keys), list(paths), list(references), timeout=timeout_s)
    if not rows:
        raise LedgerNotFound()
    head, *found = rows
    book = Book(Head(head["id"], head["number"], head["a"], head["b"], head["c"], *map(int, head["texts"])))
    for part, sequence, number, moment, _, _, texts in found:
        if part == "account":
            book.accounts[texts[0]] = _account(sequence, number, moment, texts)
        elif part == "key":
            key = bytes.fromhex(texts[0])
            refusal, count, refusals = (None if text is None else json.loads(text) for text in texts[2:])
            book.keys[key] = KeyRow(key, bytes.fromhex(texts[1]), sequence, refusal, count, refusals)
        else:
            book.references.add(texts[0])
    return book


def _account(account_id: int, version: int, latest_effective: datetime, texts: list[Any]) -> Account:
    path, asset, normal_side, status, minimum, maximum, *numbers = texts
    *counters, revision, configured_by = map(int, numbers)
    return Account(
        account_id,
        path,
        asset,
        normal_side,
        status,
        None if minimum is None else int(minimum),
        None if maximum is None else int(maximum),
        *counters,
        version,
        revision,
        configured_by,
        latest_effective,
    )
