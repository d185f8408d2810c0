"""How long a head may be, to the byte, however it arrives; and which Host is one."""

import itertools
import random
from typing import Any

import pytest

from app.heads import is_host
from app.server import HEAD_BYTES_MAX
from tests.test_edge import JSON, Wire, check, chunked, in_chunks, post, request


def head(size: int) -> bytes:
    """A request for what needs no key, whose head has so many bytes."""
    start, end = b"GET /healthz HTTP/1.1\r\nHost: h\r\nX-A: ", b"\r\nX-B: b\r\n\r\n"
    return start + b"a" * (size - len(start) - len(end)) + end


def of_many_lines(size: int) -> bytes:
    start = b"GET /healthz HTTP/1.1\r\nHost: h\r\n"
    lines = b"X-A: b\r\n" * ((size - len(start) - 40) // 8)
    rest = size - len(start) - len(lines) - len(b"X-B: \r\n\r\n")
    return start + lines + b"X-B: " + b"b" * rest + b"\r\n\r\n"


def of_a_long_target(size: int) -> bytes:
    start, end = b"GET /", b" HTTP/1.1\r\nHost: h\r\n\r\n"
    return start + b"a" * (size - len(start) - len(end)) + end


def of_its_target_again(size: int) -> bytes:
    """Where it began must not be taken for where its target stands a second time."""
    whole, again = head(size), b" /healthz "
    return whole[:20_000] + again + whole[20_000 + len(again) :]


# What comes before the head on the same connection, in the same piece where the network leaves it so.
BEFORE: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 0),
    "a request": (request(), 1),
    "two requests": (request() * 2, 2),
    "a body": (post("/v1/ledgers", b"[" * 40_000, "X-A: b"), 1),
    "a long body": (post("/v1/ledgers", b"[" * 200_000), 1),
    "a body that ends like a head": (post("/v1/ledgers", b" /healthz HTTP/1.1\r\n\r\n" * 1000), 1),
    "a body in chunks": (chunked("/v1/ledgers", in_chunks(b"[" * 30_000, 7_000)), 1),
    "a long head": (head(HEAD_BYTES_MAX), 1),
}
MAKERS = {
    "one long header": head,
    "many headers": of_many_lines,
    "a long target": of_a_long_target,
    "its target again": of_its_target_again,
}


def cut(sent: bytes, pieces: str, seed: str) -> list[bytes]:
    chance = random.Random(seed)
    number = {"at once": 0, "in two": 1, "in ten": 10}[pieces]
    at = [0, *sorted(chance.sample(range(1, len(sent)), number)), len(sent)]
    return [sent[start:end] for start, end in itertools.pairwise(at)]


@pytest.mark.parametrize("pieces", ["at once", "in two", "in ten"])
@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("before", BEFORE)
def test_a_head_has_a_bound_to_the_byte(service: Any, before: str, maker: str, pieces: str) -> None:
    sent, answers = BEFORE[before]
    for excess in (0, 1, 5_000):
        with Wire(service) as wire:
            whole = MAKERS[maker](HEAD_BYTES_MAX + excess)
            assert len(whole) == HEAD_BYTES_MAX + excess
            for piece in cut(wire.filled(sent) + whole, pieces, f"{before} {maker} {excess}"):
                wire.send(piece)
            for _ in range(answers):
                wire.answer()
            if not excess:
                assert (404 if maker == "a long target" else 200) == wire.answer().status
            elif not wire.is_closed():  # as it is where a request before it was still in hand
                check(wire.answer(), 400, "malformed_request")
                assert wire.is_closed()


def test_a_body_is_no_part_of_the_head_behind_it(service: Any) -> None:
    """Nor of the bound: a head that has just begun, behind a body of nearly 64 KiB in the same piece."""
    with Wire(service) as wire:
        late = head(10_000)
        wire.send(post("/v1/ledgers", b"[" * 60_000) + late[:100])
        check(wire.answer(), 400, "malformed_request")
        wire.send(late[100:])
        check(wire.answer(), 200, None)


def test_a_body_behind_a_head_is_no_part_of_it(service: Any) -> None:
    with Wire(service) as wire:
        wire.send(post("/v1/ledgers", b"[" * 500_000) + request())
        assert [400, 200] == [wire.answer().status for _ in range(2)]


def test_a_head_without_an_end_is_too_long_as_soon_as_it_is(service: Any) -> None:
    """It is not waited for, whether or not something stood before it."""
    for before, answers in ((b"", 0), (request(), 1), (post("/v1/ledgers", b"[" * 1000), 1)):
        with Wire(service) as wire:
            wire.send(before)
            for _ in range(answers):
                wire.answer()
            wire.send(head(HEAD_BYTES_MAX + 100)[: HEAD_BYTES_MAX + 1])
            check(wire.answer(), 400, "malformed_request")


def test_a_trailer_may_end_the_connection(service: Any) -> None:
    with Wire(service) as wire:
        body = in_chunks(b"[", 1)[:-2] + b"Connection: close\r\n\r\n"
        wire.send(request("POST", "/v1/ledgers", JSON, "Transfer-Encoding: chunked") + body + request())
        check(wire.answer(), 400, "malformed_request")
        assert wire.is_closed()


@pytest.mark.parametrize(
    "host", [b"", b"a", b"a.b:80", b"a:", b"[::1]", b"[::ffff:1.2.3.4]:1", b"[v1f.a:b]", b"a%2Fb", b"_a~", b"a \t"]
)
def test_is_a_host(host: bytes) -> None:
    assert is_host(host)


@pytest.mark.parametrize(
    "host",
    [b" a", b"a b", b"a@b", b"a/", b"a:b", b"[", b"[]", b"[::1", b"[::1]x", b"[g::]", b"[v.a]", b"%", b"\xff", b"a\n"],
)
def test_is_no_host(host: bytes) -> None:
    assert not is_host(host)
