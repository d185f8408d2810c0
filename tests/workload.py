"""What callers send in a history with faults: seeded requests to one ledger, and how each caller behaves.

The seed decides the requests, how long callers wait, and which of them go away. In which order the requests meet is for
the machine, the network and the faults to decide.
"""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from tests.model import Answer, Body
from tests.seen import Request

# A request about a transaction is about one of the last so many, so that callers meet.
RECENT = 12
# How long holds last: for ever, or so many seconds.
LASTING = [None, None, 0.3, 1.0, 3.0, 3600.0]
REFERENCES = 60
EXTRA_ACCOUNTS = 12

ACCOUNTS: dict[str, Body] = {
    "bank": {"normal_side": "debit"},
    "hot": {"normal_side": "credit"},
    "fees": {"normal_side": "credit"},
    "float": {"normal_side": "debit"},
    **{f"wallets:{n}": {"normal_side": "credit", "minimum_balance": "0"} for n in range(3)},
    **{f"jars:{n}": {"normal_side": "credit", "minimum_balance": "0", "maximum_balance": "300"} for n in range(2)},
    "till": {"normal_side": "debit", "minimum_balance": "-50", "maximum_balance": "50"},
}
# Their status and limits change all the time.
CHANGING = ("wallets:2", "jars:1", "till")


class Manner(StrEnum):
    """How a caller behaves, after which it may send the request again with the same key."""

    WAITS = "waits"
    # The client gives up after a second or less, which only a fault makes it need.
    TIMES_OUT = "times out"
    # The connection is closed at a random moment after the request was sent.
    LEAVES = "leaves"
    # The connection is closed when half of the request was sent.
    SENDS_HALF = "sends half"


@dataclass(frozen=True)
class Job:
    """A request that is made when it is sent, what its caller does with it, and whether it comes back for the answer.

    `pick` chooses the transaction that it is about, among those that are known by then. A hold that `lasts` expires so
    many seconds after it is first sent. A twin is sent to both processes at once.
    """

    request: Request
    manner: Manner = Manner.WAITS
    patience_s: float = 0.0
    comes_back: bool = True
    twin: bool = False
    pick: int | None = None
    lasts: float | None = None


@dataclass
class Known:
    """What callers have been told: transactions by kind, revisions and versions of accounts, the ledger's revision."""

    transactions: dict[str, list[int]] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    ledger_revision: int = 1

    def learn(self, request: Request, answer: Answer) -> None:
        if answer.status not in (200, 201):
            return
        told = [answer.body, *(each.get("transaction", {}) for each in answer.body.get("results", []))]
        for body in told:
            kind = body.get("kind", "").removeprefix("transaction_")
            if kind:
                self.transactions.setdefault(kind, []).append(body["sequence"])
            for posting in body.get("postings", []):
                for side in ("debit", "credit"):
                    self.versions[posting[f"{side}_account"]] = posting[f"{side}_version"]
        if request.operation in ("createAccount", "updateAccount"):
            self.revisions[answer.body["path"]] = answer.body["revision"]
        elif request.operation == "updateLedger":
            self.ledger_revision = answer.body["revision"]

    def settle(self, job: Job) -> Request:
        """The request of a job as it is first sent, and with the same key ever after."""
        request, body = job.request, dict(job.request.body)
        about = request.about
        if job.pick is not None:
            kinds = ("posted", "captured") if request.operation == "reverseTransaction" else ("held",)
            recent = [sequence for kind in kinds for sequence in self.transactions.get(kind, [])[-RECENT:]]
            about = recent[job.pick % len(recent)] if recent else 1
        if job.lasts is not None:
            body["expires_at"] = (datetime.now(UTC) + timedelta(seconds=job.lasts)).isoformat()
        if request.operation == "updateAccount":
            body["revision"] = self.revisions.get(str(about), 1)
        elif request.operation == "updateLedger":
            body["revision"] = self.ledger_revision
        elif request.operation == "postTransaction" and body.pop("expects", False):
            (first, *others) = body["postings"]
            seen = self.versions.get(first["debit_account"], 0)
            body["postings"] = [{**first, "expected_debit_version": seen}, *others]
        return replace(request, body=body, about=about)


def opening() -> Iterator[Request]:
    """The accounts that everything begins with, something posted and something held."""
    for path, fields in ACCOUNTS.items():
        yield Request("createAccount", f"open-{path}", {"path": path, "asset": "USD/2", **fields})
    yield Request("postTransaction", "first-post", {"postings": [posting("bank", "hot", 900)]})
    yield Request("postTransaction", "first-hold", {"postings": [posting("hot", "fees", 9)], "pending": True})


def jobs(seed: int, share_of_cancelled: float = 0.3) -> Iterator[Job]:
    """Jobs without end, of which so many are left by their callers before the answer."""
    chance = random.Random(seed)
    earlier: list[Job] = []
    for number in itertools.count(1):
        if earlier and chance.random() < 0.05:  # with a key that was used before: for the same, or for something else
            job = chance.choice(earlier[-100:])
            if job.pick is None and job.lasts is None and chance.random() < 0.6:
                yield behave(chance, job, share_of_cancelled)
                continue
            yield behave(chance, draw(chance, job.request.key), share_of_cancelled)
            continue
        job = draw(chance, f"key-{number}")
        if job.request.operation not in ("updateAccount", "updateLedger") and not job.request.body.get("expects"):
            earlier.append(job)
        yield behave(chance, job, share_of_cancelled)


def behave(chance: random.Random, job: Job, share_of_cancelled: float) -> Job:
    if chance.random() > share_of_cancelled:
        return replace(job, twin=chance.random() < 0.05)
    manner = chance.choices([Manner.LEAVES, Manner.TIMES_OUT, Manner.SENDS_HALF], [70, 20, 10])[0]
    if manner == Manner.TIMES_OUT:
        patience_s = chance.uniform(0.05, 1.0)
    else:  # at once, or around the time that an answer takes
        patience_s = chance.choice([0.0, chance.expovariate(1 / 0.004), chance.expovariate(1 / 0.03)])
    return replace(job, manner=manner, patience_s=patience_s, comes_back=chance.random() < 0.6)


def draw(chance: random.Random, key: str) -> Job:
    """Half of them post; the others hold, or are about what was posted or held shortly before, or configure."""
    operation = chance.choices(
        ["post", "hold", "captureTransaction", "voidTransaction", "reverseTransaction", "expecting", "batch", "change"],
        [40, 20, 14, 4, 8, 3, 3, 8],
    )[0]
    if operation == "post":
        return Job(Request("postTransaction", key, transaction(chance, key)))
    if operation == "hold":
        body = {**transaction(chance, key), "pending": True}
        return Job(Request("postTransaction", key, body), lasts=chance.choice(LASTING))
    if operation == "expecting":
        return Job(Request("postTransaction", key, {**transaction(chance, key), "expects": True}))
    if operation == "batch":
        bodies = [transaction(chance, f"{key}.{n}") for n in range(chance.randint(2, 5))]
        body = {"transactions": bodies, "atomic": chance.random() < 0.5}
        return Job(Request("postTransactionBatch", key, body))
    if operation == "change":
        return change(chance, key)
    body: Body = {"description": key}  # so that no two of them are the same
    if operation == "captureTransaction" and chance.random() < 0.6:
        body["amounts"] = [{"posting": 0, "amount": str(chance.randint(1, 30))}]
        body |= {"remainder": "keep"} if chance.random() < 0.6 else {}
    # One in twenty is about an event that is no transaction, or about none.
    about = chance.choice([1, 3, 1_000_000]) if chance.random() < 0.05 else 0
    if about:
        return Job(Request(operation, key, body, about))
    return Job(Request(operation, key, body), pick=chance.randrange(RECENT))


def change(chance: random.Random, key: str) -> Job:
    """What configures: accounts that many want to open, statuses, limits, the ledger, periods."""
    what = chance.choices(["account", "status", "ledger", "close", "reopen"], [30, 40, 10, 10, 10])[0]
    if what == "account":
        path = f"extra:{chance.randrange(EXTRA_ACCOUNTS)}"
        return Job(Request("createAccount", key, {"path": path, "asset": "USD/2", "normal_side": "debit"}))
    if what == "status":
        path = chance.choice([*CHANGING, f"extra:{chance.randrange(EXTRA_ACCOUNTS)}"])
        body: Body = {"status": chance.choices(["open", "frozen"], [70, 30])[0]}
        limits = {name: ACCOUNTS.get(path, {}).get(name) for name in ("minimum_balance", "maximum_balance")}
        if chance.random() < 0.3:
            limits["maximum_balance"] = str(chance.randint(0, 400))
        body |= {name: limit for name, limit in limits.items() if limit is not None}
        return Job(Request("updateAccount", key, {**body, "description": key}, path))
    if what == "ledger":
        return Job(Request("updateLedger", key, {"description": key}))
    before = datetime(2020, 1, chance.randint(1, 20), tzinfo=UTC).isoformat()
    if what == "close":
        return Job(Request("closePeriod", key, {"before": before, "reason": key}))
    return Job(
        Request("reopenPeriod", key, {"before": before, "reason": key} if chance.random() < 0.5 else {"reason": key})
    )


def transaction(chance: random.Random, key: str) -> Body:
    debit, credit, amount_max = chance.choice(
        [
            *[("bank", "hot", 1000)] * 4,
            *[("bank", f"wallets:{chance.randrange(3)}", 100)] * 2,
            *[(f"wallets:{chance.randrange(3)}", "hot", 150)] * 3,
            ("bank", f"jars:{chance.randrange(2)}", 40),
            (f"jars:{chance.randrange(2)}", f"wallets:{chance.randrange(3)}", 40),
            ("till", "fees", 30),
            ("fees", "till", 30),
            ("float", f"extra:{chance.randrange(EXTRA_ACCOUNTS)}", 10),
        ]
    )
    postings = [posting(debit, credit, chance.randint(1, amount_max))]
    if chance.random() < 0.2:  # a fee, and the hot account named twice
        postings += [posting("hot", "fees", 2), posting("float", "hot", 1)]
    body: Body = {"postings": postings, "description": key}
    if chance.random() < 0.2:
        body["effective_at"] = datetime(2020, 1, chance.randint(1, 28), tzinfo=UTC).isoformat()
    if chance.random() < 0.1:
        body["reference"] = f"ref-{chance.randrange(REFERENCES)}"
    return body


def posting(debit: str, credit: str, amount: int) -> Body:
    return {"debit_account": debit, "credit_account": credit, "amount": str(amount)}


def reads(seed: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Reads without end: of which kind, of what, and with which parameters. The reader chooses which transaction."""
    chance = random.Random(seed)
    while True:
        path = chance.choice([*ACCOUNTS, f"extra:{chance.randrange(EXTRA_ACCOUNTS)}"])
        yield chance.choice(
            [
                ("account", path, {}),
                ("accounts", "", {"limit": 1000}),
                ("balance", chance.choice([*ACCOUNTS]), {}),
                ("holds", chance.choice([*ACCOUNTS]), {"limit": 1000}),
                ("entries", chance.choice([*ACCOUNTS]), {"limit": 20}),
                ("transaction", "", {}),
            ]
        )
