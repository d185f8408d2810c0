"""gzip: for whoever accepts it, of reads of some length only, and beside the loop where it takes long."""

import asyncio
import gzip
import os
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from app.api import compression
from app.api.compression import BYTES_AT_ONCE_MAX, BYTES_MIN, THREADS_MAX, Compressor, accepts_gzip
from tests.books import new_key, open_account, post, transaction
from tests.conftest import KEY, Service
from tests.test_contract import OPERATIONS

LONG = {f"note-{number}": "x" * 500 for number in range(10)}


def raw(
    service: Service, path: str, accept_encoding: str | None = None, **headers: str
) -> tuple[dict[str, str], bytes]:
    """The headers and the body as they are on the wire; a client library would unpack it."""
    host = urlsplit(service.url)
    lines = [f"GET {path} HTTP/1.1", f"Host: {host.netloc}", f"Authorization: Bearer {KEY}", "Connection: close"]
    lines += [f"Accept-Encoding: {accept_encoding}"] if accept_encoding is not None else []
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection((host.hostname, host.port), timeout=30) as wire:
        wire.sendall("\r\n".join([*lines, "", ""]).encode())
        received = b"".join(iter(lambda: wire.recv(65536), b""))
    head, body = received.split(b"\r\n\r\n", 1)
    said = (line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    found = {name.lower(): value for name, value in said}
    assert int(found.get("content-length", 0)) == len(body)
    return found, body


@pytest.fixture
def long_page(client: httpx.Client, ledger: str) -> str:
    for path in ("cash", "wallet"):
        open_account(client, ledger, path, metadata=LONG)
    assert post(client, ledger, transaction("cash", "wallet", metadata=LONG)).status_code == 201
    return f"/v1/ledgers/{ledger}/transactions"


def test_a_long_answer_is_the_same_in_gzip(service: Service, long_page: str) -> None:
    plain, body = raw(service, long_page)
    packed, bytes_ = raw(service, long_page, "gzip")
    assert gzip.decompress(bytes_) == body
    assert len(bytes_) < len(body) / 2
    assert packed["content-encoding"] == "gzip"
    assert "content-encoding" not in plain
    assert [plain["vary"], packed["vary"]] == ["Accept-Encoding"] * 2
    assert plain["content-type"] == packed["content-type"] == "application/json"


def test_a_client_library_reads_it_unasked(client: httpx.Client, long_page: str) -> None:
    answer = client.get(long_page)
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json()["items"][0]["metadata"] == LONG


def test_a_short_answer_is_sent_as_it_is(service: Service, ledger: str) -> None:
    headers, body = raw(service, f"/v1/ledgers/{ledger}", "gzip")
    assert len(body) < BYTES_MIN
    assert "content-encoding" not in headers
    assert headers["vary"] == "Accept-Encoding"


def test_a_past_page_is_kept_for_its_key_and_its_encoding(service: Service, long_page: str) -> None:
    headers, _ = raw(service, long_page.replace("/transactions", "/events?limit=2"), "gzip")
    assert headers["vary"] == "Authorization, Accept-Encoding"
    assert headers["cache-control"].startswith("private")
    assert headers["content-encoding"] == "gzip"


def test_no_answer_to_a_write_and_no_refusal_is_compressed(client: httpx.Client, long_page: str) -> None:
    """A key, for one, is shown once, beside a label that somebody may have chosen."""
    metadata, headers = {"metadata": LONG}, {"Idempotency-Key": new_key()}
    bodies = [
        (
            "/v1/api-keys",
            {
                "name": long_page.split("/")[3],
                "operations": ["read"],
                "ledgers": [f"{'l' * 60}{n}" for n in range(100)],
            },
        ),
        (long_page, transaction("cash", "wallet", **metadata)),
        (f"{long_page.removesuffix('s')}-batches", {"transactions": [transaction("cash", "wallet", **metadata)]}),
    ]
    answers = [client.post(path, json=body, headers=headers | {"Idempotency-Key": new_key()}) for path, body in bodies]
    assert [201, 201, 200] == [answer.status_code for answer in answers]
    errors = client.post(long_page, json={"postings": [{"debit_account": "-"}] * 20}, headers=headers)
    assert errors.status_code == 422
    for answer in (*answers, errors):
        assert len(answer.content) > BYTES_MIN
        assert "content-encoding" not in answer.headers


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_contract_names_it_for_reads_of_the_ledger_alone(name: str) -> None:
    method, path, said = OPERATIONS[name]
    for status, response in said["responses"].items():
        expected = method == "get" and path.startswith("/v1") and status == "200"
        assert expected == ("Content-Encoding" in response.get("headers", {})), status


@pytest.mark.parametrize("said", [
    "gzip", "GZIP", "x-gzip", "*", "br, gzip", "gzip;q=0.001", "gzip ; q=1.000", "identity;q=0.5, gzip;q=0.5",
    "br;q=1, *;q=0.1", "gzip, deflate, br, zstd", "identity;q=0, gzip", ",gzip,", "nonsense//, gzip",
])  # fmt: skip
def test_it_is_accepted(said: str) -> None:
    assert accepts_gzip(said.encode())


@pytest.mark.parametrize("said", [
    "", "identity", "br", "gzip;q=0", "gzip;q=0.000", "*;q=0", "gzip;q=0, *", "identity, gzip;q=0.5", "gzipped",
    "gzip;q=2", "gzip;q=-1", "gzip;q=x", "gzip;level=9", "gzip;q=0.0001", "é", "x" * 50_000,
])  # fmt: skip
def test_it_is_not_accepted(said: str) -> None:
    assert not accepts_gzip(said.encode("latin-1"))


def test_what_takes_long_is_done_beside_the_loop_by_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop goes on meanwhile; who finds too many at it gets his answer as it is."""
    body = os.urandom(BYTES_AT_ONCE_MAX) + b"!"
    compressor = Compressor()

    async def run() -> tuple[list[Any], int]:
        loop, release = asyncio.get_running_loop(), asyncio.Event()

        def slowly(_: bytes) -> bytes:
            asyncio.run_coroutine_threadsafe(release.wait(), loop).result(10)
            return b"packed"

        monkeypatch.setattr(compression, "gzip", slowly)
        under_way = [asyncio.create_task(compressor.compress(body)) for _ in range(THREADS_MAX)]
        await asyncio.sleep(0.05)
        beyond = await compressor.compress(body)
        release.set()
        done = await asyncio.gather(*under_way)
        return [*done, beyond, await compressor.compress(body)], len(under_way)

    found, many = asyncio.run(run())
    assert found == [b"packed"] * many + [None, b"packed"]


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/openapi.yaml", "/docs/assets/swagger-ui-bundle.js"])
def test_a_page_for_people_is_compressed_under_a_tag_of_its_own(service: Service, path: str) -> None:
    plain, body = raw(service, path)
    packed, bytes_ = raw(service, path, "gzip")
    assert gzip.decompress(bytes_) == body
    assert plain["vary"] == packed["vary"] == "Accept-Encoding"
    assert plain["etag"] != packed["etag"]
    for known in (plain["etag"], packed["etag"]):
        again, nothing = raw(service, path, "gzip", **{"If-None-Match": known})
        assert (again["etag"], nothing) == (packed["etag"], b"")
        assert "content-encoding" not in again
