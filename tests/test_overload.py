"""What a process bounds, each bound met: what it has in hand, its connections, and what slow clients may keep.

The thousands are in `scripts/overload`; these are the same with few.
"""

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app import server
from tests.books import post, transaction
from tests.conftest import Service, serve, start_processes, wait_until
from tests.test_edge import JSON, KEY, Wire, check, request
from tests.test_edge import post as whole_post
from tests.test_feed import prepare, wait_for_event
from tests.test_refusals import holding

TRANSACTIONS = "/v1/ledgers/main/transactions"


@contextlib.contextmanager
def bounded(database: str, **bounds: Any) -> Iterator[Service]:
    with serve(database, **bounds) as service:
        with service.client() as client:
            prepare(client)
        wait_until(lambda: count_connections(service) == 0)
        yield service


def count_connections(service: Service) -> int:
    """How many the server still holds, as the kernel tells."""
    port = f"{int(service.url.rpartition(':')[2]):04X}"
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    return sum(row[1].endswith(f":{port}") and row[3] == "01" for row in rows)  # 01: established


# What is in hand.


def test_what_is_more_than_it_takes_is_refused_at_once_and_probes_never_are(database: str) -> None:
    with bounded(database, requests_max=2) as service, service.client() as client, ThreadPoolExecutor(2) as threads:
        with holding(database, "lock table events in share mode") as wait_for:
            asked = [threads.submit(post, client, "main", transaction("a", "b")) for _ in range(2)]
            wait_for(1)
            wait_until(lambda: post(client, "main", transaction("a", "b")).status_code == 503)
            refused = client.get("/v1/ledgers/main")
            assert (503, "overloaded") == (refused.status_code, refused.json()["code"])
            assert "1" == refused.headers["retry-after"]
            assert [200, 200] == [client.get(probe).status_code for probe in ("/healthz", "/readyz")]
        assert [201, 201] == [each.result().status_code for each in asked]
        assert 201 == post(client, "main", transaction("a", "b")).status_code


def test_who_only_waits_takes_no_place(database: str) -> None:
    """For an event, or for the rest of a body."""
    with bounded(database, requests_max=1) as service, service.client() as client, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(wait_for_event, client, 3)
        with Wire(service) as wire:
            wire.send(request("POST", TRANSACTIONS, JSON, KEY, "Content-Length: 100") + b"{")
            time.sleep(0.3)
            assert 201 == post(client, "main", transaction("a", "b")).status_code
        assert 200 == waiting.result().status_code


def test_bodies_take_so_much_memory_and_no_more(database: str) -> None:
    megabyte = request("POST", TRANSACTIONS, JSON, KEY, "Content-Length: 1048576") + b" " * 1_040_000
    with bounded(database, body_memory_mib=4, body_timeout_s=60) as service, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(service)) for _ in range(6)]
        for wire in wires:
            wire.send(megabyte)
        wait_until(lambda: sum(wire.has_answer() for wire in wires) >= 2)
        for wire in wires:
            if wire.has_answer():
                check(wire.answer(), 503, "overloaded")
        stack.close()
        with service.client() as client:
            # What those had who have gone is free again.
            large = transaction("a", "b", metadata={f"n{n}": "x" * 500 for n in range(50)})
            wait_until(lambda: post(client, "main", large).status_code == 201)


# Connections.


def test_the_connection_that_was_silent_longest_makes_room(database: str) -> None:
    with bounded(database, connections_max=10) as service, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(service)) for _ in range(30)]
        for wire in wires[::3]:
            wire.send(b"GET /healthz HTTP/1.1\r\n")
        wait_until(lambda: count_connections(service) <= 10)
        assert wires[0].is_closed()
        # The last one that came is still there, and has its request heard out.
        wires[-1].send(request())
        assert 200 == wires[-1].answer().status
        with service.client() as client:
            assert 201 == post(client, "main", transaction("a", "b")).status_code


def test_where_all_connections_have_a_request_in_hand_a_new_one_is_refused(database: str) -> None:
    with (
        bounded(database, connections_max=10) as service,
        ThreadPoolExecutor(10) as threads,
        service.client() as client,
    ):
        with holding(database, "lock table events in share mode") as wait_for:
            asked = [threads.submit(post, client, "main", transaction("a", "b")) for _ in range(10)]
            wait_for(1)
            # Connected is not enough: one whose request is yet to be read would make room for the new one.
            wait_until(lambda: len(service.server.server_state.tasks) == 10)
            with Wire(service) as wire:
                answer = wire.answer()
            check(answer, 503, "overloaded")
            assert ("1", "close") == (answer.header("retry-after"), answer.header("connection"))
        assert {201} == {each.result().status_code for each in asked}


def test_a_connection_is_not_idle_for_ever(database: str) -> None:
    with bounded(database, keep_alive_s=1) as service, Wire(service) as wire:
        wire.send(request())
        assert 200 == wire.answer().status
        assert wire.is_closed()


# Slow and endless clients. Each is cut off, and whoever comes meanwhile is answered.


def never_ends_its_head(wire: Wire) -> None:
    wire.send(b"GET /healthz HTTP/1.1\r\nX-Slow: ")


def sends_line_feeds_after_an_answer(wire: Wire) -> None:
    wire.send(request())
    assert 200 == wire.answer().status
    wire.send(b"\r\n")


def sends_a_body_that_nobody_wants(wire: Wire) -> None:
    wire.send(request("POST", "/v1/ledgers", "Content-Length: 1000000000", authorized=False))
    assert 401 == wire.answer().status
    wire.send(b" " * 1000)


@pytest.mark.parametrize(
    "slow", [never_ends_its_head, sends_line_feeds_after_an_answer, sends_a_body_that_nobody_wants]
)
def test_who_is_slow_is_cut_off(database: str, monkeypatch: pytest.MonkeyPatch, slow: Any) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS_MAX", 1)
    with bounded(database) as service, contextlib.ExitStack() as stack:
        wires = [stack.enter_context(Wire(service)) for _ in range(20)]
        for wire in wires:
            slow(wire)
        with service.client() as client:
            assert 201 == post(client, "main", transaction("a", "b")).status_code
        assert all(wire.is_closed() for wire in wires)


def test_a_head_may_not_be_endless_however_fast_it_comes(database: str) -> None:
    """It is over long before its time is: what has arrived of it has to be kept, so that is bounded as well."""
    with bounded(database) as service, Wire(service) as wire:
        wire.send(b"GET /healthz HTTP/1.1\r\n")
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 64 * server.HEAD_BYTES_MAX:
                line = f"X-{sent}: {'x' * 1000}\r\n".encode()
                wire._socket.sendall(line)
                sent += len(line)
        assert sent < 64 * server.HEAD_BYTES_MAX


def test_a_body_that_nobody_wants_may_not_be_endless(database: str) -> None:
    with bounded(database) as service, Wire(service) as wire:
        wire.send(request("POST", "/v1/ledgers", "Content-Length: 1000000000", authorized=False))
        assert 401 == wire.answer().status
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 64 * server.REST_BYTES_MAX:
                wire._socket.sendall(b" " * 65536)
                sent += 65536
        assert sent < 64 * server.REST_BYTES_MAX


def test_a_refused_body_that_ends_leaves_the_connection_as_it_was(database: str) -> None:
    with bounded(database) as service, Wire(service) as wire:
        wire.send(request("POST", "/v1/ledgers", "Content-Length: 100000", authorized=False))
        assert 401 == wire.answer().status
        for _ in range(10):
            wire.send(b" " * 10_000)
        wire.send(request())
        assert 200 == wire.answer().status


def test_a_client_that_does_not_read_keeps_nothing(database: str) -> None:
    """Neither its connection nor the answers that wait for it."""
    with bounded(database, keep_alive_s=1) as service, service.client() as client:
        for n in range(50):
            body = transaction("a", "b", metadata={f"n{m}": "x" * 500 for m in range(50)})
            assert 201 == post(client, "main", body, f"large-{n}").status_code
        address = client.base_url
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.connect((address.host, address.port))
            asked = f"GET /v1/ledgers/main/events?limit=1000 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {service.key}"
            raw.sendall(f"{asked}\r\n\r\n".encode() * 20)
            client.close()
            wait_until(lambda: count_connections(service) == 0, seconds_max=15)


def test_who_asks_for_more_and_goes_is_no_fault_of_the_service(database: str, tmp_path: Path) -> None:
    """The connection ends while the first of two requests is worked on. On the event loop that processes have."""
    with start_processes(database, 1, tmp_path) as running:
        service = Service(running.urls[0], database)
        with service.client() as client:
            prepare(client)
            with holding(database, "lock table events in share mode") as wait_for, Wire(service) as wire:
                wire.send(whole_post(TRANSACTIONS, transaction("a", "b")) + request())
                wait_for(1)
                wire.reset()
                wait_until(lambda: count_connections(service) <= 1)
            wait_until(lambda: 'operation="postTransaction"' in client.get("/metrics").text)
    assert "error" not in running.logs[0].read_text()


def test_the_refusal_of_a_connection_is_a_whole_answer() -> None:
    head, _, body = server.full_house().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body)["code"] == "overloaded"
