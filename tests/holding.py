"""What tests of holds do over and over."""

from datetime import timedelta

from tests.comparison import START, Books, Listing, column

HOUR = timedelta(hours=1)


def funded(books: Books, amount: int = 100, **fields: str) -> None:
    """A bank, a wallet that cannot be overdrawn and has so much, and a shop."""
    books.open("bank")
    books.open("wallet", "credit", minimum_balance="0", **fields)
    books.open("shop", "credit")
    if amount:
        assert books.post(("bank", "wallet", amount)).status == 201


def held(books: Books, *postings: tuple[str, str, int], **fields: str) -> int:
    """Hold, by default so much of the wallet for the shop; the sequence of the hold."""
    answer = books.hold(*(postings or [("wallet", "shop", 60)]), **fields)
    assert answer.status == 201, answer
    return answer.body["sequence"]


def counters(books: Books, path: str) -> list[str]:
    names = ("debits_posted", "credits_posted", "debits_pending", "credits_pending", "posted", "available")
    account = books.read_account(path).body
    return [account[name] for name in names]


def lines(books: Books, hold: int) -> list[str]:
    """The status of a hold, and of each of its postings what was held, captured and released."""
    state = books.read_transaction(hold).body
    return [state["hold_status"]] + [f"{x['held']} {x['captured']} {x['released']}" for x in state["hold_lines"]]


def live(books: Books, path: str, order: str = "oldest") -> list[int]:
    return column(books.read_list(Listing("holds", "main", path, order), 2), "sequence")


def at(hours: float) -> str:
    return (START + hours * HOUR).isoformat()


def expiries(books: Books) -> list[tuple[int, int]]:
    """The sequence of each expiry in the log, and that of its hold."""
    log = books.read_events(0, 1000).body["items"]
    return [(e["sequence"], e["transaction"]["hold"]) for e in log if e["kind"] == "transaction_expired"]
