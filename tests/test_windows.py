"""The checker of histories takes what a correct ledger could have done, and names what no ledger could have.

One story is told by the model, as if it were a service behind a slow network. Each test changes one thing in it that
callers, the log or a key say.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.comparison import write_to
from tests.model import Answer, Body, Model
from tests.seen import Attempt, History, Outcome, Read, Request, Stored
from tests.windows import find_faults

START = datetime(2030, 1, 1, tzinfo=UTC)
LEDGER = "books"
ACCOUNTS = ("cash", "wallet")


class Teller:
    """Tells a history second by second: each request is sent, decided a third of a second later, and then answered."""

    def __init__(self) -> None:
        self.model = Model(START)
        created = {"name": LEDGER}
        self.history = History(LEDGER, created)
        self.model.create_ledger(created)
        self.second = 0
        for path in ACCOUNTS:
            floor = {"minimum_balance": "0"} if path == "wallet" else {}
            self.write(
                f"open-{path}", "createAccount", {"path": path, "asset": "USD/2", "normal_side": "credit"} | floor
            )

    def write(
        self,
        key: str,
        operation: str,
        body: Body,
        *,
        about: str | int = "",
        outcome: Outcome = Outcome.ANSWERED,
        unavailable: str = "",
        effect: bool = True,
    ) -> Answer:
        """One attempt, with or without its effect; what it was answered unless it was left, or told of trouble."""
        self.second += 1
        request = Request(operation, key, body, about)
        answer = Answer(503, {"status": 503, "code": unavailable})
        if effect:
            self.model.now = self.at(0.3)
            answer = write_to(self.model, operation, LEDGER, key, body, about)
            if not answer.replayed and answer.body.get("code") not in (
                "idempotency_key_reused",
                "transaction_not_found",
            ):
                self._store(key, answer)
        if unavailable:
            answer = Answer(503, {"status": 503, "code": unavailable})
        answered = answer if outcome == Outcome.ANSWERED else None
        times = (self.second, self.at(0), self.second + 0.6, self.at(0.6))
        self.history.attempts.append(Attempt(request, *times, outcome, answered))
        return answer

    def _store(self, key: str, answer: Answer) -> None:
        length = self.model.books[LEDGER].sequence
        if answer.status >= 400:
            row = Stored(length, {name: value for name, value in answer.body.items() if name != "status"})
        elif "results" in answer.body:
            row = Stored(answer.body["results"][0]["transaction"]["sequence"], None, len(answer.body["results"]))
        else:
            row = Stored(answer.body["sequence"])
        self.history.stored[key] = row

    def post(self, key: str, amount: int, *, back: bool = False, **changes: Any) -> Answer:
        names = {name: changes.pop(name) for name in ("outcome", "unavailable", "effect") if name in changes}
        return self.write(key, "postTransaction", {"postings": [posting(amount, back)], **changes}, **names)

    def read(self, kind: str, about: str | int = "") -> Read:
        self.second += 1
        self.model.now = self.at(0.3)
        if kind == "transaction":
            answer = self.model.get_transaction(LEDGER, int(about))
        else:
            answer = self.model.get_account(LEDGER, str(about))
        sequence = answer.body.get("as_of_sequence", answer.body.get("sequence"))
        read = Read(kind, about, self.second, self.at(0), self.second + 0.6, answer, sequence)
        self.history.reads.append(read)
        return read

    def at(self, seconds: float) -> datetime:
        return START + timedelta(seconds=self.second + seconds)


def posting(amount: int, back: bool = False) -> Body:
    debit, credit = ("wallet", "cash") if back else ("cash", "wallet")
    return {"debit_account": debit, "credit_account": credit, "amount": str(amount)}


def tell() -> History:
    """A story with a bit of everything. The numbers are those of the events."""
    teller = Teller()
    teller.post("p4", 10)
    teller.read("account", "wallet")
    teller.post("p5", 20, outcome=Outcome.UNKNOWN)
    teller.post("lost", 1000, outcome=Outcome.UNKNOWN, effect=False)
    teller.post("p6", 5, unavailable="overloaded", effect=False)
    teller.post("p6", 5)
    teller.post("poor", 500, back=True)
    teller.post("poor", 500, back=True)
    teller.post("poor unheard", 400, back=True, outcome=Outcome.UNKNOWN)
    teller.post("p7", 7, unavailable="outcome_unknown")
    teller.post("p7", 7)
    teller.write("early", "voidTransaction", {}, about=8)
    teller.post("h8", 3, pending=True, expires_at=(teller.at(0) + timedelta(seconds=4)).isoformat())
    teller.read("transaction", 8)
    teller.write("v8", "voidTransaction", {"description": "x"}, about=4)
    teller.second += 5
    teller.post("p10", 1)  # the hold expires first, at 9
    teller.write("late", "voidTransaction", {}, about=8)
    teller.post("p4", 11)
    teller.write("b11", "postTransactionBatch", {"transactions": [{"postings": [posting(n)]} for n in (1, 2, 3)]})
    teller.read("account", "wallet")
    assert [event["kind"] for event in teller.model.books[LEDGER].events][7:9] == [
        "transaction_held",
        "transaction_expired",
    ]
    teller.history.log = list(teller.model.books[LEDGER].events)
    return teller.history


def test_a_story_of_a_correct_ledger_is_explained():
    assert [] == find_faults(tell())


# How a story is changed


def find(history: History, key: str, place: int = 0) -> int:
    """Where the attempts have the one with this key, or the one of them at this place."""
    return [n for n, attempt in enumerate(history.attempts) if attempt.request.key == key][place]


def change(history: History, key: str, place: int = 0, **changes: Any) -> Attempt:
    number = find(history, key, place)
    history.attempts[number] = replace(history.attempts[number], **changes)
    return history.attempts[number]


def answer_otherwise(history: History, key: str, place: int = 0, *, status: int = 0, **fields: Any) -> None:
    answer = history.attempts[find(history, key, place)].answer
    assert answer is not None
    change(history, key, place, answer=replace(answer, status=status or answer.status, body=answer.body | fields))


def move(history: History, key: str, seconds: float, place: int = 0) -> None:
    attempt, later = history.attempts[find(history, key, place)], timedelta(seconds=seconds)
    times = {"sent": attempt.sent + seconds, "ended": attempt.ended + seconds}
    change(history, key, place, **times, sent_at=attempt.sent_at + later, ended_at=attempt.ended_at + later)


def swap_answers(history: History) -> None:
    one, other = (history.attempts[find(history, key)].answer for key in ("p4", "p10"))
    change(history, "p4", answer=other)
    change(history, "p10", answer=one)


def swap_answers_and_keys(history: History) -> None:
    swap_answers(history)
    history.stored["p4"], history.stored["p10"] = history.stored["p10"], history.stored["p4"]
    for key in ("p4", "p10"):  # so wide that the windows allow both places
        change(history, key, sent=0.0, sent_at=START, ended=99.0, ended_at=START + timedelta(seconds=99))


def lose_an_effect(history: History) -> None:
    del history.stored["p10"]


def double_an_effect(history: History) -> None:
    again = copy.deepcopy(history.log[-1])
    again["sequence"] = again["transaction"]["sequence"] = len(history.log) + 1
    history.log.append(again)


def double_an_effect_under_a_key(history: History) -> None:
    double_an_effect(history)
    history.stored["lost"] = Stored(len(history.log))


def tell_another_rejection(history: History) -> None:
    for place in (0, 1):
        answer_otherwise(history, "poor", place, available="36")
    history.stored["poor"].rejection["available"] = "36"


def reject_what_was_possible(history: History) -> None:
    """The balance is told of a state that had passed when the request was sent."""
    for place in (0, 1):
        move(history, "poor", 20 + place, place)


def find_nothing_where_something_is(history: History) -> None:
    move(history, "early", 15)


def read_the_past(history: History) -> None:
    history.reads[-1] = replace(history.reads[0], sent=history.reads[-1].sent, ended=history.reads[-1].ended)


def read_the_future(history: History) -> None:
    history.reads[0] = replace(history.reads[-1], sent=history.reads[0].sent, ended=history.reads[0].ended)


def read_half_a_batch(history: History) -> None:
    read = history.reads[-1]
    body = read.answer.body | {"sequence": 12}
    history.reads[-1] = replace(read, sent=0.0, sequence=12, answer=replace(read.answer, body=body))


def read_another_balance(history: History) -> None:
    read = history.reads[-1]
    history.reads[-1] = replace(read, answer=replace(read.answer, body=read.answer.body | {"posted": "1"}))


def read_a_hold_that_is_due(history: History) -> None:
    history.reads[1] = replace(history.reads[1], sent_at=START + timedelta(hours=1))


def decide_while_a_hold_is_due(history: History) -> None:
    """A void that came after the expiry was due finds the hold as it was before."""
    change(history, "v8", sent_at=START + timedelta(hours=1), ended_at=START + timedelta(hours=2))


def expire_early(history: History) -> None:
    number = find(history, "h8")
    until = "2031-01-01T00:00:00+00:00"
    request = history.attempts[number].request
    change(history, "h8", request=replace(request, body=request.body | {"expires_at": until}))
    answer_otherwise(history, "h8", expires_at=datetime.fromisoformat(until))
    history.log[7]["transaction"]["expires_at"] = datetime.fromisoformat(until)
    read = history.reads[1]
    body = read.answer.body | {"expires_at": datetime.fromisoformat(until)}
    history.reads[1] = replace(read, answer=replace(read.answer, body=body))


def count_from_one_more(history: History) -> None:
    history.log[5]["sequence"] = 7


def take_more_than_was_said(history: History) -> None:
    history.log[4]["transaction"]["postings"][0]["amount"] = "21"


STORIES: dict[str, tuple[Callable[[History], Any], str]] = {
    "two answers are swapped": (swap_answers, "but its key stands for"),
    "two answers are swapped, and their keys": (swap_answers_and_keys, "the model says"),
    "an effect is lost": (lose_an_effect, "answered, but its key is not stored"),
    "an effect is doubled": (double_an_effect, "0 keys stand for event 14"),
    "an effect is doubled under the key of a caller that left": (double_an_effect_under_a_key, "the model says"),
    "a caller that left has had another effect": (take_more_than_was_said, "is recorded as"),
    "a rejection has fields that no state has": (tell_another_rejection, "the model says"),
    "a rejection is of a state that had passed": (reject_what_was_possible, "although the log had been seen"),
    "nothing is found where something was recorded before": (find_nothing_where_something_is, "no state of the log"),
    "overloaded, with an effect": (
        lambda history: change(
            history, "p5", outcome=Outcome.ANSWERED, answer=Answer(503, {"status": 503, "code": "overloaded"})
        ),
        "surely without effect",
    ),
    "storage_unavailable, with an effect": (
        lambda history: change(
            history, "p5", outcome=Outcome.ANSWERED, answer=Answer(503, {"status": 503, "code": "storage_unavailable"})
        ),
        "surely without effect",
    ),
    "half a request, with an effect": (
        lambda history: change(history, "p5", outcome=Outcome.UNSENT), "surely without effect"
    ),
    "two first answers": (
        lambda history: change(history, "poor", 1, answer=history.attempts[find(history, "poor")].answer),
        "not marked as replayed",
    ),
    "two answers of one key": (lambda history: answer_otherwise(history, "poor", 1, available="1"), "two answers"),
    "a fault of the service": (
        lambda history: answer_otherwise(history, "poor", 0, status=500, code="internal_error"), "nothing explains"
    ),
    "an event before its request": (lambda history: move(history, "p4", 2.5), "although the log had been seen"),
    "an event after what was sent when it was answered": (
        lambda history: move(history, "p10", -10.0), "although it was answered before what stands at"
    ),
    "a time before its request": (
        lambda history: change(history, "p4", sent_at=START + timedelta(hours=1)), "before it was sent"
    ),
    "a time after its answer": (lambda history: change(history, "p4", ended_at=START), "after it was answered"),
    "a read of the past": (read_the_past, "was read at 4; the log had come to 13 before"),
    "a read of the future": (read_the_future, "cannot have come further than to 4"),
    "a read of half a batch": (read_half_a_batch, "nobody can have seen the log at 12"),
    "another balance": (read_another_balance, "account wallet at 13 is"),
    "a hold that is due is read as live": (read_a_hold_that_is_due, "where a hold is due since"),
    "something is decided while a hold is due": (decide_while_a_hold_is_due, "where a hold is due since"),
    "a hold expires early": (expire_early, "nothing was due"),
    "a key is taken for used, and is not": (
        lambda history: answer_otherwise(history, "early", status=422, code="idempotency_key_reused"),
        "nothing had used this key",
    ),
    "a key is taken for used before it was": (
        lambda history: move(history, "p4", -30.0, 1), "the key was used only later"
    ),
    "a key is taken for used by another request": (
        lambda history: change(history, "p4", 1, request=history.attempts[find(history, "p4")].request),
        "the key stands for this very request",
    ),
    "a rejection nobody was told of has another code": (
        lambda history: history.stored["poor unheard"].rejection.update(code="maximum_exceeded"), "the model says"
    ),
    "a key nobody sent": (lambda history: history.stored.update(other=Stored(4)), "nobody sent it"),
    "a gap in the log": (count_from_one_more, "not gapless"),
}  # fmt: skip


@pytest.mark.parametrize("name", STORIES)
def test_a_story_that_no_ledger_could_have_is_found(name):
    """Whatever else it then says: that it does not hold is seen, and why."""
    tamper, said = STORIES[name]
    history = tell()
    tamper(history)
    faults = find_faults(history)
    assert any(said in fault for fault in faults), faults


def test_a_ledger_that_forgets_an_expiry_is_found():
    """An event is recorded although a hold was due when its request was sent."""
    teller = Teller()
    teller.post("h", 3, pending=True, expires_at=(teller.at(0) + timedelta(seconds=4)).isoformat())
    teller.second += 5
    teller.model.expire = lambda book: None
    teller.post("p", 1)
    teller.history.log = list(teller.model.books[LEDGER].events)
    (fault,) = find_faults(teller.history)
    assert "p was decided at 5, where a hold is due since" in fault


# What callers cannot know


def test_a_caller_that_left_may_have_had_its_effect_or_not():
    """The log and the key say which; both are taken."""
    assert {"p5", "p10"} <= tell().stored.keys()
    assert "lost" not in tell().stored
    for effect in (True, False):
        teller = Teller()
        teller.post("p", 10, outcome=Outcome.UNKNOWN, effect=effect)
        teller.read("account", "wallet")
        teller.history.log = list(teller.model.books[LEDGER].events)
        assert [] == find_faults(teller.history)


def test_a_first_answer_may_be_a_replay():
    """A batch whose connection was lost after the commit is run again, and finds its keys."""
    history = tell()
    answer = history.attempts[find(history, "p10")].answer
    assert answer is not None
    change(history, "p10", answer=replace(answer, replayed=True))
    assert [] == find_faults(history)


def test_what_is_under_way_at_once_may_be_in_either_order():
    """Of two requests whose windows overlap, the log may have either first; if one was answered before, it may not."""
    for apart, expected in ((0.3, True), (2.0, False)):
        teller = Teller()
        teller.post("second", 1)
        teller.post("first", 1)
        history = teller.history
        history.log = list(teller.model.books[LEDGER].events)
        for key, sent in (("first", 50.0), ("second", 50.0 + apart)):
            change(history, key, sent=sent, ended=sent + 0.6)
        assert expected == (find_faults(history) == [])


def test_a_rejection_is_explained_by_any_state_in_its_window():
    """A request that was under way while an account was filled may have met the account before or after."""
    teller = Teller()
    teller.post("poor", 500, back=True)
    teller.post("filled", 600)
    history = teller.history
    history.log = list(teller.model.books[LEDGER].events)
    change(history, "poor", ended=10.0, ended_at=START + timedelta(seconds=10))
    assert [] == find_faults(history)
    change(history, "poor", sent=9.0)
    assert "although the log had been seen" in find_faults(history)[0]


def test_a_write_is_judged_by_a_clock_that_may_lie_behind_the_recorded_time():
    """A process that was stopped decides by the time it had read; the event before gave the log a later one."""
    teller = Teller()
    until = START + timedelta(seconds=9, microseconds=500)
    teller.write("h", "postTransaction", {"postings": [posting(1)], "pending": True, "expires_at": until.isoformat()})
    history = teller.history
    history.log = list(teller.model.books[LEDGER].events)
    held = history.log[-1]
    later = START + timedelta(seconds=10)
    for event in (history.log[-2], held):
        event["recorded_at"] = later
    history.log[-2]["account"]["recorded_at"] = later
    held["transaction"] |= {"recorded_at": later, "effective_at": later}
    for key, name in (("open-wallet", "account"), ("h", "transaction")):
        body = history.log[-2 if name == "account" else -1][name]
        change(history, key, answer=Answer(201, body), ended=20.0, ended_at=START + timedelta(seconds=20))
    assert [] == find_faults(history)
    change(history, "h", sent=2.0, sent_at=until)
    assert any("had passed when it was sent" in fault for fault in find_faults(history))
