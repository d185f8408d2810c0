"""The queue of one ledger by itself: what a batch takes, in which order, and what the queue weighs meanwhile."""

from itertools import count

import pytest

from app.ledger import submissions
from app.ledger.commands import Command, Move, PostBatch, PostTransaction
from app.ledger.submissions import Queue, Submission

NUMBERS = count(1)


def post(postings: int = 1) -> PostTransaction:
    """A transaction of weight 2 + 2 per posting."""
    return PostTransaction(tuple(Move("a", "b", 1) for _ in range(postings)), None, None, None, None, {})


def put(queue: Queue, command: Command) -> Submission:
    submission = Submission(command, str(next(NUMBERS)).encode(), b"f" * 16, "tester", "-")
    queue.put(submission)
    return submission


def weigh(queue: Queue) -> int:
    return sum(each.command.weight for each in (*queue.singles, *queue.batches))


def test_the_weight_of_a_queue_is_that_of_what_waits() -> None:
    queue = Queue(1)
    waiting = [put(queue, post(n)) for n in (1, 2, 3)] + [put(queue, PostBatch((post(5),), atomic=True))]
    assert queue.weight == weigh(queue) == 4 + 6 + 8 + 12

    assert queue.withdraw(waiting[1])
    assert queue.weight == weigh(queue) == 24
    assert not queue.withdraw(waiting[1])
    assert queue.weight == 24

    assert queue.withdraw(waiting[3])
    assert queue.weight == weigh(queue) == 12
    assert queue.take() == [waiting[0], waiting[2]]
    assert (queue.weight, queue.waiting) == (0, 0)
    assert not queue.withdraw(waiting[0])


def test_a_queue_that_is_withdrawn_whole_weighs_nothing() -> None:
    queue = Queue(1)
    waiting = [put(queue, post()), put(queue, PostBatch((post(),), atomic=False)), put(queue, post())]
    assert queue.withdraw_all() == [waiting[0], waiting[2], waiting[1]]
    assert (queue.weight, queue.waiting, queue.take()) == (0, 0, [])


def test_a_batch_takes_single_commands_in_their_order_up_to_its_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submissions, "BATCH_WEIGHT_MAX", 12)
    queue = Queue(1)
    waiting = [put(queue, post(n)) for n in (1, 1, 1, 2, 9, 1)]
    assert [queue.take() for _ in range(4)] == [waiting[:3], waiting[3:4], waiting[4:5], waiting[5:]]
    assert queue.weight == 0


def test_a_batch_takes_no_more_single_commands_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submissions, "BATCH_SUBMISSIONS_MAX", 2)
    queue = Queue(1)
    waiting = [put(queue, post()) for _ in range(5)]
    assert [queue.take() for _ in range(3)] == [waiting[:2], waiting[2:4], waiting[4:]]


def test_single_commands_and_batches_take_turns() -> None:
    queue = Queue(1)
    batches = [put(queue, PostBatch((post(),), atomic=True)) for _ in range(3)]
    first = put(queue, post())
    assert queue.take() == [batches[0]]
    assert queue.take() == [first]
    second, third = put(queue, post()), put(queue, post())
    assert queue.take() == [batches[1]]
    assert queue.take() == [second, third]
    assert queue.take() == [batches[2]]
    assert queue.take() == []
