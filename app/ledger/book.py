"""READ: one statement, one snapshot, and so the Book that a batch is decided on."""

import json
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.connections import Connection
from app.ledger.known_ledgers import LedgerRef, LedgerReplaced
from app.ledger.values import (
    Account,
    Decision,
    Entry,
    Event,
    Head,
    Hold,
    HoldLine,
    LedgerEvent,
    PeriodEvent,
    Posting,
    Subject,
    TransactionEvent,
)

# Each look-up is fenced (`offset 0`) so that a plan made on empty tables goes through the index even then.
# The parts are rows of one shape, since arrays of rows do not travel between the nodes of a cluster.
READ = """
select 'head' as part, sequence as id, revision as number, recorded_at as a, next_expiry as b, closed_before as c,
       array[configured_by::text, configuration_revision::text, identity::text] as texts
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

# For a batch that names transactions, or meets holds whose time has come: READ, and what it needs to know of these.
# The due holds are the first of those that expire, 1,000 at most with about 2,000 postings; the one after them is next.
READ_WITH_HOLDS = "".join(
    (
        """
with due as materialized (
  select hold from (
    select hold, lines, sum(lines) over (order by expires_at, hold) as so_far from (
      select hold, expires_at, lines from holds
       where ledger_id = $1 and status = 'pending' and expires_at <= $6
       order by expires_at, hold limit 1000) as first) as summed
   where so_far - lines < 2000
), subjects as materialized (
  select x.sequence, x.kind, x.postings, x."group"
    from (select unnest($5::bigint[]) union select hold from due) as u (sequence) cross join lateral (
         select * from events where ledger_id = $1 and sequence = u.sequence offset 0) as x
   where x.postings is not null
)""",
        READ,
        """
union all
select 'named account', x.account_id, x.version, x.latest_effective, null, null,
       array[x.path, x.asset, x.normal_side, x.status, x.minimum_balance::text, x.maximum_balance::text,
             x.debits_posted::text, x.credits_posted::text, x.debits_pending::text, x.credits_pending::text,
             x.revision::text, x.configured_by::text]
  from (select distinct split_part(posting, ' ', side)::bigint as account_id
          from subjects, string_to_table(postings, ';') as posting, unnest(array[1, 3]) as side) as u
 cross join lateral (
       select * from accounts where ledger_id = $1 and account_id = u.account_id offset 0) as x
union all
select 'subject', sequence, null, null, null, null, array[kind, postings, "group"] from subjects
union all
select 'reversal', x.subject, null, null, null, null, null
  from subjects as u cross join lateral (
       select * from events
        where ledger_id = $1 and subject = u.sequence and kind = 'transaction_reversed' offset 0) as x
union all
select 'hold', x.hold, null, x.expires_at, null, null, array[x.status]
  from subjects as u cross join lateral (
       select * from holds where ledger_id = $1 and hold = u.sequence offset 0) as x
union all
select 'line', x.hold, x.line, null, null, null,
       array[x.debit_id::text, x.credit_id::text, x.held::text, x.captured::text, x.released::text]
  from subjects as u cross join lateral (
       select * from hold_lines where ledger_id = $1 and hold = u.sequence order by line offset 0) as x
union all
select 'due', hold, null, null, null, null, null from due
union all
select 'next', null, null, (
       select expires_at from holds
        where ledger_id = $1 and status = 'pending' and expires_at > timestamptz '1900-01-01 00:00:00+00'
        order by expires_at, hold offset (select count(*) from due) limit 1), null, null, null
""",
    )
)


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
        self.next_expiry = head.next_expiry
        self.configured_by = head.configured_by
        self.configuration_revision = head.configuration_revision
        self.accounts = accounts or {}
        self.references = references or set()
        self.keys = keys or {}
        # What the log already says of the transactions that the batch names, and of those that are due.
        self.subjects: dict[int, Subject] = {}
        self.holds: dict[int, Hold] = {}
        self.reversed: set[int] = set()
        self.due: tuple[Hold, ...] = ()
        self.changed_holds: dict[int, Hold] = {}
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

    def find_subject(self, sequence: int) -> Subject | None:
        """The transaction with this sequence, which may be one that this batch adds."""
        if sequence <= self.head.sequence:
            return self.subjects.get(sequence)
        place = sequence - self.head.sequence - 1
        event = self.events[place] if place < len(self.events) else None
        return Subject(event.kind, event.postings, event.group) if isinstance(event, TransactionEvent) else None

    @property
    def changes_nothing(self) -> bool:
        return not self.new_keys and not self.events and self.next_expiry == self.head.next_expiry

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
        elif isinstance(decision.event, TransactionEvent):
            if decision.event.reference is not None:
                self.references.add(decision.event.reference)
            if decision.event.reverses is not None:
                self.reversed.add(decision.event.reverses)
            if decision.hold is not None:
                self._keep_hold(decision.hold)

    def _keep_hold(self, hold: Hold) -> None:
        self.holds[hold.hold] = self.changed_holds[hold.hold] = hold
        # Never late; where a hold ends before its time, it stays early until a batch finds it so.
        if hold.status == "pending" and hold.expires_at is not None:
            self.next_expiry = min(hold.expires_at, self.next_expiry or hold.expires_at)

    def save(self) -> tuple[Any, ...]:
        """Where the book stands, for `restore`."""
        state = dict(self.accounts), set(self.references), dict(self.moved), dict(self.holds), dict(self.changed_holds)
        return *state, self.next_expiry, len(self.events), len(self.entries)

    def restore(self, state: tuple[Any, ...]) -> None:
        """Take back whatever was applied since."""
        self.accounts, self.references, self.moved, self.holds, self.changed_holds, *rest = state
        self.next_expiry, events, entries = rest
        del self.events[events:], self.entries[entries:]

    def keep(self, row: KeyRow) -> None:
        """Freeze what a key stands for."""
        self.keys[row.key] = row
        self.new_keys.append(row)


async def read_book(
    connection: Connection,
    ledger: LedgerRef,
    *,
    keys: Collection[bytes],
    paths: Collection[str],
    references: Collection[str],
    subjects: Collection[int],
    now: datetime,
    timeout_s: float,
) -> Book:
    """Read the head, and what a batch names of keys, accounts, references and transactions, as one snapshot has them;
    and the holds that are due by `now`, as many as one batch takes.

    Raises `LedgerReplaced` if the head that is found has another identity, or none is found.
    """
    named = ledger.ledger_id, list(keys), list(paths), list(references)
    rows = [] if subjects else await connection.fetch(READ, *named, timeout=timeout_s)
    if subjects or (rows and rows[0]["b"] is not None and rows[0]["b"] <= now):
        rows = await connection.fetch(READ_WITH_HOLDS, *named, list(subjects), now, timeout=timeout_s)
    if not rows or rows[0]["part"] != "head" or rows[0]["texts"][2] != ledger.identity:
        raise LedgerReplaced()
    head, *found = rows
    configured = map(int, head["texts"][:2])
    book = Book(Head(head["id"], head["number"], head["a"], head["b"], head["c"], *configured))
    others: dict[str, list[Any]] = defaultdict(list)
    for part, sequence, number, moment, _, _, texts in found:
        if part == "account":
            book.accounts[texts[0]] = _account(sequence, number, moment, texts)
        elif part == "key":
            key = bytes.fromhex(texts[0])
            refusal, count, refusals = (None if text is None else json.loads(text) for text in texts[2:])
            book.keys[key] = KeyRow(key, bytes.fromhex(texts[1]), sequence, refusal, count, refusals)
        elif part == "reference":
            book.references.add(texts[0])
        else:
            others[part].append((sequence, number, moment, texts))
    if others:
        _take_holds(book, others, now)
    return book


def _take_holds(book: Book, parts: dict[str, list[Any]], now: datetime) -> None:
    """What READ_WITH_HOLDS found beyond what READ does."""
    for account_id, version, moment, texts in parts["named account"]:
        book.accounts[texts[0]] = _account(account_id, version, moment, texts)
    known = {account.account_id: account for account in book.accounts.values()}
    for sequence, _, _, (kind, postings, group) in parts["subject"]:
        said = (tuple(map(int, posting.split(" "))) for posting in postings.split(";"))
        book.subjects[sequence] = Subject(kind, tuple(_posting(numbers, known) for numbers in said), group)
    book.reversed = {sequence for sequence, *_ in parts["reversal"]}
    lines: dict[int, list[HoldLine]] = defaultdict(list)
    for hold, line, _, texts in parts["line"]:
        debit_id, credit_id, *amounts = map(int, texts)
        paths = known[debit_id].path, known[credit_id].path
        lines[hold].append(HoldLine(line, *paths, debit_id, credit_id, *amounts))
    for sequence, _, expires_at, (status,) in parts["hold"]:
        group = book.subjects[sequence].group
        book.holds[sequence] = Hold(sequence, status, expires_at, group, tuple(sorted(lines[sequence], key=_place)))
    book.due = tuple(book.holds[sequence] for sequence, *_ in parts["due"])
    if book.head.next_expiry is not None and book.head.next_expiry <= now:
        ((_, _, book.next_expiry, _),) = parts["next"]


def _place(line: HoldLine) -> int:
    return line.posting


def _posting(numbers: tuple[int, ...], known: dict[int, Account]) -> Posting:
    debit_id, debit_version, credit_id, credit_version, amount, *_ = numbers
    debited, credited = known[debit_id], known[credit_id]
    return Posting(
        debited.path, credited.path, debited.asset, amount, debit_id, debit_version, credit_id, credit_version
    )


def _account(account_id: int, version: int, latest_effective: datetime, texts: list[Any]) -> Account:
    path, asset, normal_side, status, minimum, maximum, *numbers = texts
    debits_posted, credits_posted, debits_pending, credits_pending, revision, configured_by = map(int, numbers)
    return Account(
        account_id,
        path,
        asset,
        normal_side,
        status,
        None if minimum is None else int(minimum),
        None if maximum is None else int(maximum),
        debits_posted,
        credits_posted,
        debits_pending,
        credits_pending,
        version,
        revision,
        configured_by,
        latest_effective,
    )
