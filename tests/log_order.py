"""The log of a history, replayed on the model: every event, answer, rejection and read is what the model says there.

The model is brought from event to event as the log has them. Between two events it is asked what it would say to the
requests that were rejected and to the reads that were answered, without being changed.
"""

import heapq
from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from tests.comparison import write_to
from tests.model import Answer, Body, Book, Model, instant
from tests.model.book import Hold, Line
from tests.seen import Claim, Decision, History, Read, Request, in_texts

EXPIRED = "transaction_expired"
# Reads that answer the present: what is due is expired first.
PRESENT = {"account", "accounts", "transaction", "holds"}
MICROSECOND = timedelta(microseconds=1)
# How long after it was sent a request that nobody was told of can have been decided.
LONGEST = timedelta(hours=1)
PROBE = "\0probe"


class Accepted(Exception):
    """The model would have carried out what it was only asked about."""


@dataclass
class LightBook(Book):
    """A book that is cheap to copy, and that can be asked what it would say without changing."""

    is_probed: bool = False

    def record(self, kind: str, now: datetime, actor: str) -> Body:
        if self.is_probed:
            raise Accepted
        return super().record(kind, now, actor)

    def __deepcopy__(self, _: Any) -> "LightBook":
        accounts = {
            path: replace(account, counters=dict(account.counters), statement=list(account.statement))
            for path, account in self.accounts.items()
        }
        holds = {
            sequence: replace(hold, captured=list(hold.captured), released=list(hold.released))
            for sequence, hold in self.holds.items()
        }
        return LightBook(list(self.events), accounts, holds, set(self.references), dict(self.keys))


class LogModel(Model):
    """The model, which expires a hold only where the log does: a clock that waited may lie behind the recorded time."""

    def __init__(self, now: datetime, ledger: str) -> None:
        super().__init__(now)
        self.ledger = ledger
        self._due: list[tuple[datetime, int]] = []

    def open(self, created: Body) -> None:
        self.create_ledger(created)
        made = self.books[self.ledger]
        self.books[self.ledger] = LightBook(events=made.events, keys=made.keys)

    @property
    def book(self) -> LightBook:
        return self.books[self.ledger]  # type: ignore[return-value]

    def expire(self, book: Book) -> None:
        """Expire nothing: the log says when."""

    def expire_hold(self, sequence: int) -> None:
        hold = self.book.holds[sequence]
        self._release(self.book, hold, EXPIRED, {}, actor="system")
        hold.status = "expired"

    def notice(self, event: Body) -> None:
        """Remember when a hold is due."""
        transaction = event.get("transaction", {})
        if event["kind"] == "transaction_held" and transaction["expires_at"] is not None:
            heapq.heappush(self._due, (transaction["expires_at"], event["sequence"]))

    def next_due(self) -> datetime | None:
        """When the first of the live holds is due."""
        while self._due and self.book.holds[self._due[0][1]].status != "pending":
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def write(self, request: Request) -> Answer:
        return write_to(self, request.operation, self.ledger, request.key, request.body, request.about)

    def probe(self, request: Request) -> Answer | None:
        """What the model would answer, without a change; None if it would carry the request out."""
        asked = replace(request, key=PROBE)
        if request.operation == "postTransactionBatch":  # which changes what it then takes back
            before = self.book
            self.books[self.ledger] = LightBook.__deepcopy__(before, None)
            try:
                answer = self.write(asked)
                return answer if self.book.sequence == before.sequence else None
            finally:
                self.books[self.ledger] = before
        self.book.is_probed = True
        try:
            return self.write(asked)
        except Accepted:
            return None
        finally:
            self.book.is_probed = False
            self.book.keys.pop(PROBE, None)

    def _record_of_hold(
        self, book: Any, kind: str, lines: list[Line], hold: Hold, body: Body, actor: str | None = None
    ) -> Body:
        if book.is_probed:
            raise Accepted
        return super()._record_of_hold(book, kind, lines, hold, body, actor)


class Replay:
    """Brings the model along the log, and holds what was said of each prefix against it."""

    def __init__(
        self, history: History, decisions: dict[str, Decision], claims: list[Claim], summary: Counter[str]
    ) -> None:
        self.log = history.log
        self.model = LogModel(history.log[0]["recorded_at"], history.ledger)
        self.model.open(history.created)
        self.summary = summary
        self.faults: list[str] = []
        self.effects = {decision.first: decision for decision in decisions.values() if decision.stored.count}
        self.rejections: dict[int, list[Decision]] = {}
        for decision in decisions.values():
            if not decision.stored.count:
                self.rejections.setdefault(decision.first, []).append(decision)
        self.reads: dict[int, list[Read]] = {}
        for read in history.reads:
            if read.sequence is not None:
                self.reads.setdefault(read.sequence, []).append(read)
        self.claims = sorted(claims, key=lambda claim: claim.lowest, reverse=True)
        self.open: list[Claim] = []

    def run(self) -> list[str]:
        if self.model.book.events != self.log[:1]:
            return [f"the log begins with {self.log[0]}"]
        while not self.faults:
            length = self.model.book.sequence
            self._look(length)
            if length == len(self.log):
                for claim in self.open + self.claims:
                    self._find_unexplained(claim)
                break
            self._step(length + 1)
        for states in (self.reads, self.rejections):  # what is left names a state between the events of one effect
            if not self.faults and states:
                self.faults.append(f"nobody can have seen the log at {min(states)}: {states[min(states)][0]}")
        return self.faults

    # Between two events

    def _look(self, length: int) -> None:
        due = self.model.next_due()
        for read in self.reads.pop(length, []):
            self.summary["reads"] += 1
            self._check_read(read, due)
        for decision in self.rejections.pop(length, []):
            self._check_stored_rejection(decision, due)
        while self.claims and self.claims[-1].lowest <= length:
            self.open.append(self.claims.pop())
        still = [claim for claim in self.open if claim.highest < length or not self._explains(claim, due)]
        self.summary["rejections"] += len(self.open) - len(still)
        self.open = [claim for claim in still if claim.highest > length]
        for claim in still:
            if claim.highest <= length:
                self._find_unexplained(claim)

    def _find_unexplained(self, claim: Claim) -> None:
        said = f"no state of the log from {claim.lowest} to {claim.highest} explains"
        self.faults.append(f"{said} {claim.said}: {claim.answer}")

    def _check_read(self, read: Read, due: datetime | None) -> None:
        if read.kind in PRESENT and due is not None and due <= read.sent_at:
            self.faults.append(f"{read.kind} {read.about} was read at {read.sequence}, where a hold is due since {due}")
        expected = self._expected(read)
        if expected != read.answer:
            self.faults.append(f"{read.kind} {read.about} at {read.sequence} is {expected}, and was read {read.answer}")

    def _expected(self, read: Read) -> Answer:
        """What the model reads now, as far as the answer's page goes."""
        model, ledger = self.model, self.model.ledger
        match read.kind:
            case "account":
                return model.get_account(ledger, str(read.about))
            case "balance":
                return model.get_balance(ledger, str(read.about))
            case "transaction":
                return model.get_transaction(ledger, int(read.about))
            case "accounts":
                return model.list_accounts(ledger)
            case "holds":
                return model.list_account_holds(ledger, str(read.about), "newest")
            case "entries":
                whole = model.list_account_entries(ledger, str(read.about), "newest")
            case _:
                whole = model.list_events(ledger, int(read.about))
        if whole.status != 200:
            return whole
        # A page may end anywhere, but it is empty only where nothing is left.
        items = whole.body["items"][: max(1, len(read.answer.body.get("items", ())))]
        return Answer(200, {"items": items, "sequence": whole.body["sequence"]})

    def _check_stored_rejection(self, decision: Decision, due: datetime | None) -> None:
        """The state that the row of a rejection names is one that explains it, told or not."""
        self.summary["rejections stored"] += 1
        if due is not None and due <= decision.sent_at:
            self.faults.append(f"{decision.key} was decided at {decision.first}, where a hold is due since {due}")
            return
        expected = in_texts(decision.stored.rejection) if decision.stored.rejection else None
        seen = []
        for request in decision.requests:
            for now in self._clocks(decision.sent_at, decision.answered_at, due):
                self.model.now = now
                answer = self.model.probe(request)
                seen.append(answer)
                if answer is None:
                    continue
                if decision.answer is not None and answer == replace(decision.answer, replayed=False):
                    return
                if decision.answer is None and (expected is None or in_texts(answer.body) == expected):
                    return
        self.faults.append(f"at {decision.first} the model says {seen} to {decision.requests}, not {decision}")

    def _explains(self, claim: Claim, due: datetime | None) -> bool:
        if claim.read is not None:
            return self._expected(claim.read) == claim.answer
        assert claim.request is not None
        for now in self._clocks(claim.sent_at, claim.answered_at, due):
            self.model.now = now
            if self.model.probe(claim.request) == replace(claim.answer, replayed=False):
                return True
        return False

    def _clocks(self, sent_at: datetime, answered_at: datetime | None, due: datetime | None) -> list[datetime]:
        """The earliest and the latest time at which something can have been decided here: none if by then a hold was
        due, which would have been expired first."""
        if due is not None and due <= sent_at:
            return []
        latest = sent_at + LONGEST if answered_at is None else answered_at
        if due is not None:
            latest = min(latest, due - MICROSECOND)
        return [sent_at] if latest <= sent_at else [sent_at, latest]

    # One event, or those of one effect

    def _step(self, sequence: int) -> None:
        event = self.log[sequence - 1]
        self.model.now = event["recorded_at"]
        if event["kind"] == EXPIRED:
            self._expire(event)
            return
        decision = self.effects[sequence]
        due = self.model.next_due()
        if due is not None and due <= decision.sent_at:
            self.faults.append(f"{decision.key} was decided at {sequence}, where a hold is due since {due}")
        last = sequence + decision.stored.count - 1
        answers = []
        for request in decision.requests:
            before = LightBook.__deepcopy__(self.model.book, None) if len(decision.requests) > 1 else None
            self.model.now = clock_of(request, event["recorded_at"])
            answers.append(self.model.write(request))
            if self.model.book.events[sequence - 1 :] == self.log[sequence - 1 : last]:
                break
            if before is not None:
                self.model.books[self.model.ledger] = before
        if self.model.book.events[sequence - 1 :] != self.log[sequence - 1 : last]:
            recorded = self.log[sequence - 1 : last]
            self.faults.append(f"{decision.requests} is recorded as {recorded}; the model says {answers}")
        elif self.model.now < decision.sent_at:
            self.faults.append(f"{decision.key} holds until a time that had passed when it was sent")
        elif decision.answer is not None and answers[-1] != replace(decision.answer, replayed=False):
            self.faults.append(f"{decision.requests} was answered {decision.answer}; the model says {answers[-1]}")
        for event in self.log[sequence - 1 : last]:
            self.model.notice(event)
        self.summary["effects"] += 1
        self.summary["effects nobody was told of"] += decision.answer is None

    def _expire(self, event: Body) -> None:
        hold = self.model.book.holds.get(event["transaction"]["hold"])
        if hold is None or not hold.is_due(event["recorded_at"]):
            self.faults.append(f"nothing was due where the log has {event}")
            return
        self.model.expire_hold(event["transaction"]["hold"])
        self.summary["expiries"] += 1
        if self.model.book.events[-1] != event:
            self.faults.append(f"the log has {event}; the model says {self.model.book.events[-1]}")


def clock_of(request: Request, recorded_at: datetime) -> datetime:
    """The clock that a recorded request was decided by: the recorded time, or an earlier one if the hold that it placed
    had expired by then. The recorded time may be that of another process, whose event came before."""
    expires_at = request.body.get("expires_at")
    if expires_at is None or request.operation != "postTransaction":
        return recorded_at
    return min(recorded_at, instant(expires_at) - MICROSECOND)
