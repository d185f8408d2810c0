"""How a process stops: nobody in front of it or in it should notice, and a second signal hurries it without a loss."""

import asyncio
import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from app import server
from tests.books import check_invariants, post, transaction
from tests.conftest import Processes, serve, start_processes, wait_until
from tests.test_edge import JSON, Wire, request
from tests.test_edge import post as whole_post
from tests.test_feed import client_of, prepare, wait_for_event
from tests.test_refusals import holding

TRANSACTIONS = "/v1/ledgers/main/transactions"
LONG = {"DRAIN_S": "60", "SHUTDOWN_TIMEOUT_S": "90"}


@contextmanager
def one_process(database: str, folder: Path, **environment: str) -> Iterator[tuple[Processes, httpx.Client]]:
    with start_processes(database, 1, folder, **environment) as running, client_of(running.urls[0]) as client:
        yield running, client


def wire_to(running: Processes) -> Wire:
    return Wire(SimpleNamespace(url=running.urls[0], key=running.key))


def is_stopping(client: httpx.Client) -> bool:
    answer = client.get("/readyz")
    return (503, "stopping") == (answer.status_code, answer.json().get("reason"))


def is_listening(running: Processes) -> bool:
    try:
        return bool(httpx.get(f"{running.urls[0]}/healthz").status_code)
    except httpx.TransportError:
        return False


def stop(process: subprocess.Popen[bytes], signum: signal.Signals = signal.SIGTERM) -> None:
    process.send_signal(signum)


def ended_well(running: Processes) -> bool:
    return running.processes[0].wait(timeout=30) == 0 and b"Traceback" not in running.logs[0].read_bytes()


def test_readiness_falls_first_and_everything_else_goes_on(database: str, tmp_path: Path) -> None:
    with one_process(database, tmp_path, DRAIN_S="3") as (running, client):
        prepare(client)
        with client_of(running.urls[0]) as idle:
            assert 200 == idle.get("/healthz").status_code
            stop(running.processes[0])
            wait_until(lambda: is_stopping(client), seconds_max=2)
            assert 200 == client.get("/healthz").status_code, "alive all the same"
            with client_of(running.urls[0]) as newcomer:
                assert 201 == post(newcomer, "main", transaction("a", "b")).status_code
            answer = post(idle, "main", transaction("a", "b"))
            assert (201, "close") == (answer.status_code, answer.headers["connection"]), "and told to come in anew"
        assert ended_well(running)
        assert not is_listening(running)


def test_who_waits_for_an_event_is_answered_at_once_and_may_wait_again(database: str, tmp_path: Path) -> None:
    with one_process(database, tmp_path, DRAIN_S="4") as (running, client), ThreadPoolExecutor(2) as threads:
        after = prepare(client)
        asked = threads.submit(wait_for_event, client, after)
        time.sleep(0.5)
        stop(running.processes[0])
        assert [] == asked.result(timeout=3).json()["items"]
        again = threads.submit(wait_for_event, client, after)
        time.sleep(0.5)
        assert not again.done(), "not round and round for as long as the drain takes"
        assert [] == again.result(timeout=10).json()["items"]
        assert ended_well(running)


def test_a_write_that_the_stop_finds_in_flight_is_answered_after_its_commit(database: str, tmp_path: Path) -> None:
    with one_process(database, tmp_path) as (running, client), ThreadPoolExecutor(4) as threads:
        prepare(client)
        with holding(database, "lock table events in share mode") as wait_for:
            asked = [threads.submit(post, client, "main", transaction("a", "b")) for _ in range(4)]
            wait_for(1)
            stop(running.processes[0])
            wait_until(lambda: not is_listening(running))
        assert [201] * 4 == [each.result().status_code for each in asked]
        assert ended_well(running)
    asyncio.run(check_invariants(database))


def test_a_head_on_its_way_when_the_listener_closes_is_answered(database: str, tmp_path: Path) -> None:
    with one_process(database, tmp_path) as (running, _), wire_to(running) as wire:
        wire.send(b"GET /healthz HTTP/1.1\r\n")
        time.sleep(0.2)
        stop(running.processes[0])
        time.sleep(server.FIRST_REQUEST_SECONDS + 0.5)  # longer than one is waited for that has not begun
        wire.send(b"Host: h\r\n\r\n")
        assert 200 == wire.answer().status
        assert ended_well(running)


def test_what_waits_to_be_accepted_is_answered(database: str, tmp_path: Path) -> None:
    """The kernel makes connections for a process that is stopped, and takes requests for it. It wakes to its end."""
    with one_process(database, tmp_path) as (running, client), contextlib.ExitStack() as stack:
        prepare(client)
        process = running.processes[0]
        process.send_signal(signal.SIGSTOP)
        asking, silent, slow = (
            [stack.enter_context(wire_to(running)) for _ in range(number)] for number in (150, 5, 5)
        )
        for number, wire in enumerate(asking):
            wire.send(request() if number % 5 else whole_post(TRANSACTIONS, transaction("a", "b")))
        for wire in slow:
            wire.send(b"GET /healthz HTTP/1.1\r\n")
        stop(process)
        process.send_signal(signal.SIGCONT)
        statuses = [wire.answer().status for wire in asking]
        assert ([201] + [200] * 4) * 30 == statuses
        wait_until(lambda: not is_listening(running))
        for wire in slow:
            wire.send(b"Host: h\r\n\r\n")
        assert [200] * 5 == [wire.answer().status for wire in slow]
        assert all(wire.is_closed() for wire in silent), "who says nothing is not waited for"
        assert ended_well(running)
    asyncio.run(check_invariants(database))


def test_an_idle_connection_has_a_moment_for_a_request_on_its_way(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "GRACE_SECONDS", 30)  # as long as the stop may take
    with contextlib.ExitStack() as running, ThreadPoolExecutor(1) as threads:
        service = running.enter_context(serve(database))
        with Wire(service) as wire:
            wire.send(request())
            assert 200 == wire.answer().status
            stopped = threads.submit(running.close)
            wait_until(lambda: not is_listening(Processes([service.url], database)))
            wire.send(request())
            answer = wire.answer()
            assert (200, "close") == (answer.status, answer.header("connection"))
        stopped.result()


def test_over_many_stops_no_request_is_lost_on_a_connection_that_was_made(database: str, tmp_path: Path) -> None:
    """Clients connect as fast as they can, and each sends its request when it has its connection."""
    lost: list[str] = []
    asked = 0

    def ask(running: Processes, stopped: threading.Event) -> None:
        nonlocal asked
        while not stopped.is_set():
            try:
                wire = wire_to(running)
            except ConnectionRefusedError:
                return  # no connection was made
            with wire:
                wire.send(request())
                asked += 1
                try:
                    assert 200 == wire.answer().status
                except AssertionError as error:
                    lost.append(str(error))

    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        stopped = threading.Event()
        with one_process(database, folder) as (running, _), ThreadPoolExecutor(8) as threads:
            try:
                asking = [threads.submit(ask, running, stopped) for _ in range(8)]
                time.sleep(0.5)
                stop(running.processes[0])
                wait_until(lambda asking=asking: all(each.done() for each in asking))
                assert ended_well(running)
            finally:
                stopped.set()
    assert asked > 24
    # One may fall between the last look and the close, which the kernel has no way to do at once.
    assert len(lost) <= 1, lost


def write_held(database: str, running: Processes, client: httpx.Client, hurry: Any) -> list[httpx.Response]:
    """A post that a batch has taken, and four that wait behind it, while Postgres does not answer: what each is
    told when the time is over."""
    with holding(database, "lock table events in share mode") as wait_for, ThreadPoolExecutor(8) as threads:
        taken = [threads.submit(keyed, client, "taken-0")]
        wait_for(1)
        waiting = [threads.submit(keyed, client, f"waiting-{n}") for n in range(4)]
        time.sleep(0.5)
        hurry()
        answers = [each.result(timeout=20) for each in (*taken, *waiting)]
        assert 0 == running.processes[0].wait(timeout=10)
    return answers


def keyed(client: httpx.Client, key: str) -> httpx.Response:
    return client.post("/v1/ledgers/main/transactions", json=transaction("a", "b"), headers={"Idempotency-Key": key})


def check_what_the_keys_tell(database: str, folder: Path, answers: list[httpx.Response]) -> None:
    """What could not be answered is done once when it is repeated; what was refused had no effect."""
    assert ["outcome_unknown"] + ["overloaded"] * 4 == [answer.json()["code"] for answer in answers]
    with one_process(database, folder) as (_, client):
        again = [keyed(client, key) for key in ("taken-0", *(f"waiting-{n}" for n in range(4)))]
        assert [201] * 5 == [answer.status_code for answer in again]
        assert [None] * 4 == [answer.headers.get("Idempotency-Replayed") for answer in again[1:]]
        assert 3 + 5 == client.get("/v1/ledgers/main").json()["sequence"]
        asyncio.run(check_invariants(database))


def test_a_second_signal_is_quicker_and_loses_nothing(database: str, tmp_path: Path) -> None:
    with one_process(database, tmp_path, **LONG) as (running, client):
        prepare(client)

        def hurry() -> None:
            stop(running.processes[0], signal.SIGINT)
            wait_until(lambda: is_stopping(client))
            stop(running.processes[0], signal.SIGINT)

        answers = write_held(database, running, client, hurry)
        assert b"Traceback" not in running.logs[0].read_bytes()
    check_what_the_keys_tell(database, tmp_path, answers)


def test_when_the_time_is_over_everybody_is_told_what_is_known(database: str, tmp_path: Path) -> None:
    times = {"DRAIN_S": "0", "SHUTDOWN_TIMEOUT_S": "4", "BODY_TIMEOUT_S": "60"}
    with one_process(database, tmp_path, **times) as (running, client), wire_to(running) as wire:
        prepare(client)
        wire.send(request("POST", "/v1/ledgers", JSON, "Content-Length: 20") + b"{")
        answers = write_held(database, running, client, lambda: stop(running.processes[0]))
        stalled = wire.answer()
        assert (503, b'"outcome_unknown"' in stalled.body) == (stalled.status, True), "of a body that never ends"
    check_what_the_keys_tell(database, tmp_path, answers)
