"""Callers of a deployment to which faults happen: what they send, when they go away, and what they were answered."""

import asyncio
import contextlib
import hashlib
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from tests.books import fetch
from tests.comparison import WRITES
from tests.conftest import KEY
from tests.faults_at_random import Deployment, Faults
from tests.model import Answer, Body, in_plain
from tests.seen import Attempt, History, Outcome, Read, Request, Stored
from tests.workload import ACCOUNTS, Job, Known, Manner, jobs, opening, reads

LEDGER = "books"
CREATED: Body = {"name": LEDGER, "description": "Shared"}
CREATION_DIGEST = b""
WRITERS = 12
READERS = 3
THINKING_S = 0.04
# How long a caller tries to be answered, and a client waits for one answer.
PATIENCE_S = 180.0
TIMEOUT_S = 40.0
PAUSE_S = 0.1
# How many transactions are read once more when everything has ended.
STATES_MAX = 50
HEAD_END = b"\r\n\r\n"


@dataclass
class Reply:
    status: int
    replayed: bool
    body: Body


class Client:
    """One connection to one process, kept alive, that its caller can leave at any moment."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self) -> None:
        """Connect unless it is connected. Raises OSError if nobody listens."""
        if self._writer is None or self._writer.transport.is_closing():
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)

    async def send(self, request: bytes) -> None:
        assert self._writer is not None
        self._writer.write(request)
        await self._writer.drain()

    async def read(self) -> Reply:
        """The answer. Raises OSError or EOFError if the connection ends before it does."""
        assert self._reader is not None
        head = (await self._reader.readuntil(HEAD_END)).decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
        body = await self._reader.readexactly(int(headers["content-length"]))
        if headers.get("connection") == "close":
            self.leave()
        replayed = headers.get("idempotency-replayed") == "true"
        return Reply(int(first.split(" ")[1]), replayed, in_plain(json.loads(body)))

    def leave(self) -> None:
        """Close the connection, whatever is on its way."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None


def in_bytes(method: str, path: str, body: Body | None = None, key: str | None = None) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: tallystick\r\nAuthorization: Bearer {KEY}\r\n"
    if key is not None:
        head += f"Idempotency-Key: {key}\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return f"{head}\r\n".encode() + content


@dataclass
class Callers:
    """Everybody who asks something of the deployment, and what they saw."""

    deployment: Deployment
    seed: int
    history: History = field(default_factory=lambda: History(LEDGER, CREATED))
    known: Known = field(default_factory=Known)
    counts: Counter[str] = field(default_factory=Counter)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    # Writes

    async def try_once(self, client: Client, job: Job, request: Request) -> Attempt:
        """Send the request as the manner of the job says."""
        method, path = WRITES[request.operation]
        path = f"/v1/ledgers/{LEDGER}{path.format(about=request.about)}"
        content = in_bytes(method, path, request.body, request.key)
        sent, sent_at = time.perf_counter(), datetime.now(UTC)
        outcome, answer = Outcome.UNSENT, None
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            await client.connect()
            if job.manner == Manner.SENDS_HALF:
                await client.send(content[: -len(content) // 3])
                await asyncio.sleep(job.patience_s)
                client.leave()
                self.counts["cancelled"] += 1
            else:
                outcome = Outcome.UNKNOWN
                await client.send(content)
                async with asyncio.timeout(TIMEOUT_S if job.manner == Manner.WAITS else job.patience_s):
                    reply = await client.read()
                outcome, answer = Outcome.ANSWERED, Answer(reply.status, reply.body, reply.replayed)
        if outcome == Outcome.UNKNOWN:
            client.leave()
            self.counts["cancelled" if job.manner != Manner.WAITS else "connections lost"] += 1
        attempt = Attempt(request, sent, sent_at, time.perf_counter(), datetime.now(UTC), outcome, answer)
        self.history.attempts.append(attempt)
        if answer is not None:
            self.known.learn(request, answer)
        return attempt

    async def put(self, clients: list[Client], job: Job, chance: random.Random) -> None:
        """Send the job's request, and again with the same key until it is answered, unless its caller stays away."""
        request = self.known.settle(job)
        self.counts["operations"] += 1
        deadline = time.perf_counter() + PATIENCE_S
        for number in itertools.count():
            attempt = await self.try_once(chance.choice(clients), job, request)
            if attempt.answer is not None and attempt.answer.status != 503:
                return
            if attempt.answer is not None:
                self.counts[f"503 {attempt.code}"] += 1
            if number == 0 and not job.comes_back:
                self.counts["never retried"] += 1
                return
            if time.perf_counter() > deadline:
                raise AssertionError(f"no answer in {PATIENCE_S:.0f} s, {number} attempts: {attempt}")
            self.counts["retries"] += 1
            job = replace(job, manner=Manner.WAITS)
            await asyncio.sleep(PAUSE_S * chance.random() * min(number + 1, 10))

    async def write(self, number: int, waiting: Iterator[Job]) -> None:
        """One caller: job after job until the faults are over."""
        chance = random.Random(f"{self.seed}-caller-{number}")
        clients, others = self.new_clients(), self.new_clients()
        for job in waiting:
            if job.twin:
                job = replace(job, twin=False)
                request = self.known.settle(job)
                once = replace(job, request=request, pick=None, lasts=None)
                await asyncio.gather(self.put(clients[:1], once, chance), self.put(others[1:], once, chance))
            else:
                await self.put(clients, job, chance)
            if self.over.is_set():
                break
            await asyncio.sleep(chance.expovariate(1 / THINKING_S))
        for client in (*clients, *others):
            client.leave()

    def new_clients(self) -> list[Client]:
        return [Client(process.port) for process in self.deployment.processes]

    # Reads

    async def look(self, client: Client, kind: str, about: str | int, params: Body) -> Read | None:
        """One read; None if it was not answered."""
        path = {
            "account": f"/accounts/{about}", "accounts": "/accounts", "balance": f"/accounts/{about}/balance",
            "holds": f"/accounts/{about}/holds", "entries": f"/accounts/{about}/entries",
            "transaction": f"/transactions/{about}", "events": "/events",
        }[kind]  # fmt: skip
        query = "&".join(f"{name}={value}" for name, value in params.items())
        sent, sent_at = time.perf_counter(), datetime.now(UTC)
        try:
            await client.connect()
            async with asyncio.timeout(TIMEOUT_S):
                await client.send(in_bytes("GET", f"/v1/ledgers/{LEDGER}{path}?{query}".rstrip("?")))
                reply = await client.read()
        except (OSError, EOFError, TimeoutError):
            client.leave()
            self.counts["reads lost"] += 1
            return None
        if reply.status == 503:
            self.counts[f"503 {reply.body['code']} of reads"] += 1
            return None
        ended = time.perf_counter()
        body = reply.body
        sequence = body.get("as_of_sequence", body.get("sequence"))
        if reply.status == 200 and kind in ("accounts", "holds", "entries", "events"):
            assert kind in ("entries", "events") or body["next_cursor"] is None
            body = {"items": body["items"], "sequence": sequence}
        read = Read(kind, about, sent, sent_at, ended, Answer(reply.status, body), sequence)
        self.history.reads.append(read)
        return read

    async def read(self, number: int) -> None:
        """One reader: balances, statements and holds while they move."""
        chance, clients = random.Random(f"{self.seed}-reader-{number}"), self.new_clients()
        for kind, about, params in reads(f"{self.seed}-reader-{number}"):
            if self.over.is_set():
                break
            about = chance.choice(self.known.transactions["held"][-12:]) if kind == "transaction" else about
            if await self.look(chance.choice(clients), kind, about, params) is None:
                await asyncio.sleep(PAUSE_S)
            await asyncio.sleep(chance.expovariate(1 / THINKING_S))
        for client in clients:
            client.leave()

    async def follow(self) -> None:
        """A consumer of the feed: each page begins where the last one ended."""
        clients, after = self.new_clients(), 0
        for number in itertools.count():
            if self.over.is_set():
                break
            read = await self.look(clients[number % 2], "events", after, {"after_sequence": after, "limit": 200})
            if read is not None:
                after = max([after, *(event["sequence"] for event in read.answer.body["items"])])
            await asyncio.sleep(0.1)
        for client in clients:
            client.leave()


async def play(
    deployment: Deployment, seed: int, *, times: int, apart: int
) -> tuple[History, Counter[str], Counter[str]]:
    """Have callers work while every fault happens so many times: what they saw, what they did, which faults there
    were."""
    callers = Callers(deployment, seed)
    clients = callers.new_clients()
    reply = await ask(clients[0], "POST", "/v1/ledgers", CREATED)
    assert reply.status == 201, reply
    chance = random.Random(seed)
    for request in opening():
        await callers.put(clients, Job(request), chance)
    faults = Faults(deployment, seed, lambda: callers.counts["operations"], apart=apart)
    waiting = jobs(seed)
    async with asyncio.TaskGroup() as group:
        for number in range(WRITERS):
            group.create_task(callers.write(number, waiting))
        for number in range(READERS):
            group.create_task(callers.read(number))
        group.create_task(callers.follow())
        await faults.inject(times)
        callers.over.set()
    await settle(callers, clients)
    for client in clients:
        client.leave()
    return callers.history, callers.counts, faults.counts


async def settle(callers: Callers, clients: list[Client]) -> None:
    """Read what is left when nobody asks any more. A process works off in order what reached it, so a write to each
    comes after all that its callers had left behind."""
    chance = random.Random(callers.seed)
    for number, client in enumerate(clients):
        body = {"postings": [{"debit_account": "bank", "credit_account": "hot", "amount": "1"}]}
        await callers.put([client], Job(Request("postTransaction", f"last-{number}", body)), chance)
    for number, client in enumerate(clients):
        assert await callers.look(client, "accounts", "", {"limit": 1000}) is not None, number
    for path in ACCOUNTS:
        for kind in ("account", "balance", "holds", "entries"):
            params = {"limit": 1000} if kind in ("holds", "entries") else {}
            assert await callers.look(chance.choice(clients), kind, path, params) is not None, path
    for held in callers.known.transactions["held"][-STATES_MAX:]:
        assert await callers.look(chance.choice(clients), "transaction", held, {}) is not None, held
    log = callers.history.log
    while True:
        params = {"after_sequence": len(log), "limit": 1000}
        read = await callers.look(clients[0], "events", len(log), params)
        assert read is not None
        log += read.answer.body["items"]
        if not read.answer.body["items"]:
            break
    rows = await fetch(
        callers.deployment.database,
        "select key, sequence, refusal, events from idempotency_keys join ledgers using (ledger_id) where name = $1",
        LEDGER,
    )
    keys = {hashlib.sha256(a.request.key.encode()).digest()[:16]: a.request.key for a in callers.history.attempts}
    for row in rows:
        if row["key"] != CREATION_DIGEST:
            rejection = None if row["refusal"] is None else json.loads(row["refusal"])
            key = keys.get(row["key"], row["key"].hex())
            callers.history.stored[key] = Stored(row["sequence"], rejection, row["events"])


async def ask(client: Client, method: str, path: str, body: Body | None = None) -> Reply:
    await client.connect()
    await client.send(in_bytes(method, path, body))
    return await client.read()
