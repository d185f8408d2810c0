"""What is answered against what was done, for every way in which a connection can go wrong after a request.

Each write of a test has a number in its reference. Its answer is read from the wire, in the order of the requests, and
held against what the ledger has recorded: a 201 for what is recorded, and no rejection for anything that is.
"""

import contextlib
import json
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app import server
from tests.books import transaction
from tests.conftest import Service, serve, start_processes, wait_until
from tests.test_edge import JSON, UPGRADE, Answer, Wire, chunked, in_chunks, request
from tests.test_edge import post as whole_post
from tests.test_feed import prepare
from tests.test_refusals import holding

TRANSACTIONS = "/v1/ledgers/main/transactions"
HELD = "lock table events in share mode"

# What may follow a request on its connection, and is none.
NO_REQUESTS: dict[str, bytes] = {
    "bytes that are no HTTP": b"\x00\x01garbage\r\n\r\n",
    "a head that is too long": b"GET /healthz HTTP/1.1\r\nHost: h\r\nX-A: " + b"a" * server.HEAD_BYTES_MAX,
    "a head of 70 kB": b"GET /healthz HTTP/1.1\r\nHost: h\r\nX-A: " + b"a" * 70_000 + b"\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two hosts": request("GET", "/healthz", "Host: h"),
    "HTTP/2.0": request(version="2.0"),
    "HTTP/0.9 and an empty line": b"GET /healthz\r\n\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two framings": chunked(TRANSACTIONS, b"0\r\n\r\n", "Content-Length: 5"),
    "a coding before chunks": request("POST", TRANSACTIONS, "Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    "a header that no head has": request("GET", "/healthz", "X-A : b"),
    "a target that is none": request(target="healthz"),
}  # fmt: skip


class Tally:
    """The writes of one test, and which of them are recorded."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.group = uuid.uuid4().hex
        self.sent = 0

    def body(self) -> bytes:
        self.sent += 1
        said = transaction("a", "b", group=self.group, reference=f"{self.group}-{self.sent}")
        return json.dumps(said).encode()

    def write(self, *headers: str | bytes) -> bytes:
        return whole_post(TRANSACTIONS, self.body(), *headers, key=self.key())

    def writes(self, number: int) -> bytes:
        return b"".join(self.write() for _ in range(number))

    def write_in_chunks(self, *headers: str | bytes) -> tuple[bytes, bytes]:
        """The head, and the body that it announces."""
        head = request("POST", TRANSACTIONS, JSON, self.key(), *headers, "Transfer-Encoding: chunked")
        return head, in_chunks(self.body(), 20)

    def key(self) -> str:
        return f"Idempotency-Key: {uuid.uuid4().hex}"

    def recorded(self) -> set[int]:
        with self.service.client() as client:
            items = client.get(TRANSACTIONS, params={"group": self.group, "limit": 1000}).json()["items"]
        return {int(item["reference"].rpartition("-")[2]) for item in items}

    def check(self, answers: list[Answer], *expected: int) -> None:
        assert list(expected) == [answer.status for answer in answers]
        told = {number for number, answer in enumerate(answers, 1) if answer.status == 201}
        assert told == self.recorded(), "what was answered 201 is what is recorded"


def read_all(wire: Wire) -> list[Answer]:
    """Every answer until the server closes the connection."""
    answers = []
    while not wire.is_closed():
        answers.append(wire.answer())
    return answers


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def running(
    request: pytest.FixtureRequest, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """The service on the event loop of the other tests, and on the one that processes have."""
    database = new_database()
    with contextlib.ExitStack() as stack:
        if request.param == "asyncio":
            service = stack.enter_context(serve(database))
        else:
            processes = stack.enter_context(start_processes(database, 1, tmp_path_factory.mktemp("uvloop")))
            service = Service(processes.urls[0], database)
        with service.client() as client:
            prepare(client)
        yield service


@pytest.fixture
def tally(running: Service) -> Tally:
    return Tally(running)


@contextmanager
def in_hand(tally: Tally, sent: bytes) -> Iterator[tuple[Wire, Callable[[], None]]]:
    """A connection whose first write has been taken, and cannot be answered before it is let go."""
    with contextlib.ExitStack() as held, Wire(tally.service) as wire:
        wait_for = held.enter_context(holding(tally.service.database, HELD))
        wire.send(sent)
        wait_for(1)
        yield wire, held.close


# --- What follows a request that was taken ----------------------------------------------------------------------------


@pytest.mark.parametrize("writes", [1, 3])
@pytest.mark.parametrize("tail", NO_REQUESTS)
def test_what_comes_with_it_and_is_no_request_changes_no_answer(tally: Tally, tail: str, writes: int) -> None:
    with Wire(tally.service) as wire:
        wire.send(tally.writes(writes) + NO_REQUESTS[tail])
        answers = read_all(wire)
        tally.check(answers, *[201] * writes)
        assert "close" == answers[-1].header("connection")


@pytest.mark.parametrize("writes", [1, 3])
@pytest.mark.parametrize("tail", NO_REQUESTS)
def test_what_comes_while_it_is_worked_on_changes_no_answer(tally: Tally, tail: str, writes: int) -> None:
    with in_hand(tally, tally.writes(writes)) as (wire, let_go):
        wire.send(NO_REQUESTS[tail])
        time.sleep(0.2)  # for an answer that comes too early, and is none
        assert not wire.has_answer()
        let_go()
        answers = read_all(wire)
        # Where they had all been answered before what follows was read, that is rejected for itself.
        rejected = [400] if len(answers) > writes else []
        tally.check(answers, *[201] * writes, *rejected)


@pytest.mark.parametrize("tail", NO_REQUESTS)
def test_what_comes_after_the_answer_is_rejected_for_itself(tally: Tally, tail: str) -> None:
    with Wire(tally.service) as wire:
        wire.send(tally.write())
        first = wire.answer()
        wire.send(NO_REQUESTS[tail])
        tally.check([first, *read_all(wire)], 201, 400)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_of_requests_in_a_row_those_before_the_malformed_one_are_carried_out(tally: Tally, place: int) -> None:
    with Wire(tally.service) as wire:
        wire.send(tally.writes(place) + NO_REQUESTS["no host"] + tally.writes(2))
        tally.check(read_all(wire), *([201] * place or [400]))


def test_a_body_longer_than_it_says_is_no_part_of_what_was_written(tally: Tally) -> None:
    with Wire(tally.service) as wire:
        wire.send(tally.write() + b'{"postings":[]}')
        tally.check(read_all(wire), 201)


@pytest.mark.parametrize("tail", NO_REQUESTS)
def test_what_follows_a_wish_for_another_protocol_changes_no_answer(tally: Tally, tail: str) -> None:
    with Wire(tally.service) as wire:
        wire.send(tally.write(*UPGRADE) + NO_REQUESTS[tail])
        tally.check(read_all(wire), 201)


@pytest.mark.parametrize("said", ["Connection: close", "HTTP/1.0"])
def test_what_follows_the_last_request_of_a_connection_is_not_carried_out(tally: Tally, said: str) -> None:
    with Wire(tally.service) as wire:
        first = (
            tally.write("Connection: close") if said != "HTTP/1.0" else tally.write().replace(b"HTTP/1.1", b"HTTP/1.0")
        )
        wire.send(first + tally.writes(2) + NO_REQUESTS["bytes that are no HTTP"])
        tally.check(read_all(wire), 201)


# --- Requests that were not taken whole -------------------------------------------------------------------------------

BROKEN_BODIES: dict[str, Callable[[bytes], bytes]] = {
    "a chunk's length that is none": lambda body: body[:20] + b"zz\r\n",
    "garbage after half a chunk": lambda body: body[:26] + b"\x00\x01garbage\r\n" * 3,
    "garbage in place of the end": lambda body: body[: -len(b"0\r\n\r\n")] + b"garbage\r\n\r\n",
    "a trailer without a colon": lambda body: body[:-2] + b"X-A\r\n\r\n",
    "a trailer with a blank before its colon": lambda body: body[:-2] + b"X-A : b\r\n\r\n",
    "a length in a trailer": lambda body: body[:-2] + b"Content-Length: 5\r\n\r\n",
}


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("pause", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("broken", BROKEN_BODIES)
def test_a_body_that_breaks_off_is_rejected_and_not_carried_out(
    tally: Tally, broken: str, pause: bool, before: int
) -> None:
    """Not even where all of what is to be written had arrived, and only the end of the body is wrong."""
    with Wire(tally.service) as wire:
        earlier = tally.writes(before)
        head, body = tally.write_in_chunks()
        wire.send(earlier + head + body[:10])
        if pause:
            time.sleep(0.1)
        wire.send(BROKEN_BODIES[broken](body)[10:] + tally.write())
        answers = read_all(wire)
        tally.check(answers, *[201] * before, 400)
        assert "malformed_request" == answers[-1].json()["code"]


def test_a_write_without_a_body_is_answered_as_what_was_done(running: Service) -> None:
    """The application does not wait for a body that it does not need, so nobody else may reject it."""
    name = f"key-{uuid.uuid4().hex}"
    with running.client() as client:
        made = {"name": name, "operations": ["read"]}
        assert 201 == client.post("/v1/api-keys", json=made).status_code
        with Wire(running) as wire:
            wire.send(request("POST", f"/v1/api-keys/{name}/revoke", "Transfer-Encoding: chunked") + b"zz\r\n")
            (answer,) = read_all(wire)
        shown = next(key for key in client.get("/v1/api-keys?limit=1000").json()["items"] if key["name"] == name)
    assert (200, True) == (answer.status, shown["revoked_at"] is not None)


def test_a_wait_for_an_event_with_a_broken_body_is_rejected(running: Service) -> None:
    with Wire(running) as wire:
        with running.client() as client:
            end = client.get("/v1/ledgers/main").json()["sequence"]
        target = f"/v1/ledgers/main/events?after_sequence={end}&wait_seconds=25"
        wire.send(request("GET", target, "Transfer-Encoding: chunked"))
        time.sleep(0.2)
        wire.send(b"zz\r\n")
        (answer,) = read_all(wire)
    assert (400, "malformed_request") == (answer.status, answer.json()["code"])


# --- Clients that go ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writes", [1, 3])
def test_a_client_that_stops_sending_is_answered(tally: Tally, writes: int) -> None:
    with in_hand(tally, tally.writes(writes)) as (wire, let_go):
        wire.stop_sending()
        time.sleep(0.2)
        let_go()
        tally.check(read_all(wire), *[201] * writes)


@pytest.mark.parametrize("sent", ["half a head", "half a body"])
def test_a_client_that_stops_sending_half_way_has_done_nothing(tally: Tally, sent: str) -> None:
    with Wire(tally.service) as wire:
        earlier, late = tally.write(), tally.write()
        wire.send(earlier + late[: 40 if sent == "half a head" else -10])
        wire.stop_sending()
        tally.check(read_all(wire), 201)


def test_a_reset_connection_is_told_nothing_about_what_is_done(tally: Tally) -> None:
    with in_hand(tally, tally.write()) as (wire, let_go):
        wire.reset()
        let_go()
        wait_until(lambda: tally.recorded() == {1})


# --- What the service does by itself ----------------------------------------------------------------------------------


@contextmanager
def own(database: str, **bounds: Any) -> Iterator[Tally]:
    with serve(database, **bounds) as service:
        with service.client() as client:
            prepare(client)
        yield Tally(service)


def test_a_head_that_does_not_come_ends_no_request_before_it(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS_MAX", 0.5)
    with own(database) as tally, in_hand(tally, tally.writes(2) + b"GET /healthz HTTP/1.1\r\n") as (wire, let_go):
        time.sleep(2)
        let_go()
        tally.check(read_all(wire), 201, 201)


def test_room_is_not_made_at_the_cost_of_a_request_in_hand(database: str) -> None:
    with own(database, connections_max=10) as tally, contextlib.ExitStack() as stack:
        wire, let_go = stack.enter_context(in_hand(tally, tally.write() + b"GET /healthz HTTP/1.1\r\n"))
        others = [stack.enter_context(Wire(tally.service)) for _ in range(20)]
        assert others[0].is_closed(), "the first that was silent made room"
        let_go()
        assert 201 == wire.answer().status
        assert {1} == tally.recorded()


def test_silence_between_requests_ends_no_request_in_hand(database: str) -> None:
    with own(database, keep_alive_s=1) as tally, in_hand(tally, tally.write()) as (wire, let_go):
        time.sleep(1.5)
        let_go()
        first = wire.answer()
        with holding(database, HELD) as wait_for:
            wire.send(tally.write())
            wait_for(1)
            time.sleep(1.5)
        tally.check([first, *read_all(wire)], 201, 201)


def test_a_client_that_reads_nothing_is_told_nothing_that_was_not_done(database: str) -> None:
    """Of what it is told in the end, before its connection was ended, all is true."""
    with own(database, keep_alive_s=1) as tally, Wire(tally.service) as wire:
        with tally.service.client() as client:
            for _ in range(40):
                tally.sent += 1
                large = transaction("a", "b", metadata={f"n{n}": "x" * 500 for n in range(50)})
                assert (
                    201
                    == client.post(TRANSACTIONS, json=large, headers={"Idempotency-Key": uuid.uuid4().hex}).status_code
                )
        tally.sent = 0
        reads = [request(target="/v1/ledgers/main/events?limit=1000") for _ in range(20)]
        wire.send(b"".join(reads[:10]) + tally.write() + b"".join(reads[10:]) + tally.write())
        time.sleep(3)
        told = []
        with contextlib.suppress(AssertionError):  # what is cut off in the middle is no answer
            told = read_all(wire)
        statuses = [answer.status for answer in told]
        assert not [status for status in statuses if status >= 400]
        assert statuses.count(201) <= len(tally.recorded())


@pytest.mark.parametrize("tail", ["bytes that are no HTTP", "a head that is too long", None])
def test_a_stop_answers_what_is_in_hand_whatever_follows_it(database: str, tmp_path: Path, tail: str | None) -> None:
    with start_processes(database, 1, tmp_path) as processes:
        service = Service(processes.urls[0], database)
        with service.client() as client:
            prepare(client)
        tally = Tally(service)
        with in_hand(tally, tally.writes(1) + NO_REQUESTS.get(tail or "", b"")) as (wire, let_go):
            processes.processes[0].send_signal(signal.SIGTERM)
            time.sleep(0.5)
            let_go()
            assert [201] == [answer.status for answer in read_all(wire)]
        assert 0 == processes.processes[0].wait(timeout=30)
    with serve(database) as service:
        tally.service = service
        assert {1} == tally.recorded()


# --- All of it, by chance ---------------------------------------------------------------------------------------------


def misbehave(tally: Tally, chance: random.Random) -> tuple[list[Answer], bool]:
    """Writes and what is none, in pieces that fall anywhere; the answers, and whether the client stayed for them."""
    with Wire(tally.service) as wire:
        sent = b""
        for _ in range(chance.randint(1, 4)):
            head, body = tally.write_in_chunks()
            sent += chance.choice([tally.write(), head + body])
        broken, body = tally.write_in_chunks()
        damaged = broken + chance.choice(list(BROKEN_BODIES.values()))(body)
        sent += chance.choice([*NO_REQUESTS.values(), damaged, b"", tally.write("Connection: close") + tally.write()])
        sent = wire.filled(sent)
        cuts = sorted(chance.sample(range(len(sent)), min(3, len(sent))))
        for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
            wire.send(sent[start:end])
            time.sleep(chance.choice([0, 0, 0.005]))
        goodbye = chance.choice([wire.stop_sending, wire.stop_sending, wire.reset])
        with contextlib.suppress(OSError):
            goodbye()
        return ([], False) if goodbye == wire.reset else (read_all(wire), True)


def test_by_chance_every_201_is_recorded_and_nothing_recorded_was_rejected(running: Service) -> None:
    seed = random.randrange(2**32)
    answered = recorded = 0

    def client(number: int) -> None:
        nonlocal answered, recorded
        for turn in range(15):
            tally = Tally(running)
            answers, stayed = misbehave(tally, random.Random(f"{seed} {number} {turn}"))
            assert {answer.status for answer in answers} <= {201, 400}, (seed, number, turn)
            if stayed:
                told = sum(answer.status == 201 for answer in answers)
                assert told == len(tally.recorded()), (seed, number, turn, [answer.status for answer in answers])
                answered, recorded = answered + told, recorded + len(tally.recorded())

    failed: list[BaseException] = []

    def run(number: int) -> None:
        try:
            client(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, (seed, failed[0])
    assert answered == recorded > 0
