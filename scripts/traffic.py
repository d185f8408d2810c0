"""Posts as a crowd of clients sends them: at a rate of its own, whatever the answers do, each with a key of its own.

What each was answered is kept, so that afterwards the log can be held against it.
"""

import asyncio
import json
import math
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import httpx

LEDGERS = 4
PAIRS = 25
ANSWER_SECONDS_MAX = 60
FAILURES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Answer:
    """What a post came to: a status, or 0 and what went wrong on the way; and how long it took."""

    key: str
    ledger: str
    status: int
    said: str
    sequence: int
    sent: float
    seconds: float
    retry_after: bool = False


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, url: str) -> Self:
        address = urlsplit(url)
        return cls(*await asyncio.open_connection(address.hostname, address.port))

    @property
    def is_gone(self) -> bool:
        return self._reader.at_eof() or self._writer.is_closing()

    async def ask(self, request: bytes) -> tuple[bytes, bytes]:
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        return head, await self._reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))

    def close(self) -> None:
        self._writer.close()


class Traffic:
    """The crowd. `where` says to which address the next request goes."""

    def __init__(self, where: Callable[[], str], secret: str) -> None:
        self._where = where
        self._secret = secret
        self._idle: dict[str, deque[Connection]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = 0
        self.answers: list[Answer] = []
        # What was due and not sent, because as many as there may be were under way.
        self.held_back = 0

    async def post_at(self, rate: float, *, until: Callable[[], bool], at_once_max: int = 100_000) -> None:
        """Send so many a second until it is told to end, then wait for the answers."""
        started, sent = time.perf_counter(), 0
        while not until():
            due = int((time.perf_counter() - started) * rate)
            for _ in range(due - sent):
                if len(self._tasks) >= at_once_max:
                    self.held_back += 1
                    continue
                task = asyncio.create_task(self.post())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            sent = due
            await asyncio.sleep(0.005)
        await asyncio.gather(*self._tasks)

    async def post_from(self, callers: int, *, seconds: float) -> float:
        """Send from so many callers, each the next when the last is answered: what the service can do, a second."""
        deadline = time.perf_counter() + seconds
        before = sum(answer.status == 201 for answer in self.answers)

        async def call() -> None:
            while time.perf_counter() < deadline:
                await self.post()

        await asyncio.gather(*(call() for _ in range(callers)))
        return (sum(answer.status == 201 for answer in self.answers) - before) / seconds

    async def post(self) -> None:
        self._count += 1
        key, ledger, pair = f"post-{self._count}", f"books-{self._count % LEDGERS}", self._count * 7919 % PAIRS
        postings = [{"debit_account": f"d{pair}", "credit_account": f"c{pair}", "amount": "1"}]
        body = json.dumps({"postings": postings, "reference": key})
        request = (
            f"POST /v1/ledgers/{ledger}/transactions HTTP/1.1\r\nHost: ledger\r\n"
            f"Authorization: Bearer {self._secret}\r\nIdempotency-Key: {key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()
        sent = time.perf_counter()
        status, said, sequence, retry_after = 0, "", 0, False
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                head, answer = await self._ask(request)
            status, retry_after = int(head[9:12]), b"\r\nretry-after:" in head
            if status == 201:
                sequence = json.loads(answer)["sequence"]
            else:
                said = json.loads(answer)["code"] if b"problem+json" in head else answer.decode("latin-1")[:80]
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            said = type(error).__name__
        taken = time.perf_counter() - sent
        self.answers.append(Answer(key, ledger, status, said, sequence, sent, taken, retry_after))

    async def _ask(self, request: bytes) -> tuple[bytes, bytes]:
        url = self._where()
        idle = self._idle.setdefault(url, deque())
        connection = None
        while idle and connection is None:
            connection = idle.pop()
            if connection.is_gone:
                connection.close()
                connection = None
        connection = connection or await Connection.open(url)
        try:
            head, answer = await connection.ask(request)
        except BaseException:
            connection.close()
            raise
        if b"\r\nconnection: close" in head:
            connection.close()
        else:
            idle.append(connection)
        return head, answer

    def close(self) -> None:
        for idle in self._idle.values():
            for connection in idle:
                connection.close()


async def open_books(client: httpx.AsyncClient) -> None:
    """The ledgers and accounts that the crowd posts to."""
    for number in range(LEDGERS):
        ledger = f"books-{number}"
        (await client.post("/v1/ledgers", json={"name": ledger})).raise_for_status()
        for pair in range(PAIRS):
            for name, side in ((f"d{pair}", "debit"), (f"c{pair}", "credit")):
                body = {"path": name, "asset": "USD/2", "normal_side": side}
                path = f"/v1/ledgers/{ledger}/accounts"
                (await client.post(path, json=body, headers={"Idempotency-Key": name})).raise_for_status()


async def find_faults(client: httpx.AsyncClient, answers: list[Answer]) -> list[str]:
    """Hold the log, as the service tells it, against what was answered: everything acknowledged is in it exactly once,
    where the answer said, and nothing else but what nobody could be told."""
    faults: list[str] = []
    recorded: dict[str, list[tuple[str, int]]] = {}
    for number in range(LEDGERS):
        ledger, after = f"books-{number}", 0
        while True:
            page = await client.get(
                f"/v1/ledgers/{ledger}/events", params={"after_sequence": str(after), "limit": "1000"}
            )
            events = page.raise_for_status().json()["items"]
            if not events:
                break
            for event in events:
                after += 1
                if event["sequence"] != after:
                    faults.append(f"{ledger} has {event['sequence']} where {after} belongs")
                if event["kind"] == "transaction_posted":
                    reference = event["transaction"]["reference"]
                    recorded.setdefault(reference, []).append((ledger, event["sequence"]))
    doubled = [key for key, places in recorded.items() if len(places) > 1]
    acknowledged = {answer.key: (answer.ledger, answer.sequence) for answer in answers if answer.status == 201}
    lost = [key for key, place in acknowledged.items() if recorded.get(key, [None])[0] != place]
    doubtful = {answer.key for answer in answers if answer.status == 0 or answer.said == "outcome_unknown"}
    invented = [key for key in recorded if key not in acknowledged and key not in doubtful]
    for what, keys in (("doubled", doubled), ("acknowledged and lost", lost), ("recorded though refused", invented)):
        if keys:
            faults.append(f"{len(keys)} {what}, such as {keys[:FAILURES_SHOWN]}")
    return faults


def describe(answers: list[Answer], status: int = 201) -> str:
    """The times of the answers with this status, in a line."""
    seconds = sorted(answer.seconds for answer in answers if answer.status == status)
    if not seconds:
        return "none"
    at = {share: seconds[min(len(seconds) - 1, math.floor(len(seconds) * share))] * 1000 for share in (0.5, 0.99, 1)}
    return f"{len(seconds)}, p50 {at[0.5]:.0f} ms, p99 {at[0.99]:.0f} ms, longest {at[1]:.0f} ms"


def count_failures(answers: list[Answer]) -> Counter[str]:
    return Counter(f"{answer.status} {answer.said}" for answer in answers if answer.status != 201)


async def until_ready(url: str, seconds_max: float = 60) -> None:
    deadline = time.perf_counter() + seconds_max
    async with httpx.AsyncClient(timeout=5) as client:
        while time.perf_counter() < deadline:
            with suppress(httpx.TransportError):
                if (await client.get(f"{url}/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.1)
    raise RuntimeError(f"{url} did not become ready in {seconds_max} s")
