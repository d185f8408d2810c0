"""64 callers, two server processes, one database: no lost answer, no double effect, one gapless order.

What every caller was answered is held against the model, to which the same requests are put in the order of the
log, each at the time that the log says, with the expiries at theirs. An ordinary run takes 2,000 transactions; the
full size, and another mix of requests:

    TALLYSTICK_CONCURRENCY_TRANSACTIONS=20000 TALLYSTICK_CONCURRENCY_SEED=2 scripts/test tests/test_concurrency.py
"""

import asyncio
import hashlib
import itertools
import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from tests.books import check_invariants, fetch
from tests.comparison import WRITES, write_to
from tests.conftest import Processes
from tests.model import Answer, Body, Model, in_plain, instant

TRANSACTIONS = int(os.environ.get("TALLYSTICK_CONCURRENCY_TRANSACTIONS", "2000"))
SEED = int(os.environ.get("TALLYSTICK_CONCURRENCY_SEED", "1"))
CALLERS = 64
ATTEMPTS_MAX = 20
RETRY_SECONDS = 0.05
TIMEOUT_SECONDS = 30
POLL_SECONDS = 0.01
DRAIN_SECONDS_MAX = 30
LEDGER = "books"
BOOKS = f"/v1/ledgers/{LEDGER}"
REUSED = "idempotency_key_reused"
# How long holds last: for ever, or so many seconds.
LASTING = [None, None, 0.3, 1.0, 3.0, 3600.0]
LASTING_MAX = 3.0
# What is said of a transaction is said of one of the last so many, so that callers meet.
RECENT = 12

ACCOUNTS: dict[str, Body] = {
    "bank": {"normal_side": "debit"},
    "hot": {"normal_side": "credit"},
    "fees": {"normal_side": "credit"},
    "float": {"normal_side": "debit"},
    **{f"wallets:{n}": {"normal_side": "credit", "minimum_balance": "0"} for n in range(3)},
    **{f"jars:{n}": {"normal_side": "credit", "minimum_balance": "0", "maximum_balance": "300"} for n in range(2)},
    "till": {"normal_side": "debit", "minimum_balance": "-50", "maximum_balance": "50"},
}


@dataclass(frozen=True)
class Job:
    """One request of a caller; a twin is sent to both processes at once.

    A hold that `lasts` expires so many seconds after the request is first sent. What is said of a transaction is said
    of one that is known by then: `pick` chooses it, and `about` is its sequence.
    """

    operation: str
    key: str
    body: Body
    twin: bool = False
    lasts: float | None = None
    pick: int | None = None
    about: int | None = None

    @property
    def asked(self) -> tuple[Any, ...]:
        """What it asks for: two requests with one key are the same if this is."""
        return self.operation, self.about, self.body


@dataclass
class Exchange:
    """A request and its final answer, with the time of its first attempt and that of the answer."""

    job: Job
    sent: float
    answered: float
    answer: Answer
    unanswered_attempts: int


@dataclass
class Look:
    """What a reader saw: how far the log had come, and when it looked."""

    sent: float
    answered: float
    sequence: int
    accounts: list[Body] | None = None


@dataclass
class Story:
    """Everything that anyone saw."""

    exchanges: list[Exchange] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    tailed: list[Body] = field(default_factory=list)
    log: list[Body] = field(default_factory=list)
    statements: dict[str, list[Body]] = field(default_factory=dict)
    accounts: list[Body] = field(default_factory=list)
    transactions: list[Body] = field(default_factory=list)
    decided: dict[str, tuple[int, bool]] = field(default_factory=dict)
    states: dict[int, Body] = field(default_factory=dict)
    holds: dict[str, list[Body]] = field(default_factory=dict)
    # The transactions that anyone was told of, by kind, and what became of the jobs that depend on them.
    known: dict[str, list[int]] = field(default_factory=dict)
    settled: dict[str, Job] = field(default_factory=dict)

    def settle(self, job: Job) -> Job:
        """The job as it is first sent, and with the same key ever after."""
        if job.lasts is None and job.pick is None:
            return job
        planned = json.dumps([job.key, job.body])
        if planned not in self.settled:
            about = body = None
            if job.pick is not None:
                kinds = ["posted", "captured"] if job.operation == "reverseTransaction" else ["held"]
                recent = [sequence for kind in kinds for sequence in self.known.get(kind, [])[-RECENT:]]
                about = recent[job.pick % len(recent)]
            if job.lasts is not None:
                body = {**job.body, "expires_at": (datetime.now(UTC) + timedelta(seconds=job.lasts)).isoformat()}
            self.settled[planned] = replace(job, about=about, body=body or job.body)
        return replace(self.settled[planned], twin=job.twin)

    def take(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        kind = exchange.answer.body.get("kind", "").removeprefix("transaction_")
        if exchange.answer.status == 201 and not exchange.answer.replayed:
            self.known.setdefault(kind, []).append(exchange.answer.body["sequence"])


def test_every_answer_agrees_with_one_order_of_all_requests(two_processes: Processes) -> None:
    report = play_and_check(two_processes, TRANSACTIONS)
    for code in MIX:
        assert report[code], f"the mix was meant to have everything, {code} too: {report}"


def play_and_check(processes: Processes, count: int) -> Counter[str]:
    """What the callers were answered, after all of it was held against the model."""
    jobs = plan(random.Random(SEED), count)
    story = asyncio.run(play(processes, jobs))
    report = Counter(e.answer.body.get("code") or e.answer.body.get("kind", "account") for e in story.exchanges)
    report["expired"] = sum(event["kind"] == EXPIRED for event in story.log)
    assert len(story.exchanges) == sum(2 if job.twin else 1 for job in [*FIRST, *jobs]), "an answer was lost"
    winners = check_one_effect_per_key(story)
    check_the_log(story)
    check_real_time_order(story)
    model = check_against_the_model(story, winners)
    check_what_is_left(story, model)
    asyncio.run(check_invariants(processes.database))
    return report


EXPIRED = "transaction_expired"
MIX = (
    "account", "transaction_posted", "transaction_held", "transaction_captured", "transaction_voided",
    "transaction_reversed", "expired", "insufficient_funds", "maximum_exceeded", "reference_exists", "account_exists",
    "already_captured", "already_voided", "hold_expired", "capture_exceeds_hold", "already_reversed", REUSED,
)  # fmt: skip


# The requests


def plan(chance: random.Random, count: int) -> list[Job]:
    """So many transactions, one in ten with a key used before, and between them accounts that many want to open."""
    keys = (f"key-{number}" for number in itertools.count(1))
    fresh = [draw(chance, next(keys)) for _ in range(count - count // 10)]
    end = len(fresh)
    placed = [(float(place), job) for place, job in enumerate(fresh)]
    for place in chance.sample(range(end), count // 10):
        job = placed[place][1]
        match chance.randrange(10):
            case 0:  # the same key for another request
                other = Job("postTransaction", job.key, transaction(chance))
                placed.append((chance.uniform(place, end), other))
            case 1 | 2 | 3:  # at once, at the other process
                placed[place] = (place, replace(job, twin=True))
            case 4 | 5 | 6:  # right after, while the first is on its way
                placed.append((chance.uniform(place, place + CALLERS), job))
            case _:  # later, when the books have moved on
                placed.append((chance.uniform(place, end), job))
    for number in range(count // 100):
        body = {"path": f"extra:{number}", "asset": "USD/2", "normal_side": "debit"}
        place = chance.uniform(0, end)
        placed += [(place, Job("createAccount", next(keys), body)) for _ in range(4)]
    return [job for _, job in sorted(placed, key=lambda item: item[0])]


def draw(chance: random.Random, key: str) -> Job:
    """Half of them post; the others hold, or say something of what was posted or held shortly before."""
    operation = chance.choices(
        ["post", "hold", "captureTransaction", "voidTransaction", "reverseTransaction"], [50, 22, 16, 4, 8]
    )[0]
    if operation == "post":
        return Job("postTransaction", key, transaction(chance))
    if operation == "hold":
        body = {**transaction(chance), "pending": True}
        return Job("postTransaction", key, body, lasts=chance.choice(LASTING))
    body: Body = {"description": key}  # so that no two of them are the same
    if operation == "captureTransaction" and chance.random() < 0.6:
        body["amounts"] = [{"posting": 0, "amount": str(chance.randint(1, 30))}]
        body |= {"remainder": "keep"} if chance.random() < 0.6 else {}
    if chance.random() < 0.05:
        body["reference"] = f"ref-{chance.randrange(TRANSACTIONS // 20)}"
    return Job(operation, key, body, pick=chance.randrange(RECENT))


def transaction(chance: random.Random) -> Body:
    debit, credit, amount_max = chance.choice(
        [
            *[("bank", "hot", 1000)] * 4,
            *[("bank", f"wallets:{chance.randrange(3)}", 100)] * 2,
            *[(f"wallets:{chance.randrange(3)}", "hot", 150)] * 3,
            ("bank", f"jars:{chance.randrange(2)}", 40),
            (f"jars:{chance.randrange(2)}", f"wallets:{chance.randrange(3)}", 40),
            ("till", "fees", 30),
            ("fees", "till", 30),
            ("float", f"extra:{chance.randrange(TRANSACTIONS // 100)}", 10),
        ]
    )
    postings = [posting(debit, credit, chance.randint(1, amount_max))]
    if chance.random() < 0.2:  # a fee, and the hot account named twice
        postings += [posting("hot", "fees", 2), posting("float", "hot", 1)]
    body: Body = {"postings": postings}
    if chance.random() < 0.2:
        body["effective_at"] = datetime(2020, 1, chance.randint(1, 28), tzinfo=UTC).isoformat()
    if chance.random() < 0.1:
        body["reference"] = f"ref-{chance.randrange(TRANSACTIONS // 20)}"
    return body


# Something that is posted, and something that is held, before anyone says something of it.
FIRST = [
    Job(
        "postTransaction",
        "first-post",
        {"postings": [{"debit_account": "bank", "credit_account": "hot", "amount": "9"}]},
    ),
    Job(
        "postTransaction",
        "first-hold",
        {"postings": [{"debit_account": "hot", "credit_account": "fees", "amount": "9"}], "pending": True},
    ),
]


def posting(debit: str, credit: str, amount: int) -> Body:
    return {"debit_account": debit, "credit_account": credit, "amount": str(amount)}


# The callers


class Callers:
    """One client per process, each with half of the callers."""

    def __init__(self, urls: list[str], key: str) -> None:
        self.clients = [
            httpx.AsyncClient(
                base_url=url,
                headers={"Authorization": f"Bearer {key}"},
                timeout=TIMEOUT_SECONDS,
                limits=httpx.Limits(max_connections=CALLERS + 4, max_keepalive_connections=CALLERS + 4),
            )
            for url in urls
        ]

    async def close(self) -> None:
        for client in self.clients:
            await client.aclose()

    async def get(self, process: int, path: str, **params: Any) -> Body:
        answer = await self.clients[process].get(f"{BOOKS}{path}", params=params)
        assert answer.status_code == 200, answer.text
        return in_plain(answer.json())

    async def get_list(self, process: int, path: str, **params: Any) -> list[Body]:
        items: list[Body] = []
        cursor: Body = {}
        while True:
            page = await self.get(process, path, limit=1000, **params, **cursor)
            items += page["items"]
            if page["next_cursor"] is None:
                return items
            cursor = {"cursor": page["next_cursor"]}

    async def put(self, process: int, job: Job) -> Exchange:
        """Send until there is an answer; whatever happens, with the same key."""
        path = BOOKS + WRITES[job.operation][1].format(about=job.about)
        headers = {"Idempotency-Key": job.key}
        sent = time.perf_counter()
        for unanswered in range(ATTEMPTS_MAX):
            try:
                got = await self.clients[process].post(path, json=job.body, headers=headers)
            except httpx.TransportError:
                got = None
            assert got is None or got.status_code < 500 or got.status_code == 503, got.text
            if got is not None and got.status_code != 503:
                replayed = got.headers.get("Idempotency-Replayed") == "true"
                answer = Answer(got.status_code, in_plain(got.json()), replayed)
                return Exchange(job, sent, time.perf_counter(), answer, unanswered)
            await asyncio.sleep(RETRY_SECONDS)
        raise AssertionError(f"no answer in {ATTEMPTS_MAX} attempts: {got and got.text}")


async def play(processes: Processes, jobs: list[Job]) -> Story:
    callers = Callers(processes.urls, processes.key)
    story = Story()
    try:
        await open_books(callers)
        await call(callers, 0, iter(FIRST), story)
        done = asyncio.Event()
        readers = [asyncio.create_task(read(callers, story, done)) for read in (tail, *[look_at_accounts] * 4)]
        waiting = iter(jobs)
        await asyncio.gather(*(call(callers, number % 2, waiting, story) for number in range(CALLERS)))
        await asyncio.sleep(LASTING_MAX)
        await callers.get(0, "/accounts")  # by then everything has expired that will
        done.set()
        await asyncio.wait_for(asyncio.gather(*readers), DRAIN_SECONDS_MAX)
        story.log = await read_log(callers)
        story.accounts = await callers.get_list(0, "/accounts")
        story.transactions = await callers.get_list(1, "/transactions", order="newest")
        for number, account in enumerate(story.accounts):
            path = account["path"]
            story.statements[path] = await callers.get_list(number % 2, f"/accounts/{path}/entries", order="oldest")
            story.holds[path] = await callers.get_list(number % 2, f"/accounts/{path}/holds", order="newest")
        for sequence in story.known["held"]:
            story.states[sequence] = await callers.get(sequence % 2, f"/transactions/{sequence}")
    finally:
        await callers.close()
    rows = await fetch(
        processes.database,
        "select key, sequence, refusal is not null as refused from idempotency_keys join ledgers using (ledger_id)"
        " where name = $1",
        LEDGER,
    )
    digests = {row["key"]: (row["sequence"], row["refused"]) for row in rows}
    for key in {exchange.job.key for exchange in story.exchanges}:
        digest = hashlib.sha256(key.encode()).digest()[:16]
        assert digest in digests, f"{key} was answered, but what it stands for is not stored"
        story.decided[key] = digests[digest]
    return story


async def open_books(callers: Callers) -> None:
    """Everyone creates the ledger at once, and one of them did; then the accounts are opened."""
    creating = [
        callers.clients[n % 2].post("/v1/ledgers", json={"name": LEDGER, "description": "Shared"}) for n in range(16)
    ]
    answers = await asyncio.gather(*creating)
    assert [answer.status_code for answer in answers] == [201] * len(answers)
    assert len({answer.text for answer in answers}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    for number, (path, fields) in enumerate(ACCOUNTS.items()):
        exchange = await callers.put(number % 2, opening(path, fields))
        assert exchange.answer.status == 201


def opening(path: str, fields: Body) -> Job:
    return Job("createAccount", f"open-{path}", {"path": path, "asset": "USD/2", **fields})


async def call(callers: Callers, process: int, waiting: Iterator[Job], story: Story) -> None:
    """Take the next job, wait for its answer, and so on."""
    for planned in waiting:
        job = story.settle(planned)
        processes = [process, 1 - process] if job.twin else [process]
        for exchange in await asyncio.gather(*(callers.put(number, job) for number in processes)):
            story.take(exchange)


async def tail(callers: Callers, story: Story, done: asyncio.Event) -> None:
    """Follow the log from process to process; each page has to begin where the last one ended."""
    after = 0
    for number in itertools.count():
        last_round = done.is_set()
        sent = time.perf_counter()
        page = await callers.get(number % 2, "/events", after_sequence=after, limit=100)
        story.looks.append(Look(sent, time.perf_counter(), page["sequence"]))
        story.tailed += page["items"]
        sequences = [event["sequence"] for event in page["items"]]
        assert sequences == [*range(after + 1, page["sequence"] + 1)][: len(sequences)]
        after = page["next_after_sequence"]
        if last_round and after == page["sequence"]:
            return
        if not page["items"]:
            await asyncio.sleep(POLL_SECONDS)


async def look_at_accounts(callers: Callers, story: Story, done: asyncio.Event) -> None:
    """Read all balances while they move."""
    for number in itertools.count():
        if done.is_set():
            return
        sent = time.perf_counter()
        page = await callers.get(number % 2, "/accounts", limit=1000)
        assert page["next_cursor"] is None
        story.looks.append(Look(sent, time.perf_counter(), page["sequence"], page["items"]))
        await asyncio.sleep(POLL_SECONDS)


async def read_log(callers: Callers) -> list[Body]:
    events: list[Body] = []
    while True:
        page = await callers.get(1, "/events", after_sequence=len(events), limit=1000)
        events += page["items"]
        if not page["items"]:
            return events


# What has to hold


def check_one_effect_per_key(story: Story) -> dict[str, Job]:
    """Of all requests with one key one was decided; the rest saw its answer, or were told of the reuse."""
    by_key: dict[str, list[Exchange]] = {}
    for exchange in story.exchanges:
        by_key.setdefault(exchange.job.key, []).append(exchange)
    winners: dict[str, Job] = {}
    sequences = []
    for key, exchanges in by_key.items():
        decided = [e for e in exchanges if e.answer.body.get("code") != REUSED]
        won = decided[0].job.asked
        assert all((e.job.asked == won) == (e in decided) for e in exchanges), exchanges
        assert all(
            (e.answer.status, e.answer.body) == (decided[0].answer.status, decided[0].answer.body) for e in decided
        )
        firsts = sum(not e.answer.replayed for e in decided)
        assert firsts == 1 or (firsts == 0 and any(e.unanswered_attempts for e in exchanges)), exchanges
        winners[key] = decided[0].job
        if decided[0].answer.status == 201:
            sequences.append(decided[0].answer.body["sequence"])
            assert story.decided[key] == (sequences[-1], False)
        else:
            assert story.decided[key][1]
    assert len(sequences) == len(set(sequences)), "two keys share one event"
    told = [event for event in story.log[1 + len(ACCOUNTS) :] if event["kind"] != EXPIRED]
    assert sorted(sequences) == [event["sequence"] for event in told], "an event that nobody was told of"
    return winners


def check_the_log(story: Story) -> None:
    """Gapless, and the reader who followed it saw each event once."""
    assert [event["sequence"] for event in story.log] == list(range(1, len(story.log) + 1))
    assert story.tailed == story.log
    recorded = [event["recorded_at"] for event in story.log]
    assert recorded == sorted(recorded)


def check_real_time_order(story: Story) -> None:
    """What was answered before something else was asked comes before it in the log."""
    # A refusal stands between the event that it was decided after and the next one.
    facts: list[tuple[float, float, float, bool]] = []
    for exchange in story.exchanges:
        if exchange.answer.body.get("code") != REUSED:
            sequence, refused = story.decided[exchange.job.key]
            place = sequence + 0.5 * refused
            facts.append((exchange.sent, exchange.answered, place, not exchange.answer.replayed))
    facts += [(look.sent, look.answered, look.sequence + 0.5, True) for look in story.looks]
    by_answer = sorted(facts, key=lambda fact: fact[1])
    seen, next_answer = 0.0, 0
    for sent, _, place, is_first in sorted(facts):
        while by_answer[next_answer][1] < sent:
            seen = max(seen, by_answer[next_answer][2])
            next_answer += 1
        assert not is_first or place >= seen, f"decided at {place}, although {seen} had been answered before"


def check_against_the_model(story: Story, winners: dict[str, Job]) -> Model:
    """Put the same requests to the model in the order of the log: it gives the same answers and sees the same."""
    answers = {e.job.key: e.answer for e in story.exchanges if e.answer.body.get("code") != REUSED}
    events = {event["sequence"]: event for event in story.log}
    model = Model(events[1]["recorded_at"])
    model.create_ledger({"name": LEDGER, "description": "Shared"})
    for path, fields in ACCOUNTS.items():
        job = opening(path, fields)
        model.now = events[model.books[LEDGER].sequence + 1]["recorded_at"]
        model.create_account(LEDGER, job.key, job.body)
    looks: dict[int, list[list[Body]]] = {}
    for look in story.looks:
        if look.accounts is not None:
            looks.setdefault(look.sequence, []).append(look.accounts)
    steps: list[tuple[int, bool, str]] = [(*story.decided[key], key) for key in winners]
    steps += [(event["sequence"], False, "") for event in story.log if event["kind"] == EXPIRED]
    for sequence, refused, key in sorted(steps):
        model.now = events[sequence]["recorded_at"]
        if not key:  # nobody asked for it: it was due by then
            model.expire(model.books[LEDGER])
            assert model.books[LEDGER].events[sequence - 1] == events[sequence]
        else:
            job, got = winners[key], answers[key]
            if got.body.get("code") == "time_out_of_range":  # it was on its way for longer than it was to last
                model.now = max(model.now, instant(job.body["expires_at"]))
            expected = write_to(model, job.operation, LEDGER, key, job.body, job.about)
            assert (got.status, got.body) == (expected.status, expected.body), (job, sequence)
        if not refused:
            for accounts in looks.pop(sequence, []):
                assert accounts == model.list_accounts(LEDGER).body["items"]
    assert not [sequence for sequence in looks if sequence > 1 + len(ACCOUNTS)]
    return model


def check_what_is_left(story: Story, model: Model) -> None:
    """The books at rest: what both processes read is what the model has, and counters are the fold of entries."""
    assert story.log == model.books[LEDGER].events
    assert story.accounts == model.list_accounts(LEDGER).body["items"]
    assert story.transactions == model.list_transactions(LEDGER, "newest").body["items"]
    for sequence, state in story.states.items():
        assert state == model.get_transaction(LEDGER, sequence).body
    total = 0
    for account in story.accounts:
        entries = story.statements[account["path"]]
        assert entries == model.list_account_entries(LEDGER, account["path"], "oldest").body["items"]
        assert story.holds[account["path"]] == model.list_account_holds(LEDGER, account["path"], "newest").body["items"]
        debits, credits = (
            sum(int(entry["amount"]) for entry in entries if entry["side"] == side) for side in ("debit", "credit")
        )
        assert (account["debits_posted"], account["credits_posted"]) == (str(debits), str(credits))
        total += debits - credits
    assert total == 0
