"""Whatever hypothesis comes upon, the service answers as the model does.

A longer search than the ordinary one: `HYPOTHESIS_PROFILE=campaign scripts/test tests/test_random_histories.py`.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)

from app.ledger import expiry
from tests.comparison import Books, Listing, expecting
from tests.conftest import Service
from tests.looks import balance, find, read_sums, statement
from tests.model import AMOUNT_MAX, Body, Book, instant, ledger_in_force
from tests.settled import check_the_end

CAMPAIGN = os.environ.get("HYPOTHESIS_PROFILE") == "campaign"
PROFILE = settings(
    max_examples=1_000 if CAMPAIGN else 40,
    stateful_step_count=60 if CAMPAIGN else 40,
    deadline=None,
    report_multiple_bugs=False,
    phases=set(Phase) - {Phase.explain},  # which would send as many requests again
    suppress_health_check=list(HealthCheck),
)

LEDGERS = ["a", "_", "B"]
PATHS = ["bank", "wallet", "jar", "bank:2", "Wallet", "bank-2"]
OPENED = PATHS[:3]
SECONDS = [0.000001, 1.0, 60.0, 60.000001, 3600.0, 86400.0]
HUGE = [AMOUNT_MAX, AMOUNT_MAX - 1, AMOUNT_MAX // 2, AMOUNT_MAX // 2 + 1, 2**63, 10**28 + 1]

ledgers = st.sampled_from([*LEDGERS[:1] * 8, *LEDGERS])
paths = st.sampled_from([*OPENED * 3, *PATHS])
limits = st.integers(1, 5)
orders = st.sampled_from(["oldest", "newest"])
listings = st.builds(
    lambda kind, ledger, path, order: {
        "accounts": Listing("accounts", ledger),
        "entries": Listing("entries", ledger, path, order),
        "holds": Listing("holds", ledger, path, order),
        "transactions": Listing("transactions", ledger, "", order),
    }[kind],
    st.sampled_from(["entries", "entries", "holds", "transactions", "accounts"]),
    ledgers,
    paths,
    orders,
)
texts = st.sampled_from(["", "tea", "Tee für zwei\n\t🫖", "'; drop table events; --", '\\"', "\ufffd\u2028"])
metadata = st.dictionaries(st.sampled_from(["a", "b.c", "__proto__"]), texts, max_size=2)
amounts = st.sampled_from([*range(1, 10)] * 3 + HUGE)
balances = st.integers(-9, 20) | st.sampled_from([*HUGE, *(-huge for huge in HUGE)])
pairs = st.sampled_from([*permutations(OPENED, 2)] * 30 + [*permutations(PATHS, 2), ("bank", "bank")])
postings = st.builds(
    lambda pair, amount: {"debit_account": pair[0], "credit_account": pair[1], "amount": str(amount)},
    pairs,
    amounts,
)
several_postings = st.lists(postings, min_size=1, max_size=4)
plain_postings = st.lists(
    st.builds(
        lambda pair, amount: {"debit_account": pair[0], "credit_account": pair[1], "amount": str(amount)},
        st.sampled_from([*permutations(OPENED, 2)]),
        st.integers(1, 4),
    ),
    min_size=1,
    max_size=3,
)
texts_and_metadata = {"description": texts, "metadata": metadata}
ledger_fields = st.fixed_dictionaries({}, optional=texts_and_metadata)
accounts = st.fixed_dictionaries(
    {
        "path": st.sampled_from(PATHS),
        "asset": st.sampled_from(["USD/2", "USD/2", "POINTS/0"]),
        "normal_side": st.sampled_from(["debit", "credit"]),
    },
    optional={
        "minimum_balance": balances.map(lambda balance: str(min(balance, 1))),
        "maximum_balance": balances.map(lambda balance: str(max(balance, -1))),
        **texts_and_metadata,
    },
)
configurations = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["open", "open", "frozen", "closed"]),
        "minimum_balance": balances.map(lambda balance: str(min(balance, 5))),
        "maximum_balance": balances.map(lambda balance: str(max(balance, -5))),
        **texts_and_metadata,
    },
)
group = st.sampled_from(["g1", "{}"])
# Times are in seconds from now until they are sent, or as they are.
effective_times = st.sampled_from(
    [
        0.0,
        *(-seconds for seconds in SECONDS),
        *SECONDS[:4],
        "2029-12-31T23:59:59.999999-12:00",
        "1900-01-01T00:00:00Z",
        "1899-12-31T23:59:59.999999Z",
    ]
)
# Most are plain posts; one in two dozen asks for the impossible, an expiry of what is no hold.
kinds = st.sampled_from(
    [
        *[{}] * 14,
        {"pending": False},
        {"pending": True},
        *({"pending": True, "expires_at": seconds} for seconds in (*SECONDS[:3] * 2, 0.0)),
        {"expires_at": 60.0},
    ]
)
said = {
    "reference": st.sampled_from(["r1", "R1", "r2", "r3"]),
    **texts_and_metadata,
}
transactions = st.builds(
    lambda kind, body: {**body, **kind},
    kinds,
    st.fixed_dictionaries(
        {"postings": several_postings}, optional={**said, "group": group, "effective_at": effective_times}
    ),
)
expiries = st.sampled_from([None, None, *SECONDS[:3] * 2, 3600.0])
# What is captured: postings of a hold by number, and of each all that remains, half of it, one, or too much.
share = st.tuples(
    st.sampled_from([0, 0, 0, 0, 1, 1, 2, 3]), st.sampled_from(["all", "half", "half", "one", "one", "over"])
)
shares = st.one_of(
    *[st.lists(share, max_size=3, unique_by=lambda each: each[0])] * 9, st.lists(share, min_size=2, max_size=3)
)
endings = st.fixed_dictionaries({}, optional={**said, "effective_at": effective_times})
captures = st.lists(st.tuples(st.integers(0, 3), shares, st.booleans(), endings), min_size=1, max_size=3)
bounds = st.fixed_dictionaries(
    {}, optional={"effective": effective_times, "recorded": effective_times, "sequence": st.integers(-1, 20)}
)
filters = st.sampled_from(
    [
        ("accounts", {"prefix": "bank"}),
        ("accounts", {"asset": "USD/2"}),
        ("accounts", {"status": "frozen"}),
        *(("transactions", {"account": path}) for path in PATHS[:4]),
        ("transactions", {"reference": "r1"}),
        ("transactions", {"group": "g1"}),
        ("transactions", {"effective_from": -3600.0}),
        ("transactions", {"effective_to": 0.0}),
        ("transactions", {"effective_from": -86400.0, "effective_to": -1.0}),
    ]
)


@dataclass(frozen=True)
class Write:
    operation: str
    ledger: str
    key: str
    body: Body
    about: str | int = ""


@dataclass(frozen=True)
class OpenPage:
    """A list of which a page has been read and more was promised."""

    listing: Listing
    cursor: str
    after: Any


class Comparison(RuleBasedStateMachine):
    """Any requests in any order, each of which the service has to answer as the model does."""

    writes = Bundle("writes")
    pages = Bundle("pages")

    def __init__(self, service: Service) -> None:
        super().__init__()
        self.books = Books(service)
        self.keys = 0
        self.left = 0
        self.passed = True

    @initialize(target=writes, sides=st.tuples(*[st.sampled_from(["debit", "credit"])] * 3))
    def open_the_books(self, sides: tuple[str, str, str]) -> Any:
        """A ledger and three accounts, so that the first transaction can already succeed."""
        self.create_ledger(LEDGERS[0], {}, rewritten=False)
        limits: list[Body] = [{}, {"minimum_balance": "-5"}, {"maximum_balance": "9"}]
        bodies = [
            {"path": path, "asset": "USD/2", "normal_side": side, **limit}
            for path, side, limit in zip(OPENED, sides, limits, strict=True)
        ]
        return multiple(*(self.open_account(LEDGERS[0], body) for body in bodies))

    @rule(ledger=ledgers, fields=ledger_fields, rewritten=st.booleans())
    def create_ledger(self, ledger: str, fields: Body, rewritten: bool) -> None:
        self.compared(self.books.create_ledger, ledger, rewritten=rewritten, **fields)

    @rule(target=writes, ledger=ledgers, body=accounts)
    def open_account(self, ledger: str, body: Body) -> Write:
        return self.send("createAccount", ledger, body)

    @rule(target=writes, ledger=ledgers, body=transactions)
    def post_transaction(self, ledger: str, body: Body) -> Write:
        return self.send("postTransaction", ledger, self.dated(body))

    @rule(target=writes, ledger=ledgers, bodies=st.lists(transactions, min_size=1, max_size=4), atomic=st.booleans())
    def post_a_batch(self, ledger: str, bodies: list[Body], atomic: bool) -> Write:
        dated = [self.dated(body) for body in bodies]
        return self.send("postTransactionBatch", ledger, {"transactions": dated, "atomic": atomic})

    @rule(target=writes, bodies=st.lists(plain_postings, min_size=1, max_size=3), expires_at=expiries)
    def hold(self, bodies: list[list[Body]], expires_at: float | None) -> Any:
        """Holds that few books refuse, so that there is something to capture."""
        said = {"pending": True} | ({} if expires_at is None else {"expires_at": expires_at})
        made = [self.send("postTransaction", LEDGERS[0], self.dated({"postings": each, **said})) for each in bodies]
        return multiple(*made)

    @rule(target=writes, asked=captures, postings=plain_postings)
    def capture(self, asked: list[tuple[int, list[tuple[int, str]], bool, Body]], postings: list[Body]) -> Any:
        """Of what is still pending mostly; if nothing is, something is held first."""
        made = []
        if not self.pending():
            made.append(self.send("postTransaction", LEDGERS[0], {"postings": postings, "pending": True}))
        for place, shares, keep, body in asked:
            hold = self.pick(self.pending() if place < 3 else [*self.book().holds], place)
            if shares:
                amounts = [(number, portion(self.book(), hold, number, how)) for number, how in shares]
                body = {**body, "amounts": [{"posting": number, "amount": str(amount)} for number, amount in amounts]}
            if keep:
                body = {**body, "remainder": "keep"}
            made.append(self.send("captureTransaction", LEDGERS[0], self.dated(body), about=hold))
        return multiple(*made)

    @rule(target=writes, place=st.integers(0, 3), body=endings)
    def void(self, place: int, body: Body) -> Write:
        hold = self.pick(self.pending() if place else [*self.book().holds], place)
        said = {name: value for name, value in body.items() if name != "effective_at"}
        return self.send("voidTransaction", LEDGERS[0], said, about=hold)

    @rule(target=writes, place=st.integers(0, 5), body=endings)
    def reverse(self, place: int, body: Body) -> Write:
        kinds = ("transaction_captured",) if place < 2 else ("transaction_posted", "transaction_captured")
        found = [event["sequence"] for event in self.book().events if event["kind"] in kinds]
        return self.send("reverseTransaction", LEDGERS[0], self.dated(body), about=self.pick(found, place))

    @rule(
        target=writes,
        operation=st.sampled_from(["captureTransaction", "voidTransaction", "reverseTransaction"]),
        ledger=ledgers,
        back=st.integers(-1, 8),
    )
    def say_something_of_any_event(self, operation: str, ledger: str, back: int) -> Write:
        """`back` counts sequences from the end of the log; -1 lies beyond it."""
        book = self.books.model.books.get(self.books.prefix + ledger)
        return self.send(operation, ledger, {}, about=max(1, (book.sequence if book else 0) - back))

    @rule(target=writes, pair=pairs, sides=st.sampled_from([["debit"], ["credit"], ["debit", "credit"]]), stale=limits)
    def post_what_expects_versions(self, pair: tuple[str, str], sides: list[str], stale: int) -> Write:
        """One in five expects a version that is not there."""
        book = self.book()
        accounts = dict(zip(("debit", "credit"), pair, strict=True))
        known = {side: book.accounts.get(accounts[side]) for side in sides}
        seen = {side: (account.version if account else 0) + stale // 5 for side, account in known.items()}
        return self.send("postTransaction", LEDGERS[0], {"postings": [expecting(*pair, **seen)]})

    @rule(target=writes, bodies=st.lists(several_postings, min_size=1, max_size=6))
    def post_plain_transactions(self, bodies: list[list[Body]]) -> Any:
        """What moves the balances on is what makes the rest worth asking."""
        return multiple(*(self.send("postTransaction", LEDGERS[0], {"postings": body}) for body in bodies))

    @rule(target=writes, ledger=ledgers, path=paths, stale=st.sampled_from([0] * 9 + [1]), body=configurations)
    def update_account(self, ledger: str, path: str, stale: int, body: Body) -> Write:
        book = self.books.model.books.get(self.books.prefix + ledger)
        known = book.accounts.get(path) if book else None
        revision = (known.opened["revision"] if known else 1) + stale
        return self.send("updateAccount", ledger, {"revision": revision, **body}, about=path)

    @rule(target=writes, ledger=ledgers, stale=st.sampled_from([0] * 5 + [1]), fields=ledger_fields)
    def update_ledger(self, ledger: str, stale: int, fields: Body) -> Write:
        book = self.books.model.books.get(self.books.prefix + ledger)
        revision = (ledger_in_force(book)["revision"] if book else 1) + stale
        return self.send("updateLedger", ledger, {"revision": revision, **fields})

    @rule(target=writes, ledger=ledgers, seconds=st.sampled_from([0.0, *SECONDS, -3600.0]), reopen=st.integers(0, 2))
    def move_the_period(self, ledger: str, seconds: float, reopen: int) -> Write:
        body = {"before": (self.books.model.now - timedelta(seconds=seconds)).isoformat(), "reason": "so"}
        if reopen == 2:
            del body["before"]
        return self.send("reopenPeriod" if reopen else "closePeriod", ledger, body)

    @rule(write=writes, rewritten=st.booleans())
    def retry(self, write: Write, rewritten: bool) -> None:
        self.send(write.operation, write.ledger, write.body, key=write.key, rewritten=rewritten, about=write.about)

    @rule(times=st.integers(1, 2))
    def leave(self, times: int) -> None:
        """The next write, whatever it is, is sent and left before its answer, and then asked again with its key."""
        self.left = times

    @rule(target=writes, write=writes, other=writes)
    def use_a_key_for_another_request(self, write: Write, other: Write) -> Write:
        return self.send(other.operation, other.ledger, other.body, key=write.key, about=other.about)

    @rule(seconds=st.sampled_from([*SECONDS * 3, *(-seconds for seconds in SECONDS[:4])]))
    def move_the_clock(self, seconds: float) -> None:
        self.books.advance(seconds)

    @rule(ledger=ledgers, path=paths, back=st.integers(-1, 5), limit=limits)
    def look_around(self, ledger: str, path: str, back: int, limit: int) -> None:
        """`back` counts sequences from the end of the log; -1 lies beyond it."""
        book = self.books.model.books.get(self.books.prefix + ledger)
        sequence = max(0, (book.sequence if book else 0) - back)
        self.compared(self.books.read_ledger, ledger)
        self.compared(self.books.read_account, path, ledger)
        self.compared(self.books.read_transaction, max(1, sequence), ledger)
        self.compared(self.books.read_events, sequence, limit, ledger)

    @rule(ledger=ledgers, path=paths, bounds=bounds, limit=limits)
    def look_at_the_past(self, ledger: str, path: str, bounds: Body, limit: int) -> None:
        """Balances and sums as of then, or as of now if nothing is said."""
        book = self.books.model.books.get(self.books.prefix + ledger)
        as_of = {name: self.moment(value) for name, value in bounds.items()}
        if "sequence" in as_of:
            as_of["sequence"] = max(0, (book.sequence if book else 0) - as_of["sequence"])
        self.compared(balance, self.books, path, ledger=ledger, **as_of)
        prefix = path if limit % 2 else None
        self.compared(read_sums, self.books, "totals", ledger=ledger, prefix=prefix, limit=limit, **as_of)
        self.compared(read_sums, self.books, "trial-balance", ledger=ledger, limit=limit, **as_of)

    @rule(ledger=ledgers, path=paths, order=orders, limit=limits)
    def read_a_statement_in_effective_order(self, ledger: str, path: str, order: str, limit: int) -> None:
        self.compared(statement, self.books, path, order, ledger=ledger, limit=limit)

    @rule(ledger=ledgers, what=filters, order=orders, limit=limits)
    def find(self, ledger: str, what: tuple[str, Body], order: str, limit: int) -> None:
        kind, said = what
        asked = {name: self.moment(value) for name, value in said.items()}
        self.compared(find, self.books, kind, order, ledger=ledger, limit=limit, **asked)

    @rule(limit=limits)
    def list_ledgers(self, limit: int) -> None:
        self.compared(self.books.read_ledgers, limit)

    @rule(listing=listings, limit=limits)
    def read_a_list(self, listing: Listing, limit: int) -> None:
        self.compared(self.books.read_list, listing, limit)

    @rule(target=pages, listing=listings)
    def begin_a_list(self, listing: Listing) -> Any:
        return self.read_page(listing, 1)

    @rule(target=pages, page=consumes(pages), limit=limits, say_order=st.booleans(), other=listings)
    def read_on(self, page: OpenPage, limit: int, say_order: bool, other: Listing) -> Any:
        """A list goes on where it was left, whatever has been written since; no other list goes on there."""
        if other != page.listing:
            self.compared(self.books.refuse_cursor, other, page.cursor)
        return self.read_page(page.listing, limit, cursor=page.cursor, after=page.after, say_order=say_order)

    def book(self) -> Book:
        """The ledger that most is asked of, as the model has it."""
        return self.books.model.books[self.books.prefix + LEDGERS[0]]

    def pending(self) -> list[int]:
        return [sequence for sequence, hold in self.book().holds.items() if hold.status == "pending"]

    def pick(self, sequences: list[int], place: int) -> int:
        """One of these, or the sequence of an event that is yet to come."""
        return sequences[-1 - place % len(sequences)] if sequences else self.book().sequence + 1

    def dated(self, body: Body) -> Body:
        """With its times counted from now."""
        times = {name: body[name] for name in ("effective_at", "expires_at") if isinstance(body.get(name), float)}
        return body | {name: self.moment(seconds).isoformat() for name, seconds in times.items()}

    def moment(self, said: Any) -> Any:
        if isinstance(said, float):
            return self.books.model.now + timedelta(seconds=said)
        return instant(said) if isinstance(said, str) and said[:1].isdigit() else said

    def send(
        self,
        operation: str,
        ledger: str,
        body: Body,
        *,
        key: str | None = None,
        rewritten: bool = False,
        about: str | int = "",
    ) -> Write:
        if key is None:
            self.keys += 1
            key = f"k{self.keys}"
        left, self.left = self.left, 0
        self.compared(self.books.write, operation, ledger, key, body, rewritten=rewritten, about=about, left=left)
        return Write(operation, ledger, key, body, about)

    def read_page(self, listing: Listing, limit: int, **position: Any) -> Any:
        cursor, after = self.compared(self.books.read_page, listing, limit, **position)
        return multiple() if cursor is None else OpenPage(listing, cursor, after)

    def compared(self, ask: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Ask, and remember if the answers differed: the end of such books says nothing new."""
        self.passed = False
        answer = ask(*args, **named)
        self.passed = True
        return answer

    def teardown(self) -> None:
        if self.passed:
            check_the_end(self.books)
        self.books.close()


def portion(book: Book, hold: int, number: int, how: str) -> int:
    """So much of one posting of a hold, or of one that there is not."""
    known = book.holds.get(hold)
    remaining = known.remaining(number) if known and number in known.numbers else 0
    return max(1, {"all": remaining, "half": remaining // 2, "one": 1, "over": remaining + 1}[how])


def test_the_service_answers_whatever_is_asked_as_the_model_does(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so it does while it looks for due holds all the time, of itself, between any two requests."""
    monkeypatch.setattr(expiry, "LOOK_SECONDS", 0.005)
    before = service.clock.now
    try:
        run_state_machine_as_test(lambda: Comparison(service), settings=PROFILE)
    finally:
        service.clock.now = before
