"""The rules by themselves: random commands on random books, held against sums that share nothing with the code."""

import contextlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.ledger.book import Book
from app.ledger.commands import Command, CreateLedger, Move, OpenAccount, PostTransaction
from app.ledger.refusals import BooksRefuse, Refusal, ValidationFailed
from app.ledger.rules import check_transaction, decide
from app.ledger.values import Account, Entry, Event, Head

COUNTER_MAX = 10**38 - 1
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
EMPTY = dict.fromkeys(("debits_posted", "credits_posted", "debits_pending", "credits_pending", "version"), 0)
PATHS = ("a", "b", "c", "d", "e")
RANDOM = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def account(path: str, number: int = 1, **changes: Any) -> Account:
    fields = {
        "account_id": number,
        "path": path,
        "asset": "USD/2",
        "normal_side": "debit",
        "status": "open",
        "minimum_balance": None,
        "maximum_balance": None,
        "revision": 1,
        "configured_by": number,
        "latest_effective": EARLIEST,
    }
    fields |= EMPTY
    return Account(**(fields | changes))


def book_of(*accounts: Account, recorded_at: datetime = START) -> Book:
    known = {each.path: each for each in accounts}
    return Book(Head(sequence=100, revision=7, recorded_at=recorded_at), accounts=known)


def post(*moves: tuple[str, str, int], **changes: Any) -> PostTransaction:
    fields = dict.fromkeys(("effective_at", "reference", "group", "description")) | {"metadata": {}}
    return PostTransaction(tuple(Move(*move) for move in moves), **(fields | changes))


def open_account(path: str, **changes: Any) -> OpenAccount:
    fields = {"asset": "USD/2", "normal_side": "debit", "minimum_balance": None, "maximum_balance": None}
    return OpenAccount(path, **(fields | {"description": None, "metadata": {}} | changes))


def carry_out(book: Book, command: Command, *, now: datetime = START) -> Event:
    decision = decide(command, book, now=now, actor="tester")
    book.apply(decision)
    return decision.event


def refusal(book: Book, command: Command, *, now: datetime = START) -> dict[str, Any]:
    """The refusal that the command meets, as its code and its fields."""
    with pytest.raises(Refusal) as caught:
        decide(command, book, now=now, actor="tester")
    return {"code": caught.value.code, **caught.value.fields()}


def state(book: Book) -> tuple[Any, ...]:
    """All that a book says; its values are frozen, so copies of its collections are enough."""
    moving = book.closed_before, book.configured_by, book.configuration_revision
    collections = (book.accounts, book.references, book.keys, book.events, book.entries, book.new_keys, book.moved)
    return book.head, *moving, *(each.copy() for each in collections)


# Sums in the plainest way.


def raised(side: str, each: Entry | tuple[str, int]) -> int:
    its_side, amount = (each.side, each.posted) if isinstance(each, Entry) else each
    return amount if its_side == side else -amount


def net(path: str, command: PostTransaction, side: str) -> int:
    """What a transaction adds to an account, in the account's normal sense."""
    return sum(
        raised(side, ("debit", move.amount)) * (move.debit_account == path)
        + raised(side, ("credit", move.amount)) * (move.credit_account == path)
        for move in command.moves
    )


def posted(each: Account) -> int:
    sign = 1 if each.normal_side == "debit" else -1
    return sign * (each.debits_posted - each.credits_posted)


def lowering(each: Account) -> int:
    return each.credits_pending if each.normal_side == "debit" else each.debits_pending


def raising(each: Account) -> int:
    return each.debits_pending if each.normal_side == "debit" else each.credits_pending


def keeps_limits(each: Account) -> bool:
    lower, upper = each.minimum_balance, each.maximum_balance
    return (
        (lower is None or posted(each) - lowering(each) >= lower)
        and (upper is None or posted(each) + raising(each) <= upper)
        and max(each.debits_posted + each.debits_pending, each.credits_posted + each.credits_pending) <= COUNTER_MAX
        and min(each.debits_posted, each.credits_posted, each.debits_pending, each.credits_pending) >= 0
    )


def expected_refusal(command: Command, book: Book, now: datetime) -> dict[str, Any] | None:
    """The first refusal of the published order that applies, from the words of the contract."""
    if isinstance(command, OpenAccount):
        if command.path in book.accounts:
            return {"code": "account_exists", "account": command.path}
        if (command.minimum_balance or 0) > 0:
            return {"code": "limit_not_met", "pointer": "/minimum_balance"}
        if (command.maximum_balance or 0) < 0:
            return {"code": "limit_not_met", "pointer": "/maximum_balance"}
        return None
    assert isinstance(command, PostTransaction)
    effective_at = command.effective_at
    if effective_at and (effective_at < EARLIEST or effective_at > now + timedelta(seconds=60)):
        return {"code": "time_out_of_range", "pointer": "/effective_at"}
    if command.reference in book.references:
        return {"code": "reference_exists", "pointer": "/reference"}
    sides = [
        (f"/postings/{n}/{field}", getattr(move, field))
        for n, move in enumerate(command.moves)
        for field in ("debit_account", "credit_account")
    ]
    for pointer, path in sides:
        if path not in book.accounts:
            return {"code": "unknown_account", "pointer": pointer}
    for n, move in enumerate(command.moves):
        if len({book.accounts[path].asset for path in (move.debit_account, move.credit_account)}) > 1:
            return {"code": "asset_mismatch", "pointer": f"/postings/{n}"}
    named = [book.accounts[path] for path in dict.fromkeys(path for _, path in sides)]
    for each in named:
        debits = sum(move.amount for move in command.moves if move.debit_account == each.path)
        credits = sum(move.amount for move in command.moves if move.credit_account == each.path)
        if (
            each.debits_posted + each.debits_pending + debits > COUNTER_MAX
            or each.credits_posted + each.credits_pending + credits > COUNTER_MAX
        ):
            return {"code": "amount_overflow", "account": each.path}
    for each in named:
        if each.minimum_balance is not None:
            available = posted(each) - lowering(each) - each.minimum_balance
            required = -net(each.path, command, each.normal_side)
            if required > available:
                return {
                    "code": "insufficient_funds",
                    "account": each.path,
                    "available": available,
                    "required": required,
                }
    for each in named:
        if each.maximum_balance is not None:
            available = each.maximum_balance - posted(each) - raising(each)
            required = net(each.path, command, each.normal_side)
            if required > available:
                return {"code": "maximum_exceeded", "account": each.path, "available": available, "required": required}
    return None


# Random books, and random commands on them.


def mostly(usual: st.SearchStrategy[Any], *others: st.SearchStrategy[Any], odds: int = 7) -> st.SearchStrategy[Any]:
    """The usual, and one of the others every few times: enough that most transactions pass, and some do not."""
    return st.integers(0, odds).flatmap(lambda drawn: st.one_of(*others) if drawn == odds else usual)


huge = st.integers(0, 40).map(lambda below: COUNTER_MAX - below)
counters = mostly(st.integers(0, 60), huge)
amounts = mostly(st.integers(1, 25), huge, st.integers(1, COUNTER_MAX), odds=15)
slacks = mostly(st.none(), st.integers(0, 40), odds=2)
instants = mostly(
    st.none() | st.integers(-200, 0).map(lambda seconds: START + timedelta(seconds=seconds)),
    st.integers(0, 90).map(lambda seconds: START + timedelta(seconds=seconds)),
    st.sampled_from([EARLIEST, EARLIEST - MICROSECOND, START + timedelta(seconds=60), START + timedelta(days=1)]),
)
clocks = st.integers(-90, 90).map(lambda seconds: START + timedelta(seconds=seconds))
assets = mostly(st.just("USD/2"), st.just("BTC/8"))
sides = st.sampled_from(["debit", "credit"])
paths = st.sampled_from(PATHS)


@st.composite
def random_accounts(draw: st.DrawFn, path: str, number: int) -> Account:
    """An account in any state that the invariants allow: with amounts pending, and near its limits or not."""
    sums = [draw(counters), draw(counters)]
    pending = [min(draw(st.integers(0, 9)), COUNTER_MAX - each) for each in sums]
    each = account(
        path,
        number,
        asset=draw(assets),
        normal_side=draw(sides),
        debits_posted=sums[0],
        credits_posted=sums[1],
        debits_pending=pending[0],
        credits_pending=pending[1],
        version=draw(st.integers(0, 9)),
        latest_effective=draw(st.sampled_from([EARLIEST, START - timedelta(seconds=20), START])),
    )
    below, above = draw(slacks), draw(slacks)
    return replace(
        each,
        minimum_balance=None if below is None else posted(each) - lowering(each) - below,
        maximum_balance=None if above is None else posted(each) + raising(each) + above,
    )


@st.composite
def random_books(draw: st.DrawFn) -> Book:
    chosen = draw(mostly(st.just(PATHS), st.lists(paths, unique=True, min_size=2)))
    return book_of(*(draw(random_accounts(path, number)) for number, path in enumerate(chosen, 1)))


@st.composite
def random_moves(draw: st.DrawFn) -> tuple[str, str, int]:
    debit = draw(paths)
    return debit, draw(paths.filter(lambda path: path != debit)), draw(amounts)


posts = st.builds(
    lambda moves, effective_at, reference: post(*moves, effective_at=effective_at, reference=reference),
    st.lists(random_moves(), min_size=1, max_size=4),
    instants,
    mostly(st.none(), st.sampled_from(["r1", "r2"]), odds=4),
)
openings = st.builds(
    lambda path, asset, side, lower, upper: open_account(
        path, asset=asset, normal_side=side, minimum_balance=lower, maximum_balance=upper
    ),
    st.sampled_from([*PATHS, "new", "newer"]),
    assets,
    sides,
    st.none() | st.integers(-30, 2),
    st.none() | st.integers(-2, 30),
)
steps = st.lists(st.tuples(clocks, mostly(posts, openings)), min_size=1, max_size=15)


@dataclass
class Run:
    """Commands carried out one batch after the other: the accounts before and after them, and around each event."""

    before: dict[str, Account]
    accounts: dict[str, Account]
    entries: list[Entry]
    events: list[tuple[Event, list[Entry], dict[str, Account]]]


def run(book: Book, commands: Iterable[tuple[datetime, Command]]) -> Run:
    ran = Run(book.accounts.copy(), {}, [], [])
    for now, command in commands:
        with contextlib.suppress(BooksRefuse):
            event = carry_out(book, command, now=now)
            ran.events.append((event, book.entries, book.accounts.copy()))
            ran.entries += book.entries
            head = Head(book.sequence, book.head.revision + 1, event.recorded_at)
            book = Book(head, accounts=book.accounts, references=book.references)
    ran.accounts = book.accounts
    return ran


runs = st.builds(run, random_books(), steps)


@RANDOM
@given(runs)
def test_the_entries_of_every_event_sum_to_zero_per_asset_and_column(ran: Run) -> None:
    for event, entries, _ in ran.events:
        sums: dict[tuple[str, str], int] = defaultdict(int)
        for entry in entries:
            for column in ("posted", "pending"):
                sums[entry.asset, column] += getattr(entry, column) * (1 if entry.side == "debit" else -1)
        assert set(sums.values()) <= {0}
        assert len(entries) == 2 * len(getattr(event, "postings", ()))


@RANDOM
@given(runs)
def test_the_counters_of_an_account_are_the_fold_of_its_entries(ran: Run) -> None:
    for after in ran.accounts.values():
        mine = [entry for entry in ran.entries if entry.account_id == after.account_id]
        before = ran.before.get(after.path, replace(after, **EMPTY))
        folded = {
            "debits_posted": before.debits_posted + sum(e.posted for e in mine if e.side == "debit"),
            "credits_posted": before.credits_posted + sum(e.posted for e in mine if e.side == "credit"),
            "debits_pending": before.debits_pending + sum(e.pending for e in mine if e.side == "debit"),
            "credits_pending": before.credits_pending + sum(e.pending for e in mine if e.side == "credit"),
            "version": before.version + len(mine),
            "latest_effective": after.latest_effective,
        }
        assert after == replace(before, **folded)


@RANDOM
@given(runs)
def test_versions_are_consecutive_and_balances_are_those_after_each_entry(ran: Run) -> None:
    for after in ran.accounts.values():
        before = ran.before.get(after.path, replace(after, **EMPTY))
        version, balance = before.version, posted(before)
        for entry in (entry for entry in ran.entries if entry.account_id == after.account_id):
            version += 1
            balance += raised(after.normal_side, entry)
            assert (entry.version, entry.balance) == (version, balance)
            assert entry.raised == raised(after.normal_side, entry)
            assert entry.asset == after.asset
        assert (after.version, posted(after)) == (version, balance)


@RANDOM
@given(runs)
def test_postings_find_their_entries_and_events_their_accounts(ran: Run) -> None:
    for event, entries, accounts in ran.events:
        assert {entry.sequence for entry in entries} <= {event.sequence}
        found = {(entry.account_id, entry.version): entry for entry in entries}
        for posting in getattr(event, "postings", ()):
            debit = found.pop((posting.debit_id, posting.debit_version))
            credit = found.pop((posting.credit_id, posting.credit_version))
            assert [("debit", posting.amount), ("credit", posting.amount)] == [
                (e.side, e.posted) for e in (debit, credit)
            ]
            assert accounts[posting.debit_account].account_id == posting.debit_id
            assert accounts[posting.credit_account].account_id == posting.credit_id
            assert posting.asset == accounts[posting.debit_account].asset == accounts[posting.credit_account].asset
        assert not found


@RANDOM
@given(runs)
def test_no_account_is_past_its_limits_after_any_transaction(ran: Run) -> None:
    for _, _, accounts in ran.events:
        assert [each for each in accounts.values() if not keeps_limits(each)] == []


@RANDOM
@given(random_books(), steps)
def test_a_command_is_refused_exactly_as_published_and_a_refused_one_changes_nothing(book: Book, commands: Any) -> None:
    for now, command in commands:
        expected, before = expected_refusal(command, book, now), state(book)
        if expected is None:
            carry_out(book, command, now=now)
        else:
            assert refusal(book, command, now=now) == expected
            assert state(book) == before


@RANDOM
@given(random_books(), steps)
def test_deciding_changes_nothing_before_it_is_applied(book: Book, commands: Any) -> None:
    for now, command in commands:
        before = state(book)
        try:
            decision = decide(command, book, now=now, actor="tester")
        except BooksRefuse:
            continue
        assert state(book) == before
        book.apply(decision)


@RANDOM
@given(runs)
def test_an_entry_is_late_exactly_if_its_account_has_seen_a_later_effective_time(ran: Run) -> None:
    for after in ran.accounts.values():
        before = ran.before.get(after.path)
        seen = before.latest_effective if before else EARLIEST
        effective = {event.sequence: event.effective_at for event, entries, _ in ran.events if entries}
        for entry in (entry for entry in ran.entries if entry.account_id == after.account_id):
            its_own = effective[entry.sequence]
            assert entry.late_effective == (its_own if its_own < seen else None)
            seen = max(seen, its_own)
            assert entry.latest_effective == seen
        assert after.latest_effective == seen


@RANDOM
@given(runs)
def test_the_log_has_no_gaps_and_its_recorded_times_never_fall(ran: Run) -> None:
    events = [event for event, *_ in ran.events]
    assert [event.sequence for event in events] == list(range(101, 101 + len(events)))
    times = [START, *(event.recorded_at for event in events)]
    assert times == sorted(times)


@given(st.lists(clocks, min_size=1, max_size=6), clocks)
def test_recorded_time_is_the_later_of_the_clock_and_the_heads(nows: list[datetime], seen: datetime) -> None:
    """The head moves on between batches; each batch has one clock."""
    for now in nows:
        book = book_of(account("a", 1), account("b", 2), recorded_at=seen)
        first = carry_out(book, post(("a", "b", 1)), now=now)
        second = carry_out(book, open_account("c"), now=now)
        assert first.recorded_at == second.recorded_at == (now if now > seen else seen)
        assert first.effective_at == first.recorded_at
        seen = first.recorded_at


@RANDOM
@given(amounts, st.integers(0, COUNTER_MAX), st.sampled_from(["debits", "credits"]))
@example(1, COUNTER_MAX - 1, "debits")
@example(1, COUNTER_MAX - 1, "credits")
@example(1, COUNTER_MAX, "debits")
@example(COUNTER_MAX, 0, "credits")
@example(COUNTER_MAX, 1, "debits")
def test_a_counter_takes_38_digits_and_not_one_unit_more(amount: int, there: int, column: str) -> None:
    full = account("full", 1, **{f"{column}_posted": there})
    other = account("other", 2)
    book = book_of(full, other)
    command = post(("full", "other", amount) if column == "debits" else ("other", "full", amount))
    if there + amount < 10**38:
        carry_out(book, command)
        assert getattr(book.accounts["full"], f"{column}_posted") == there + amount
    else:
        assert refusal(book, command) == {"code": "amount_overflow", "account": "full"}


# Named cases.


@pytest.mark.parametrize("column", ["debits", "credits"])
def test_what_is_pending_counts_towards_the_38_digits_so_that_no_capture_can_overflow(column: str) -> None:
    full = account("full", 1, **{f"{column}_posted": COUNTER_MAX - 10, f"{column}_pending": 9})
    names = ("full", "other") if column == "debits" else ("other", "full")
    book = book_of(full, account("other", 2))
    assert refusal(book, post((*names, 2))) == {"code": "amount_overflow", "account": "full"}
    carry_out(book, post((*names, 1)))
    assert refusal(book, post((*names, 1))) == {"code": "amount_overflow", "account": "full"}
    # The other counter has room of its own.
    carry_out(book, post((*reversed(names), 1)))


def test_a_balance_over_two_full_counters_is_exact() -> None:
    book = book_of(account("a", 1), account("b", 2, normal_side="credit"))
    carry_out(book, post(("a", "b", COUNTER_MAX)))
    carry_out(book, post(("b", "a", COUNTER_MAX - 1)))
    assert [(e.balance, e.version) for e in book.entries] == [(COUNTER_MAX, 1), (COUNTER_MAX, 1), (1, 2), (1, 2)]


def test_an_account_may_dip_below_its_minimum_within_a_transaction() -> None:
    book = book_of(account("wallet", 1, minimum_balance=0), account("bank", 2))
    carry_out(book, post(("bank", "wallet", 500), ("wallet", "bank", 500)))
    assert [entry.balance for entry in book.entries if entry.account_id == 1] == [-500, 0]


def test_an_account_may_pass_its_maximum_within_a_transaction() -> None:
    book = book_of(account("wallet", 1, maximum_balance=100), account("bank", 2))
    carry_out(book, post(("wallet", "bank", 500), ("bank", "wallet", 400)))
    assert [entry.balance for entry in book.entries if entry.account_id == 1] == [500, 100]
    assert refusal(book, post(("wallet", "bank", 500), ("bank", "wallet", 499))) == {
        "code": "maximum_exceeded",
        "account": "wallet",
        "available": 0,
        "required": 1,
    }


def test_a_counter_may_not_overflow_even_if_the_balance_comes_back() -> None:
    book = book_of(account("a", 1), account("b", 2))
    assert refusal(book, post(("a", "b", COUNTER_MAX), ("b", "a", 1), ("a", "b", 1))) == {
        "code": "amount_overflow",
        "account": "a",
    }


def test_several_postings_on_one_account_count_together() -> None:
    book = book_of(account("wallet", 1, minimum_balance=-10), account("x", 2), account("y", 3))
    assert refusal(book, post(("x", "wallet", 6), ("y", "wallet", 5))) == {
        "code": "insufficient_funds",
        "account": "wallet",
        "available": 10,
        "required": 11,
    }
    event = carry_out(book, post(("x", "wallet", 6), ("y", "wallet", 4)))
    assert [(p.debit_version, p.credit_version) for p in event.postings] == [(1, 1), (1, 2)]
    assert book.accounts["wallet"].credits_posted == 10


def test_a_whole_transaction_before_it_counts_but_a_refused_one_does_not() -> None:
    book = book_of(account("wallet", 1, minimum_balance=0), account("bank", 2))
    carry_out(book, post(("wallet", "bank", 100)))
    assert refusal(book, post(("bank", "wallet", 101)))["code"] == "insufficient_funds"
    carry_out(book, post(("bank", "wallet", 100)))
    assert refusal(book, post(("bank", "wallet", 1)))["available"] == 0


@pytest.mark.parametrize("side", ["debit", "credit"])
def test_what_is_pending_out_is_not_available_and_what_is_pending_in_takes_room(side: str) -> None:
    pending = {"debit": "debits_pending", "credit": "credits_pending"}
    lowered = pending["credit" if side == "debit" else "debit"]
    wallet = account(
        "wallet",
        1,
        normal_side=side,
        minimum_balance=0,
        maximum_balance=1000,
        **{f"{side}s_posted": 500, lowered: 100, pending[side]: 200},
    )
    book = book_of(wallet, account("bank", 2))
    into, out = (
        (("wallet", "bank"), ("bank", "wallet")) if side == "debit" else (("bank", "wallet"), ("wallet", "bank"))
    )
    limits = {"account": "wallet", "required": 401}
    assert refusal(book, post((*out, 401))) == {"code": "insufficient_funds", "available": 400, **limits}
    assert refusal(book, post((*into, 301))) == {
        "code": "maximum_exceeded",
        "account": "wallet",
        "available": 300,
        "required": 301,
    }
    carry_out(book, post((*out, 400)))
    assert book.accounts["wallet"].available == 0


def test_limits_bind_no_account_that_a_transaction_does_not_name() -> None:
    book = book_of(account("past", 1, minimum_balance=5), account("a", 2), account("b", 3))
    carry_out(book, post(("a", "b", 1)))
    assert book.accounts["past"].version == 0


@pytest.mark.parametrize(
    ("seconds", "accepted"), [(60, True), (60.000001, False), (0, True), (-(10**9), True), (3600, False)]
)
def test_an_effective_time_may_lie_a_minute_ahead_of_the_clock(seconds: float, accepted: bool) -> None:
    """Of the batch's clock, even where the log has seen a later one."""
    book = book_of(account("a", 1), account("b", 2), recorded_at=START + timedelta(days=1))
    command = post(("a", "b", 1), effective_at=START + timedelta(seconds=seconds))
    if accepted:
        assert carry_out(book, command).effective_at == command.effective_at
    else:
        assert refusal(book, command) == {"code": "time_out_of_range", "pointer": "/effective_at"}


def test_effective_times_begin_with_the_year_1900() -> None:
    book = book_of(account("a", 1), account("b", 2))
    early = post(("a", "b", 1), effective_at=EARLIEST - MICROSECOND)
    assert refusal(book, early) == {"code": "time_out_of_range", "pointer": "/effective_at"}
    carry_out(book, post(("a", "b", 1), effective_at=EARLIEST))
    assert [entry.late_effective for entry in book.entries] == [None, None]


def test_each_account_decides_for_itself_whether_an_entry_is_late() -> None:
    book = book_of(account("a", 1), account("b", 2), account("c", 3))
    carry_out(book, post(("a", "b", 1), effective_at=START - timedelta(hours=1)))
    carry_out(book, post(("a", "c", 1), effective_at=START - timedelta(hours=2)))
    carry_out(book, post(("a", "b", 1), effective_at=START - timedelta(hours=1)))
    late = START - timedelta(hours=2)
    assert [entry.late_effective for entry in book.entries] == [None, None, late, None, None, None]


def test_a_reference_is_taken_from_the_moment_its_transaction_is_applied() -> None:
    book = book_of(account("a", 1, minimum_balance=0), account("b", 2))
    assert refusal(book, post(("b", "a", 1), reference="r"))["code"] == "insufficient_funds"
    carry_out(book, post(("a", "b", 1), reference="r"))
    assert refusal(book, post(("a", "b", 2), reference="r")) == {"code": "reference_exists", "pointer": "/reference"}


def test_an_account_opened_in_a_batch_can_be_posted_to_in_the_same_batch() -> None:
    book = book_of(account("bank", 1))
    opened = carry_out(book, open_account("new", normal_side="credit"))
    carry_out(book, post(("bank", "new", 5)))
    assert (opened.account_id, book.accounts["new"].account_id, book.accounts["new"].posted) == (101, 101, 5)
    assert refusal(book, open_account("new")) == {"code": "account_exists", "account": "new"}


def test_a_ledger_begins_with_its_creation() -> None:
    book = Book(Head(sequence=0, revision=0, recorded_at=EARLIEST))
    event = carry_out(book, CreateLedger("main", "Wallets", {"team": "payments"}))
    assert (event.sequence, event.kind, event.recorded_at, event.revision) == (1, "ledger_created", START, 1)
    assert (event.name, event.description, event.metadata) == ("main", "Wallets", {"team": "payments"})


@pytest.mark.parametrize("limits", [(0, None), (None, 0), (0, 0), (-5, 5), (-(10**37), 10**37)])
def test_an_account_opens_within_limits_that_include_zero(limits: tuple[int | None, int | None]) -> None:
    event = carry_out(book_of(), open_account("a", minimum_balance=limits[0], maximum_balance=limits[1]))
    assert (event.minimum_balance, event.maximum_balance) == limits


# From the last of the published order to the first: each command has one fault more than the one before it.
PAST_LIMITS = (("capped", "a", 11), ("b", "wallet", 1), ("full", "a", 1))
LADDER = [
    ("maximum_exceeded", post(("capped", "a", 11)), {"account": "capped", "available": 10, "required": 11}),
    (
        "insufficient_funds",
        post(("capped", "a", 11), ("b", "wallet", 1)),
        {"account": "wallet", "available": 0, "required": 1},
    ),
    ("amount_overflow", post(*PAST_LIMITS), {"account": "full"}),
    (
        "version_conflict",
        post(*PAST_LIMITS, ("a", "b", 1, 7)),
        {"pointer": "/postings/3/expected_debit_version"},
    ),
    ("account_frozen", post(*PAST_LIMITS, ("a", "cold", 1, 7)), {"account": "cold"}),
    ("account_closed", post(*PAST_LIMITS, ("a", "cold", 1, 7), ("shut", "a", 1)), {"account": "shut"}),
    (
        "asset_mismatch",
        post(*PAST_LIMITS, ("a", "cold", 1, 7), ("shut", "a", 1), ("a", "coins", 1)),
        {"pointer": "/postings/5"},
    ),
    (
        "unknown_account",
        post(*PAST_LIMITS, ("a", "cold", 1, 7), ("shut", "a", 1), ("a", "coins", 1), ("a", "nobody", 1)),
        {"pointer": "/postings/6/credit_account"},
    ),
    ("reference_exists", post(*PAST_LIMITS, ("nobody", "cold", 1), reference="taken"), {"pointer": "/reference"}),
    (
        "period_closed",
        post(*PAST_LIMITS, ("nobody", "cold", 1), reference="taken", effective_at=START - timedelta(days=2)),
        {"pointer": "/effective_at"},
    ),
    (
        "time_out_of_range",
        post(
            *PAST_LIMITS,
            ("nobody", "cold", 1),
            reference="taken",
            effective_at=START - timedelta(days=2),
            pending=True,
            expires_at=START,
        ),
        {"pointer": "/expires_at"},
    ),
    (
        "time_out_of_range",
        post(
            *PAST_LIMITS,
            ("nobody", "cold", 1),
            reference="taken",
            effective_at=EARLIEST - MICROSECOND,
            pending=True,
            expires_at=START,
        ),
        {"pointer": "/effective_at"},
    ),
]


@pytest.mark.parametrize(("code", "command", "fields"), LADDER)
def test_of_several_faults_the_first_of_the_published_order_is_named(
    code: str, command: PostTransaction, fields: dict[str, Any]
) -> None:
    book = book_of(
        account("a", 1),
        account("b", 2),
        account("capped", 3, maximum_balance=10),
        account("wallet", 4, minimum_balance=0),
        account("full", 5, debits_posted=COUNTER_MAX),
        account("coins", 6, asset="BTC/8"),
        account("cold", 7, status="frozen"),
        account("shut", 8, status="closed"),
    )
    book.references.add("taken")
    book.closed_before = START - timedelta(days=1)
    assert refusal(book, command) == {"code": code, **fields}


def test_of_several_accounts_the_one_named_first_is_refused_and_the_debited_before_the_credited() -> None:
    limited = {"minimum_balance": 0, "maximum_balance": 0}
    book = book_of(account("z", 1, **limited), account("m", 2, normal_side="credit", **limited), account("a", 3))
    assert refusal(book, post(("z", "m", 1))) == {
        "code": "maximum_exceeded",
        "account": "z",
        "available": 0,
        "required": 1,
    }
    assert refusal(book, post(("m", "z", 1)))["account"] == "m"
    # One code after the other: the second account's minimum comes before the first one's maximum.
    assert refusal(book, post(("z", "a", 1), ("m", "a", 1)))["code"] == "insufficient_funds"
    assert refusal(book, post(("z", "a", 1), ("m", "a", 1)))["account"] == "m"


def test_an_unknown_account_of_a_later_posting_comes_before_a_mismatch_of_an_earlier_one() -> None:
    book = book_of(account("a", 1), account("coins", 2, asset="BTC/8"))
    assert refusal(book, post(("a", "coins", 1), ("a", "nobody", 1))) == {
        "code": "unknown_account",
        "pointer": "/postings/1/credit_account",
    }


def test_an_account_that_exists_is_named_before_limits_that_rule_out_zero() -> None:
    book = book_of(account("a", 1))
    wrong = {"minimum_balance": 1, "maximum_balance": -1}
    assert refusal(book, open_account("a", **wrong)) == {"code": "account_exists", "account": "a"}
    assert refusal(book, open_account("b", **wrong)) == {"code": "limit_not_met", "pointer": "/minimum_balance"}


def a_post(*moves: Move, **changes: Any) -> PostTransaction:
    said = dict.fromkeys(("effective_at", "reference", "group", "description"))
    return PostTransaction(moves, **said, metadata={}, **changes)


def test_refuses_postings_between_an_account_and_itself() -> None:
    with pytest.raises(ValidationFailed) as caught:
        check_transaction(a_post(Move("a", "a", 1), Move("a", "b", 1), Move("c", "c", 1)))
    assert [each["pointer"] for each in caught.value.errors] == [
        "/postings/0/credit_account",
        "/postings/2/credit_account",
    ]
    check_transaction(a_post(Move("a", "b", 1), Move("b", "a", 1)))


def test_only_a_hold_expires() -> None:
    with pytest.raises(ValidationFailed) as caught:
        check_transaction(a_post(Move("a", "b", 1), expires_at=START))
    assert [each["pointer"] for each in caught.value.errors] == ["/expires_at"]
    check_transaction(a_post(Move("a", "b", 1), pending=True, expires_at=START))
