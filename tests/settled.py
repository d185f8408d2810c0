"""Books for a test, and what has to be so when it has ended: all there is as the model has it, and each invariant
that the service's own words can show."""

from collections.abc import Iterator

import pytest

from tests.comparison import PAGES_MAX, START, Books, Listing
from tests.model import Body, in_plain

STATES_MAX = 30


@pytest.fixture(params=["model", "service"])
def books(request: pytest.FixtureRequest) -> Iterator[Books]:
    """Books with a ledger, `main`, on a clock of their own."""
    service = request.getfixturevalue("service") if request.param == "service" else None
    before = service.clock.now if service is not None else START
    books = Books(service)
    assert books.create_ledger("main").status == 201
    yield books
    try:
        if service is not None:
            check_the_end(books)
    finally:
        books.close()
        if service is not None:
            service.clock.now = before


def check_the_end(books: Books) -> None:
    """Compare all there is with the model, and hold what the service says of itself against the invariants."""
    books.read_ledgers(10)
    for name in books.model.books:
        ledger = name.removeprefix(books.prefix)
        head = books.read_ledger(ledger).body
        events = read_whole_log(books, name)
        assert events == books.model.books[name].events
        assert [event["sequence"] for event in events] == list(range(1, head["sequence"] + 1))
        recorded = [event["recorded_at"] for event in events]
        assert recorded == sorted(recorded)

        transactions = [event["transaction"] for event in events if "transaction" in event]
        held = [each["sequence"] for each in transactions if each["kind"] == "transaction_held"]
        check_holds([books.read_transaction(sequence, ledger).body for sequence in held[-STATES_MAX:]], transactions)

        accounts = read_whole_list(books, Listing("accounts", ledger))
        opened = [event["account"]["path"] for event in events if event["kind"] == "account_opened"]
        assert [account["path"] for account in accounts] == sorted(opened)
        sums: dict[str, int] = {}
        for account in accounts:
            sums.setdefault(account["asset"], 0)
            sums[account["asset"]] += int(account["debits_posted"]) - int(account["credits_posted"])
            changes = [event["account"] for event in events if event.get("account", {}).get("path") == account["path"]]
            assert [change["revision"] for change in changes] == list(range(1, account["revision"] + 1))
            in_force = {name: value for name, value in changes[-1].items() if name in account and name != "sequence"}
            assert account | in_force == account
            lines = read_whole_list(books, Listing("entries", ledger, account["path"], "oldest"))
            check_statement(account, lines, changes)
            check_counters(account, transactions)
        assert set(sums.values()) <= {0}


def read_whole_log(books: Books, name: str) -> list[Body]:
    events: list[Body] = []
    for _ in range(PAGES_MAX):
        params = {"after_sequence": len(events), "limit": 1000}
        page = in_plain(books.send("GET", f"/{name}/events", params=params).json())
        events += page["items"]
        if len(events) >= page["sequence"]:
            return events
    raise AssertionError("the log has no end")


def read_whole_list(books: Books, listing: Listing) -> list[Body]:
    """What the service says, which is what the model says; short enough here for one page."""
    params = {"limit": 1000} | ({} if listing.kind == "accounts" else {"order": listing.order})
    answer = books.send("GET", f"/{books.prefix}{listing.ledger}/{listing.path()}", params=params)
    items = in_plain(answer.json())["items"]
    assert items == books.remaining(listing).body["items"]
    return items


def check_holds(states: list[Body], transactions: list[Body]) -> None:
    """What is said of a hold is what the events that name it make of it, and no more than was held."""
    for state in states:
        later = [each for each in transactions if each["hold"] == state["sequence"]]
        ended = {"transaction_voided": "voided", "transaction_expired": "expired", "transaction_captured": "captured"}
        for line in state["hold_lines"]:
            named = [p for each in later for p in each["postings"] if p["hold_posting"] == line["posting"]]
            assert line["captured"] == str(sum(int(posting["amount"]) for posting in named))
            assert line["released"] == str(sum(int(posting["released"]) for posting in named))
            gone = int(line["captured"]) + int(line["released"])
            assert gone <= int(line["held"])
            assert state["hold_status"] == "pending" or gone == int(line["held"])
        assert state["hold_status"] in ("pending", later and ended[later[-1]["kind"]])


def check_statement(account: Body, entries: list[Body], changes: list[Body]) -> None:
    """The balance of each line is the fold of those before it, within the limits in force."""
    versions = [entry["version"] for entry in entries]
    assert versions == sorted(set(versions))
    assert not versions or versions[-1] <= account["version"]
    counters = {"debit": 0, "credit": 0}
    for number, entry in enumerate(entries):
        in_force = [change for change in changes if change["sequence"] < entry["sequence"]][-1]
        lower, upper = (in_force[name] and int(in_force[name]) for name in ("minimum_balance", "maximum_balance"))
        assert in_force["status"] == "open"
        counters[entry["side"]] += int(entry["amount"])
        raised = counters["debit"] - counters["credit"]
        balance = raised if account["normal_side"] == "debit" else -raised
        assert entry["balance"] == str(balance)
        if number + 1 == len(entries) or entries[number + 1]["sequence"] != entry["sequence"]:
            assert lower is None or balance >= lower
            assert upper is None or balance <= upper
    assert account["debits_posted"] == str(counters["debit"])
    assert account["credits_posted"] == str(counters["credit"])
    assert account["posted"] == (entries[-1]["balance"] if entries else "0")


def check_counters(account: Body, transactions: list[Body]) -> None:
    """An account's version and its pending counters are the fold of all the postings that name it, and what is
    posted stays within its limits whatever becomes of what is pending."""
    versions, pending = [], {"debit": 0, "credit": 0}
    for each in transactions:
        for posting in each["postings"]:
            for side in pending:
                if posting[f"{side}_account"] == account["path"]:
                    versions.append(posting[f"{side}_version"])
                    if each["kind"] == "transaction_held":
                        pending[side] += int(posting["amount"])
                    elif each["hold"] is not None:
                        pending[side] -= int(posting["amount"]) + int(posting["released"])
    assert versions == list(range(1, account["version"] + 1))
    assert account["debits_pending"] == str(pending["debit"])
    assert account["credits_pending"] == str(pending["credit"])
    lowering, raising = ("credit", "debit") if account["normal_side"] == "debit" else ("debit", "credit")
    posted = int(account["posted"])
    assert account["available"] == str(posted - pending[lowering])
    lower, upper = (account[name] and int(account[name]) for name in ("minimum_balance", "maximum_balance"))
    assert lower is None or posted - pending[lowering] >= lower
    assert upper is None or posted + pending[raising] <= upper
