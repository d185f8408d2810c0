"""What callers saw of one ledger, checked against its log: in the order of the log, and by real-time windows.

A history has every attempt and every read with the moments at which it was sent and at which it was answered, the log,
and the stored idempotency keys. `find_faults` names whatever no correct ledger could have done:

- **Order of the log.** The requests behind the events are put to the model, one after the other as the log has them.
  Every answer and every event is what the model says there.
- **Real time.** A request that was sent after another one was answered comes after it in the log. A success lies
  between the end of the log when it was sent and its end when it was answered. A read is the state of the ledger at
  a sequence in its window.
- **Rejections.** Some prefix of the log explains a rejection: one in its window, at which the model rejects this very
  request with this code and these fields. Where the key is stored, the prefix it names is one of them.
- **Attempts without an answer.** A caller that went away, or was told `outcome_unknown`, may have had its effect, once.
  A connection that was refused, half a request, `overloaded` and `storage_unavailable` surely had none.
- **Expiry.** Nothing is decided, and nothing of the present is read, while a hold is live that was due when the request
  was sent.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate
from math import inf

from tests.log_order import EXPIRED, Replay
from tests.seen import (
    IN_DOUBT,
    REUSED,
    UNSTORED,
    WITHOUT_EFFECT,
    Attempt,
    Claim,
    Decision,
    History,
    Read,
    Stored,
    in_texts,
)  # fmt: skip

FAULTS_MAX = 20


def find_faults(history: History, summary: Counter[str] | None = None) -> list[str]:
    """What no correct ledger could have done, the first of it; nothing if all is explained. Counts into `summary`."""
    checker = Checker(history)
    checker.check()
    if summary is not None:
        summary.update(checker.summary)
    return checker.faults[:FAULTS_MAX]


class Checker:
    def __init__(self, history: History) -> None:
        self.history = history
        self.faults: list[str] = []
        self.summary: Counter[str] = Counter()
        self.decisions: dict[str, Decision] = {}
        self.claims: list[Claim] = []

    def check(self) -> None:
        self._check_log()
        by_key: dict[str, list[Attempt]] = {}
        for attempt in self.history.attempts:
            by_key.setdefault(attempt.request.key, []).append(attempt)
        for key, attempts in by_key.items():
            self._decide(key, attempts)
        self._check_effects(by_key)
        bounds = Bounds(self.decisions.values(), self.history.reads, len(self.history.log))
        self._check_windows(bounds)
        self._claim(by_key, bounds)
        if not self.faults:  # what follows would only repeat them
            self.faults += Replay(self.history, self.decisions, self.claims, self.summary).run()

    def _check_log(self) -> None:
        log = self.history.log
        if [event["sequence"] for event in log] != list(range(1, len(log) + 1)):
            self.faults.append("the log is not gapless")
        recorded = [event["recorded_at"] for event in log]
        if recorded != sorted(recorded):
            self.faults.append("recorded times fall along the log")

    # What each key stands for

    def _decide(self, key: str, attempts: list[Attempt]) -> None:
        """Find what the attempts with one key say of it, and hold it against its row."""
        self._check_codes(attempts)
        decided = [attempt for attempt in attempts if attempt.is_decided]
        firsts = [attempt for attempt in decided if attempt.answer and not attempt.answer.replayed]
        if len({attempt.request.asked for attempt in decided}) > 1:
            self.faults.append(f"one key, and two requests were carried out: {decided[0]}; {decided[-1]}")
        if any((a.answer.status, a.answer.body) != (decided[0].answer.status, decided[0].answer.body) for a in decided):
            self.faults.append(f"one key, and two answers: {decided[0]}; {decided[-1]}")
        if len(firsts) > 1:
            self.faults.append(f"two answers of one key are not marked as replayed: {firsts[0]}")
        stored = self.history.stored.get(key)
        if stored is None or stored.sequence > len(self.history.log):
            # Nothing is recorded, or something was when the log had been read: then nobody can have been told.
            self.faults += [f"answered, but its key is not stored: {attempt}" for attempt in decided[:1]]
            return
        # A first answer is that of the attempt that had the effect. A replay may be: a batch whose connection was lost
        # after the commit is run again, and finds the key.
        able = firsts or [attempt for attempt in attempts if attempt.is_in_doubt or attempt.is_decided]
        if not able:
            self.faults.append(f"every attempt was surely without effect, but the key is stored: {attempts[-1]}")
            return
        told = min(decided, key=lambda attempt: attempt.ended, default=None)
        requests = {attempt.request.asked: attempt.request for attempt in decided or able}
        begun = min(able, key=lambda attempt: attempt.sent)
        decision = Decision(key, list(requests.values()), None, stored, begun.sent, begun.sent_at)
        if told is not None:
            decision.answer, decision.answered, decision.answered_at = told.answer, told.ended, told.ended_at
            self._check_row(told, stored)
        self.decisions[key] = decision

    def _check_codes(self, attempts: list[Attempt]) -> None:
        for attempt in attempts:
            if attempt.answer is None:
                continue
            status = attempt.answer.status
            known = status in (200, 201, 404, 409, 422) or (status == 503 and attempt.code in WITHOUT_EFFECT | IN_DOUBT)
            if not known or (status == 404) != (attempt.code in UNSTORED):
                self.faults.append(f"nothing explains this answer: {attempt}")

    def _check_row(self, told: Attempt, stored: Stored) -> None:
        answer = told.answer
        assert answer is not None
        if answer.status >= 400:
            if stored.rejection is None or in_texts(answer.body) != in_texts(stored.rejection):
                self.faults.append(f"{told}, but its key stands for {stored}")
        elif stored.rejection is not None or answer.body.get("sequence", stored.sequence) != stored.sequence:
            self.faults.append(f"{told}, but its key stands for {stored}")

    def _check_effects(self, by_key: dict[str, list[Attempt]]) -> None:
        """Every event is the effect of one key, but for the first and for expiries, which have none."""
        effects = Counter(
            sequence
            for decision in self.decisions.values()
            for sequence in range(decision.first, decision.first + decision.stored.count)
        )
        for event in self.history.log[1:]:
            sequence, expected = event["sequence"], 0 if event["kind"] == EXPIRED else 1
            if effects[sequence] != expected:
                self.faults.append(f"{effects[sequence]} keys stand for event {sequence}, {event['kind']}")
        unknown = self.history.stored.keys() - by_key.keys()
        self.faults += [f"the key {key} is stored, and nobody sent it" for key in sorted(unknown)[:3]]

    # When it can have been

    def _check_windows(self, bounds: "Bounds") -> None:
        for decision in self.decisions.values():
            lowest, highest = bounds.at(decision.sent, decision.answered)
            first = decision.first if decision.stored.count else decision.first + 1
            if first <= lowest:
                self.faults.append(
                    f"{decision.key} stands at {decision.first}, although the log had been seen to come to {lowest} "
                    "before it was sent"
                )
            if decision.last > highest:
                self.faults.append(
                    f"{decision.key} stands at {decision.last}, although it was answered before what stands at "
                    f"{highest + 1} was sent"
                )
            if decision.stored.count:
                self._check_recorded_time(decision)

    def _check_recorded_time(self, decision: Decision) -> None:
        """The time of an event is read while its request is under way, or is that of the event before."""
        recorded_at = self.history.log[decision.first - 1]["recorded_at"]
        if recorded_at < decision.sent_at:
            self.faults.append(f"{decision.key} is recorded at {recorded_at}, before it was sent")
        if decision.answered_at is not None and recorded_at > decision.answered_at:
            self.faults.append(f"{decision.key} is recorded at {recorded_at}, after it was answered")

    def _claim(self, by_key: dict[str, list[Attempt]], bounds: "Bounds") -> None:
        """Collect what some prefix of the log has to explain."""
        for decision in self.decisions.values():
            if decision.answer is not None and not decision.stored.count:
                window = bounds.at(decision.sent, decision.answered)
                request = decision.requests[0]
                self.claims.append(
                    Claim(f"{request}", request, None, decision.answer, *window, decision.sent_at, decision.answered_at)
                )
        for attempts in by_key.values():
            for attempt in attempts:
                if attempt.code == REUSED:
                    self._check_reuse(attempt, bounds)
                elif attempt.code in UNSTORED and attempt.answer is not None:
                    window = bounds.at(attempt.sent, attempt.ended)
                    times = (attempt.sent_at, attempt.ended_at)
                    self.claims.append(Claim(f"{attempt}", attempt.request, None, attempt.answer, *window, *times))
        for read in self.history.reads:
            lowest, highest = bounds.at(read.sent, read.ended)
            if read.sequence is None:
                self.claims.append(Claim(f"{read}", None, read, read.answer, lowest, highest, read.sent_at, None))
            elif not lowest <= read.sequence <= highest:
                self.faults.append(
                    f"{read.kind} {read.about} was read at {read.sequence}; the log had come to {lowest} before, and "
                    f"cannot have come further than to {highest}"
                )

    def _check_reuse(self, attempt: Attempt, bounds: "Bounds") -> None:
        """The key stood for another request by then."""
        decision = self.decisions.get(attempt.request.key)
        self.summary["rejections"] += 1
        if decision is None:
            self.faults.append(f"nothing had used this key: {attempt}")
            return
        if [request.asked for request in decision.requests] == [attempt.request.asked]:
            self.faults.append(f"the key stands for this very request: {attempt}")
        if decision.first > bounds.at(attempt.sent, attempt.ended)[1]:
            self.faults.append(f"the key was used only later: {attempt}")


class Bounds:
    """How far the log can have come at a moment, from what callers had been told and had sent by then."""

    def __init__(self, decisions: Iterable[Decision], reads: Iterable[Read], length: int) -> None:
        told = [(decision.answered, decision.last) for decision in decisions if decision.answered < inf]
        told += [(read.ended, read.sequence) for read in reads if read.sequence is not None]
        told.sort()
        self._told = [moment for moment, _ in told]
        self._reached = [0, *accumulate((sequence for _, sequence in told), max)]
        sent = sorted((d.sent, d.first - 1) for d in decisions if d.stored.count)
        self._sent = [moment for moment, _ in sent]
        # From the end: what was sent after a moment cannot have been recorded by then.
        self._not_reached = [*reversed([length, *accumulate((place for _, place in reversed(sent)), min)])]
        self._length = length

    def at(self, sent: float, answered: float) -> tuple[int, int]:
        """The least and the greatest length of the log that a request with this window can have met."""
        lowest = self._reached[bisect_left(self._told, sent)]
        return lowest, min(self._not_reached[bisect_right(self._sent, answered)], self._length)
