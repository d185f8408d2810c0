"""The edge against hostile bytes, sent over raw sockets because every HTTP client is too polite to send them.

Each probe is a request and the answer that the contract promises for it. Whatever was sent, no answer is a 5xx or
repeats what the client invented, every refusal is a problem document of the contract, and the service goes on.
"""

import base64
import contextlib
import itertools
import json
import re
import select
import socket
import struct
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest
import yaml
from jsonschema import Draft202012Validator

CONTRACT = yaml.safe_load((Path(__file__).parent.parent / "openapi.yaml").read_text())
PROBLEM = Draft202012Validator(
    {"$ref": "#/components/schemas/ProblemDetails", "components": CONTRACT["components"]},
    format_checker=Draft202012Validator.FORMAT_CHECKER,
)

ANSWER_SECONDS_MAX = 30  # Longer than the service waits for a body.
BODY_BYTES_MAX = 1024 * 1024
CANARY = "kanari4e7c"  # Stands in whatever the client invents, and in no answer.
LEDGER = "edge"
ACCOUNTS = f"/v1/ledgers/{LEDGER}/accounts"
TRANSACTIONS = f"/v1/ledgers/{LEDGER}/transactions"
EVENTS = f"/v1/ledgers/{LEDGER}/events"

# What stands for the service's key, and for a new Idempotency-Key, in the bytes of a probe.
SECRET = b"@secret@"
FRESH = b"@fresh@"


# --- The wire -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The header's only value: none of ours may stand twice."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2, f"{name} stands {len(values)} times"
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One connection, and all the bytes that came back on it."""

    def __init__(self, service: Any) -> None:
        address = urlsplit(service.url)
        self._secret = service.key.encode()
        self._socket = socket.create_connection((address.hostname, address.port), timeout=ANSWER_SECONDS_MAX)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unread = b""
        self.received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def filled(self, data: bytes) -> bytes:
        return data.replace(SECRET, self._secret).replace(FRESH, uuid.uuid4().hex.encode())

    def send(self, data: bytes) -> None:
        # A server that has refused already may close while we still send; what it answered is what counts.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(self.filled(data))

    def stop_sending(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close without a goodbye, as a crashed client or a cut cable would."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def answer(self, *, to_head: bool = False) -> Answer:
        """The next final answer; an interim one is skipped."""
        head = self._until(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.split(":", 1) for line in lines if line)
        headers = [(name.lower(), value.strip()) for name, value in pairs]
        status = int(status_line.split(" ")[1])
        if status < 200:
            return self.answer(to_head=to_head)
        lengths = [int(value) for name, value in headers if name == "content-length"]
        assert len(lengths) == 1, "every answer says once how long it is"
        return Answer(status, headers, b"" if to_head else self._exactly(lengths[0]))

    def is_closed(self) -> bool:
        """Whether the server closes the connection without another word."""
        return not self._unread and not self.receive()

    def has_answer(self) -> bool:
        return bool(select.select([self._socket], [], [], 0)[0])

    def receive(self) -> bool:
        """Wait for more. False if the server has closed the connection."""
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:
            return False
        self._unread += data
        self.received += data
        return data != b""

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._unread:
            assert self.receive(), f"closed after {self._unread!r}"
        head, self._unread = self._unread.split(mark, 1)
        return head

    def _exactly(self, length: int) -> bytes:
        while len(self._unread) < length:
            assert self.receive(), f"closed after {self._unread!r}"
        body, self._unread = self._unread[:length], self._unread[length:]
        return body


def request(
    method: str = "GET",
    target: str | bytes = "/healthz",
    *headers: str | bytes,
    version: str = "1.1",
    authorized: bool = True,
) -> bytes:
    """The head of a request, byte for byte as the probe wants it."""
    target = target.encode() if isinstance(target, str) else target
    lines = [b"%s %s HTTP/%s" % (method.encode(), target, version.encode()), b"Host: ledger.test"]
    lines += [b"Authorization: Bearer " + SECRET] if authorized else []
    lines += [line.encode() if isinstance(line, str) else line for line in headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


UPGRADE = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c")
JSON = "Content-Type: application/json"
KEY = b"Idempotency-Key: " + FRESH


def post(target: str, body: Any = b"", *headers: str | bytes, content_type: str | None = JSON, key: Any = KEY) -> bytes:
    """A whole write, with a body of these bytes or of this JSON."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [line for line in (content_type, key) if line]
    return request("POST", target, *head, *headers, f"Content-Length: {len(body)}") + body


def chunked(target: str, chunks: bytes, *headers: str | bytes) -> bytes:
    return request("POST", target, JSON, KEY, *headers, "Transfer-Encoding: chunked") + chunks


# --- What every answer has to be ------------------------------------------------------------------------------------


def check(answer: Answer, status: int, code: str | None) -> None:
    """A rejection is the contract's problem document."""
    assert status == answer.status, answer
    if status < 400:
        return
    problem = answer.json()
    assert code == problem["code"], problem
    PROBLEM.validate(problem)
    assert answer.header("content-type") == "application/problem+json"
    assert (status, f"/problems/{code}") == (problem["status"], problem["type"])
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", problem["request_id"])
    assert problem["request_id"] == answer.header("x-request-id")
    assert (status == 401) == (answer.header("www-authenticate") is not None)


def check_nothing_echoed(received: bytes) -> None:
    assert CANARY.encode() not in received.lower()
    assert b"HTTP/1.1 5" not in received


def check_alive(service: Any) -> None:
    with Wire(service) as wire:
        wire.send(request(authorized=False))
        assert wire.answer().status == 200


# --- The probes -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Probe:
    name: str
    send: bytes | Callable[[Wire], Answer]
    status: int
    code: str | None


def probes(status: int, code: str | None, sent: dict[str, bytes | Callable[[Wire], Answer]]) -> list[Probe]:
    return [Probe(name, send, status, code) for name, send in sent.items()]


def get(*targets: str | bytes) -> dict[str, Any]:
    return {f"GET {str(target)[:60]}": request("GET", target) for target in targets}


ROUTES = [
    *probes(
        404,
        "route_not_found",
        get(
            "/",
            f"/{CANARY}",
            f"/v1/{CANARY}?limit=5",
            "/v1",
            "/V1/ledgers",
            "/healthz/",
            "/v1/ledgers/",
            f"/v1/ledgers/{LEDGER}/",
            f"{ACCOUNTS}/",
            f"{TRANSACTIONS}/1/",
            "//healthz",
            "//v1/ledgers",
            "/v1//ledgers",
            f"/v1/ledgers//{LEDGER}",
            "/v1/../healthz",
            "/v1/./ledgers",
            "/v1/%2e%2e/healthz",
            "/v1/ledgers/../ledgers",
            "/v1%2Fledgers",
            f"/v1/ledgers/{LEDGER}%2Faccounts",
            f"/v1/ledgers/{LEDGER}%2faccounts%2fbank:cash",
            f"{ACCOUNTS}/bank%2Fcash",
            "/healthz%0A",
            "/healthz%00",
            "/v1/ledgers%0A",
            f"{ACCOUNTS}%0A",
            f"{ACCOUNTS}%20",
            "/v1\\ledgers",
            "/%ff%fe",
            f"/problems/{CANARY}",
            f"/docs/assets/..%2F{CANARY}",
            "/docs/assets/%00",
        ),
    ),
    Probe("OPTIONS *", request("OPTIONS", "*"), 404, "route_not_found"),
    *probes(
        422,
        "validation_failed",
        get(
            "/v1/ledgers/..",
            "/v1/ledgers/%2e%2e",
            f"/v1/ledgers/{LEDGER}%0A",
            f"/v1/ledgers/{LEDGER}%00{CANARY}",
            f"/v1/ledgers/{LEDGER}%ff",
            "/v1/ledgers/%c0%af",
            "/v1/ledgers/%ed%a0%80",
            "/v1/ledgers/%zz",
            "/v1/ledgers/%",
            "/v1/ledgers/%2561",
            f"/v1/ledgers/{LEDGER};v=1",
            "/v1/ledgers/%20",
            "/v1/ledgers/%E2%82%AC",
            "/v1/ledgers/-a",
            f"/v1/ledgers/{CANARY * 7}",
            f"/v1/ledgers/{'a' * 60_000}",
            f"{ACCOUNTS}/bank::cash",
            f"{ACCOUNTS}/:bank",
            f"{ACCOUNTS}/bank:",
            f"{ACCOUNTS}/bank%0A",
            f"{ACCOUNTS}/{'a' * 256}",
            f"{ACCOUNTS}/%F0%9F%92%B6/entries",
            f"{TRANSACTIONS}/0",
            f"{TRANSACTIONS}/-1",
            f"{TRANSACTIONS}/05",
            f"{TRANSACTIONS}/+5",
            f"{TRANSACTIONS}/%205%20",
            f"{TRANSACTIONS}/5%0A",
            f"{TRANSACTIONS}/1_0",
            f"{TRANSACTIONS}/10.0",
            f"{TRANSACTIONS}/1e3",
            f"{TRANSACTIONS}/0x1",
            f"{TRANSACTIONS}/%D9%A5",
            f"{TRANSACTIONS}/%EF%BC%95",
            f"{TRANSACTIONS}/true",
            f"{TRANSACTIONS}/{2**53}",
            f"{TRANSACTIONS}/{2**63}",
            f"{TRANSACTIONS}/1{'0' * 400}",
            f"{TRANSACTIONS}/1{'0' * 5000}",
        ),
    ),
]


def cursor(text: str) -> str:
    """A cursor that says what no list ever said, made as the service makes its own."""
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


FORGED = (
    '["ledgers",null,1]', '["ledgers",null,true]', '["ledgers",null,null]', '["ledgers",null,""]', "[]", "{}", "0",
    '["ledgers",null,"\\u0000"]', '["ledgers",null,"\\ud800"]', '["ledgers",null,NaN]', '["ledgers",null]',
    '["accounts","edge",null,"a"]', '["ledgers",{"a":1},"a"]', '["ledgers",null,' + "9" * 600 + "]", "[" * 700,
)  # fmt: skip

QUERIES = [
    *probes(
        422,
        "validation_failed",
        get(
            "/healthz?verbose=1",
            f"/readyz?{CANARY}",
            f"/v1/ledgers?{CANARY}={CANARY}",
            f"/v1/ledgers/{LEDGER}?limit=5",
            "/v1/ledgers?LIMIT=5",
            "/v1/ledgers?limit",
            "/v1/ledgers?limit=",
            "/v1/ledgers?limit=0",
            "/v1/ledgers?limit=1001",
            "/v1/ledgers?limit=-1",
            "/v1/ledgers?limit=05",
            "/v1/ledgers?limit=+5",
            "/v1/ledgers?limit=%2B5",
            "/v1/ledgers?limit=%205%20",
            "/v1/ledgers?limit=5%0A",
            "/v1/ledgers?limit=5%00",
            "/v1/ledgers?limit=1_0",
            "/v1/ledgers?limit=10.0",
            "/v1/ledgers?limit=1e2",
            "/v1/ledgers?limit=0x10",
            "/v1/ledgers?limit=true",
            "/v1/ledgers?limit=NaN",
            "/v1/ledgers?limit=null",
            "/v1/ledgers?limit=%D9%A5",
            "/v1/ledgers?limit=%EF%BC%95",
            f"/v1/ledgers?limit={CANARY}",
            f"/v1/ledgers?limit={2**63}",
            f"/v1/ledgers?limit=1{'0' * 400}",
            f"/v1/ledgers?limit=1{'0' * 5000}",
            "/v1/ledgers?limit=5;cursor=a",
            "/v1/ledgers?limit[]=5",
            "/v1/ledgers?limit%00=5",
            "/v1/ledgers?=5",
            "/v1/ledgers?cursor=",
            "/v1/ledgers?cursor=%ff",
            "/v1/ledgers?cursor=a%00b",
            f"/v1/ledgers?cursor={'a' * 1025}",
            f"{TRANSACTIONS}?order=NEWEST",
            f"{TRANSACTIONS}?order={CANARY}",
            f"{TRANSACTIONS}?order=newest%0A",
            f"{TRANSACTIONS}?after_sequence=1",
            f"{EVENTS}?after_sequence=-1",
            f"{EVENTS}?after_sequence=1_0",
            f"{EVENTS}?after_sequence={2**53}",
            f"{EVENTS}?order=newest",
        ),
    ),
    Probe(
        "a query on a write", post(f"{ACCOUNTS}?dry_run={CANARY}", {"path": 1}), 422, "validation_failed"
    ),
    *probes(
        400,
        "malformed_request",
        get(
            "/v1/ledgers?limit=1&limit=2",
            "/v1/ledgers?limit=1&limit=1",
            "/v1/ledgers?limit=1&l%69mit=2",
            "/v1/ledgers?limit=1&cursor=YQ&limit=",
            f"{TRANSACTIONS}?order=newest&order={CANARY}",
            f"{EVENTS}?after_sequence=0&after_sequence=0",
        ),
    ),
    *probes(
        400,
        "invalid_cursor",
        get(
            f"/v1/ledgers?cursor={CANARY}",
            "/v1/ledgers?cursor=AAAA",
            f"{ACCOUNTS}?cursor={'A' * 1024}",
            f"{TRANSACTIONS}?cursor=eyJhIjoxfQ",
            f"{ACCOUNTS}/bank:cash/entries?cursor=_____",
            *(f"/v1/ledgers?cursor={cursor(forged)}" for forged in FORGED),
            f"{TRANSACTIONS}?cursor={cursor(json.dumps(['transactions', LEDGER, 'newest', 2**53]))}",
            f"{TRANSACTIONS}?cursor={cursor(json.dumps(['transactions', 'other', 'newest', 1]))}",
            f"{TRANSACTIONS}?order=oldest&cursor={cursor(json.dumps(['transactions', LEDGER, 'newest', 1]))}",
        ),
    ),
    *probes(422, "sequence_out_of_range", get(f"{EVENTS}?after_sequence=1000", f"{EVENTS}?after_sequence={2**53 - 1}")),
]  # fmt: skip


def unauthorized(*values: str | bytes, method: str = "GET") -> bytes:
    lines = [b"Authorization: " + (value.encode() if isinstance(value, str) else value) for value in values]
    return request(method, "/v1/ledgers", *lines, authorized=False)


HEADERS = [
    *probes(
        401,
        "unauthenticated",
        {
            "no key": unauthorized(),
            "an empty Authorization": unauthorized(""),
            "a scheme alone": unauthorized("Bearer"),
            "a scheme and a space": unauthorized("Bearer "),
            "a wrong key": unauthorized(f"Bearer {CANARY}"),
            "the key in pieces": unauthorized(b"Bearer " + SECRET[:-1], "Bearer x"),
            "the key with a tail": unauthorized(b"Bearer " + SECRET + b"x"),
            "the key and a word": unauthorized(b"Bearer " + SECRET + b" " + CANARY.encode()),
            "the key without its scheme": unauthorized(SECRET),
            "the key as Basic": unauthorized(b"Basic " + SECRET),
            "the key twice": unauthorized(b"Bearer " + SECRET, b"Bearer " + SECRET),
            "a right and a wrong key": unauthorized(b"Bearer " + SECRET, f"Bearer {CANARY}"),
            "a wrong and a right key": unauthorized(f"Bearer {CANARY}", b"Bearer " + SECRET),
            "two keys in one header": unauthorized(b"Bearer " + SECRET + b", Bearer " + SECRET),
            "bytes beyond ASCII": unauthorized(b"Bearer \xff\xfe" + CANARY.encode()),
            "a key of 60 kB": unauthorized("Bearer " + CANARY * 6_000),
            "a quoted key": unauthorized(b'Bearer "' + SECRET + b'"'),
            "a key in the query": request(
                "GET", b"/v1/ledgers?access_token=" + SECRET, authorized=False
            ),
        },
    ),
    *probes(200, None, {"a scheme in lower case": unauthorized(b"bearer " + SECRET)}),
    *probes(
        406,
        "not_acceptable",
        {
            f"Accept: {accept}": request("GET", "/v1/ledgers", f"Accept: {accept}")
            for accept in (
                "text/html",
                "application/xml",
                "application/json;q=0",
                "application/jsonx",
                "text/*",
                "image/png, text/plain;q=0.5",
                f"application/{CANARY}",
                "*/*;q=0",
                "*/*, application/json;q=0",
            )
        },
    ),
    *probes(
        200,
        None,
        {
            f"Accept: {accept}": request("GET", "/v1/ledgers", f"Accept: {accept}")
            for accept in (
                "*/*",
                "application/*",
                "Application/JSON",
                "text/html, */*;q=0.1",
                "text/html, application/json;q=0.001",
                "text/html\r\nAccept: application/json",
            )
        },
    ),
    *probes(
        400,
        "malformed_request",
        {
            "Idempotency-Key twice": post(ACCOUNTS, {}, f"Idempotency-Key: {CANARY}"),
            "the same Idempotency-Key twice": post(ACCOUNTS, {}, "IDEMPOTENCY-KEY: a", key="Idempotency-Key: a"),
            "Content-Type twice": post(ACCOUNTS, {}, JSON),
            "another Content-Type behind": post("/v1/ledgers", {}, f"Content-Type: text/{CANARY}"),
            "Content-Encoding twice": post("/v1/ledgers", {}, "Content-Encoding: gzip", "Content-Encoding: gzip"),
        },
    ),
    *probes(
        400,
        "idempotency_key_required",
        {
            "no Idempotency-Key for an account": post(ACCOUNTS, {}, key=None),
            "no Idempotency-Key for a transaction": post(TRANSACTIONS, {}, key=None),
            "an empty Idempotency-Key": post(ACCOUNTS, {}, key="Idempotency-Key:"),
        },
    ),
    *probes(
        422,
        "validation_failed",
        {
            "a blank in the Idempotency-Key": post(ACCOUNTS, {}, key=f"Idempotency-Key: a {CANARY}"),
            "a tab in the Idempotency-Key": post(ACCOUNTS, {}, key="Idempotency-Key: a\tb"),
            "an Idempotency-Key of 256": post(ACCOUNTS, {}, key=f"Idempotency-Key: {'k' * 256}"),
            "an Idempotency-Key beyond ASCII": post(ACCOUNTS, {}, key=b"Idempotency-Key: k\xff"),
            "an Idempotency-Key in UTF-8": post(ACCOUNTS, {}, key="Idempotency-Key: ké".encode()),
        },
    ),
]  # fmt: skip

A_LEDGER = {"name": LEDGER}

MEDIA = [
    *probes(
        415,
        "unsupported_media_type",
        {
            f"{content_type}": post("/v1/ledgers", A_LEDGER, content_type=content_type)
            for content_type in (
                "Content-Type: text/plain",
                "Content-Type:",
                "Content-Type: json",
                "Content-Type: application/jsonx",
                "Content-Type: application/vnd.foo+json",
                "Content-Type: application/x-www-form-urlencoded",
                "Content-Type: multipart/form-data; boundary=x",
                "Content-Type: application/json, text/plain",
                f"Content-Type: application/{CANARY}",
                "Content-Type: application/json; charset=latin-1",
                "Content-Type: application/json; charset=utf-16",
                "Content-Type: application/json; charset=utf-8; charset=utf-16",
                "Content-Type: application/json; charset",
                "X-No-Content-Type: 1",
            )
        },
    ),
    *probes(
        415,
        "unsupported_media_type",
        {
            f"Content-Encoding: {encoding}": post("/v1/ledgers", A_LEDGER, f"Content-Encoding: {encoding}")
            for encoding in ("gzip", "br", "gzip, identity", CANARY)
        },
    ),
    *probes(
        201,
        None,
        {
            content_type: post("/v1/ledgers", A_LEDGER, content_type=content_type)
            for content_type in (
                "Content-Type: application/json;charset=utf-8",
                "Content-Type: application/json; charset=UTF-8",
                'Content-Type: Application/JSON ; Charset="utf-8"',
            )
        },
    ),
]

NOT_JSON: dict[str, bytes] = {
    "an empty body": b"",
    "blanks": b" \r\n\t ",
    "a byte order mark": b"\xef\xbb\xbf" + b'{"name":"edge"}',
    "UTF-16": '{"name":"edge"}'.encode("utf-16"),
    "UTF-16 without a mark": '{"name":"edge"}'.encode("utf-16-le"),
    "UTF-32": '{"name":"edge"}'.encode("utf-32"),
    "invalid UTF-8": b'{"name":"edge","description":"\xff"}',
    "overlong UTF-8": b'{"name":"edge","description":"\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"name":"edge","description":"\xed\xa0\x80"}',
    "invalid UTF-8 in a name": b'{"name":"edge","\xfe":1}',
    "NaN": b'{"name":"edge","description":NaN}',
    "Infinity": b'{"name":"edge","description":Infinity}',
    "-Infinity": b'{"name":"edge","description":-Infinity}',
    "NaN alone": b"NaN",
    "a lone high surrogate": rb'{"name":"edge","description":"\ud800"}',
    "a lone low surrogate": rb'{"name":"edge","description":"\udc00x"}',
    "surrogates the wrong way round": rb'{"name":"edge","description":"\udc00\ud800"}',
    "a lone surrogate in a name": rb'{"name":"edge","\ud800":"x"}',
    "a lone surrogate in metadata": rb'{"name":"edge","metadata":{"a":"\ud800"}}',
    "a duplicate name": b'{"name":"edge","name":"edge"}',
    "a duplicate name in disguise": rb'{"name":"edge","n\u0061me":"edge"}',
    "a duplicate unknown name": b'{"name":"edge","%s":1,"%s":2}' % (CANARY.encode(), CANARY.encode()),
    "a duplicate name in metadata": b'{"name":"edge","metadata":{"a":"1","a":"2"}}',
    "a duplicate name in a list": b'{"name":"edge","metadata":[[{"a":1,"a":2}]]}',
    "5,000 lists deep": b"[" * 5_000 + b"]" * 5_000,
    "500,000 lists deep": b"[" * 500_000 + b"]" * 500_000,
    "5,000 objects deep": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "5,000 deep in metadata": b'{"name":"edge","metadata":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "a number of 5,000 digits": b'{"name":"edge","description":' + b"9" * 5_000 + b"}",
    "500,000 lists never closed": b"[" * 500_000,
    "something behind": b'{"name":"edge"} ' + CANARY.encode(),
    "two documents": b'{"name":"edge"}{"name":"edge"}',
    "NUL behind": b'{"name":"edge"}\x00',
    "a NUL": b"\x00",
    "an open end": b'{"name":"edge"',
    "an open string": b'{"name":"edge',
    "a trailing comma": b'{"name":"edge",}',
    "single quotes": b"{'name':'edge'}",
    "a bare name": b'{name:"edge"}',
    "a comment": b'{"name":"edge"/*%s*/}' % CANARY.encode(),
    "a raw NUL in a string": b'{"name":"edge","description":"a\x00b"}',
    "a raw line feed in a string": b'{"name":"edge","description":"a\nb"}',
    "a bad escape": rb'{"name":"edge","description":"\x41"}',
    "half an escape": rb'{"name":"edge","description":"\u00"}',
    "a leading zero": b'{"name":"edge","description":01}',
    "a leading plus": b'{"name":"edge","description":+1}',
    "a bare point": b'{"name":"edge","description":.5}',
    "True": b'{"name":"edge","description":True}',
    "a form": b"name=edge",
    "XML": b"<name>edge</name>",
    "gzip": bytes.fromhex("1f8b08000000000000ff"),
}

# Strict JSON, but nothing that the contract knows.
NOT_A_LEDGER: dict[str, bytes] = {
    "null": b"null",
    "true": b"true",
    "a number": b"1",
    "a string": f'"{CANARY}"'.encode(),
    "a list": b"[]",
    "a list of one": b'[{"name":"edge"}]',
    "no name": b"{}",
    "an unknown property": json.dumps({"name": LEDGER, CANARY: CANARY}).encode(),
    "a name in another case": b'{"Name":"edge"}',
    "__proto__": b'{"name":"edge","__proto__":{}}',
    "name: null": b'{"name":null}',
    "name: a number": b'{"name":5}',
    "name: a huge number": b'{"name":1' + b"0" * 4_000 + b"}",
    "name: 1e999": b'{"name":1e999}',
    "name: -1e999": b'{"name":-1e999}',
    "name: a list": b'{"name":["edge"]}',
    "name: empty": b'{"name":""}',
    "name: too long": json.dumps({"name": CANARY * 7}).encode(),
    "name: a blank": json.dumps({"name": f"a {CANARY}"}).encode(),
    "name: a line feed behind": rb'{"name":"edge\n"}',
    "name: NUL": rb'{"name":"edge\u0000"}',
    "name: another script": '{"name":"ledgеr"}'.encode(),
    "description: null": b'{"name":"edge","description":null}',
    "description: a number": b'{"name":"edge","description":1}',
    "description: 1e999": b'{"name":"edge","description":1e999}',
    "description: a huge fraction": b'{"name":"edge","description":0.' + b"9" * 4_000 + b"}",
    "description: NUL": rb'{"name":"edge","description":"a\u0000b"}',
    "description: a bell": rb'{"name":"edge","description":"\u0007"}',
    "description: a carriage return": rb'{"name":"edge","description":"a\r\nb"}',
    "description: DEL": rb'{"name":"edge","description":"\u007f"}',
    "description: too long": json.dumps({"name": LEDGER, "description": "x" * 1001}).encode(),
    "metadata: null": b'{"name":"edge","metadata":null}',
    "metadata: a list": b'{"name":"edge","metadata":[]}',
    "metadata: a number within": b'{"name":"edge","metadata":{"a":1}}',
    "metadata: null within": b'{"name":"edge","metadata":{"a":null}}',
    "metadata: an object within": b'{"name":"edge","metadata":{"a":{"b":"c"}}}',
    "metadata: an empty name": b'{"name":"edge","metadata":{"":"a"}}',
    "metadata: a blank in a name": json.dumps({"name": LEDGER, "metadata": {f"a {CANARY}": "x"}}).encode(),
    "metadata: a line feed in a name": rb'{"name":"edge","metadata":{"a\n":"x"}}',
    "metadata: NUL in a name": rb'{"name":"edge","metadata":{"a\u0000":"x"}}',
    "metadata: a name too long": json.dumps({"name": LEDGER, "metadata": {CANARY * 7: "x"}}).encode(),
    "metadata: a value too long": json.dumps({"name": LEDGER, "metadata": {"a": "x" * 501}}).encode(),
    "metadata: NUL in a value": rb'{"name":"edge","metadata":{"a":"\u0000"}}',
    "metadata: 51 pairs": json.dumps({"name": LEDGER, "metadata": {f"k{i}": "x" for i in range(51)}}).encode(),
    "metadata: 50,000 pairs": json.dumps({"name": LEDGER, "metadata": {f"k{i}": "x" for i in range(50_000)}}).encode(),
    "100,000 unknown properties": json.dumps({f"{CANARY}{i}": 1 for i in range(40_000)}).encode(),
}  # fmt: skip

LEDGER_BODIES = [
    *probes(
        400,
        "malformed_request",
        {f"ledger: {name}": post("/v1/ledgers", body) for name, body in NOT_JSON.items()},
    ),
    *probes(
        422,
        "validation_failed",
        {f"ledger: {name}": post("/v1/ledgers", body) for name, body in NOT_A_LEDGER.items()},
    ),
    Probe("ledger: another body", post("/v1/ledgers", A_LEDGER | {"description": CANARY}), 409, "ledger_exists"),
]  # fmt: skip

AN_ACCOUNT = {"path": "edge:wallet", "asset": "USD/2", "normal_side": "credit"}

WRONG_BALANCES = (
    "", "-", "-0", "00", "01", "+1", " 1", "1 ", "1\n", "1.0", "1e5", "1_000", "1,000", "0x10", "٣", "１",
    "NaN", "null", "9" * 39, "-" + "9" * 39, "1" + "0" * 5000, 0, 1, 1.5, 10**400, True, None, [], {}, ["0"],
)  # fmt: skip

WRONG_PATHS = ("", ":", "a:", ":a", "a::b", "a b", "a/b", "é", "-a", "a:-b", "a\n", "a\0", "a" * 256, None, 7)
WRONG_ASSETS = (
    "usd/2", "USD", "USD/", "USD/39", "USD/02", "USD/-1", "USD/2\n", "ÄSD/2", "/2", "A" * 33 + "/2", "USD/٢", None,
)  # fmt: skip

WRONG_IN_ACCOUNTS: list[tuple[str, Any]] = [
    *(("minimum_balance", each) for each in WRONG_BALANCES),
    ("maximum_balance", 10**38),
    ("maximum_balance", "1" + "0" * 38),
    *(("path", each) for each in WRONG_PATHS),
    *(("asset", each) for each in WRONG_ASSETS),
    *(("normal_side", each) for each in ("DEBIT", "debit ", "", CANARY, None, True, 1, ["debit"])),
    ("description", None),
    ("metadata", None),
    (CANARY, CANARY),
    ("status", "open"),
]  # fmt: skip

ACCOUNT_BODIES = probes(
    422,
    "validation_failed",
    {
        f"account: {field}={str(value)[:40]!r}": post(ACCOUNTS, AN_ACCOUNT | {field: value})
        for field, value in WRONG_IN_ACCOUNTS
    }
    | {
        "account: a lone object": post(ACCOUNTS, {}),
        "account: 1e999 as a balance": post(
            ACCOUNTS, json.dumps(AN_ACCOUNT).replace("}", ',"minimum_balance":1e999}').encode()
        ),
    },
)

A_POSTING = {"debit_account": "bank:cash", "credit_account": "users:42:wallet", "amount": "1"}
A_TRANSACTION: dict[str, Any] = {"postings": [A_POSTING]}

WRONG_AMOUNTS = ("0", "-1", *WRONG_BALANCES)
WRONG_TIMES = (
    0, 1700000000, 1.5, True, None, {}, "", "0", "0.5", "1700000000", "now", "2026-01-01", "2026-01-01T00:00:00",
    "2026-01-01 00:00:00Z", "2026-01-01T00:00Z", "2026-01-01T00:00:00.Z", "2026-01-01T00:00:00.123456789Z",
    "2026-01-01T00:00:00.1234567Z", "2026-01-01T00:00:00,5Z", "2026-01-01T00:00:60Z", "2016-12-31T23:59:60Z",
    "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z", "2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z",
    "2026-01-00T00:00:00Z", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00",
    "10000-01-01T00:00:00Z", "-2026-01-01T00:00:00Z", "2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00+0100",
    "2026-01-01T00:00:00+01", "2026-01-01T00:00:00 Z", " 2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z\n",
    "2026-W01-1T00:00:00Z", "20260101T000000Z", "2026-01-01T00:00:00Z[UTC]", "２026-01-01T00:00:00Z",
    "2026-01-01T00:00:00Z\0", "2026-01-01T00:00:00+01:00:30",
)  # fmt: skip
TIMES_OUT_OF_RANGE = (
    "1800-01-01T00:00:00Z", "1899-12-31T23:59:59.999999Z", "1900-01-01T00:00:00+00:01", "0001-01-01T00:00:00Z",
    "0001-01-02T00:00:00+14:00", "9999-12-31T23:59:59.999999Z", "9999-12-31T00:00:00-00:00",
)  # fmt: skip
WRONG_LABELS = ("", " ", "a b", "a\tb", "é", "a\n", "\0", "a" * 256, f"{CANARY} ", None, 5, [])

WRONG_POSTINGS = ([], None, {}, "x", [None], [[]], ["x"], [A_POSTING, {}], [A_POSTING] * 501, [[A_POSTING]])

WRONG_IN_TRANSACTIONS: list[tuple[str, Any]] = [
    *(("effective_at", each) for each in WRONG_TIMES),
    *(("reference", each) for each in WRONG_LABELS),
    *(("group", each) for each in ("", "a b", "a" * 256, None)),
    *(("postings", each) for each in WRONG_POSTINGS),
    ("description", "x" * 1001),
    ("description", None),
    ("metadata", {"a": None}),
    ("metadata", None),
    ("sequence", 1),
    (CANARY, CANARY),
]  # fmt: skip

WRONG_IN_POSTINGS: list[tuple[str, Any]] = [
    *(("amount", each) for each in WRONG_AMOUNTS),
    ("debit_account", None),
    ("debit_account", ["bank:cash"]),
    ("credit_account", f"{CANARY}:"),
    ("credit_account", "bank:cash"),  # The account that is debited too.
    ("asset", "USD/2"),
    (CANARY, CANARY),
]

TRANSACTION_BODIES = [
    *probes(
        422,
        "validation_failed",
        {
            f"transaction: {field}={str(value)[:40]!r}": post(TRANSACTIONS, A_TRANSACTION | {field: value})
            for field, value in WRONG_IN_TRANSACTIONS
        }
        | {
            f"posting: {field}={str(value)[:40]!r} {type(value).__name__}": post(
                TRANSACTIONS, {"postings": [A_POSTING, A_POSTING | {field: value}]}
            )
            for field, value in WRONG_IN_POSTINGS
        },
    ),
    *probes(
        422,
        "time_out_of_range",
        {
            f"transaction: effective_at={value}": post(TRANSACTIONS, A_TRANSACTION | {"effective_at": value})
            for value in TIMES_OUT_OF_RANGE
        },
    ),
    Probe(
        "transaction: a duplicate name in a posting",
        post(TRANSACTIONS, json.dumps(A_TRANSACTION).replace('"amount"', '"amount":"2","amount"').encode()),
        400,
        "malformed_request",
    ),
]


CAPTURE, VOID, REVERSE = (f"{TRANSACTIONS}/7/{what}" for what in ("capture", "void", "reverse"))
A_HOLD = A_TRANSACTION | {"pending": True}
A_SHARE = {"posting": 0, "amount": "1"}
WRONG_NUMBERS = (-1, 500, 0.5, 1e3, 2**53, 10**400, "0", "", True, None, [], {}, [0])
WRONG_SHARES = ([], None, {}, "x", [None], [0], ["0"], [{}], [[A_SHARE]], [A_SHARE, A_SHARE], [A_SHARE] * 501)

WRONG_IN_HOLDS: list[tuple[str, Any]] = [
    *(("expires_at", each) for each in WRONG_TIMES),
    *(("pending", each) for each in (0, 1, "true", "", None, [], {})),
]
WRONG_IN_CAPTURES: list[tuple[str, Any]] = [
    *(("amounts", each) for each in WRONG_SHARES),
    *(("amounts", [A_SHARE | {"posting": each}]) for each in WRONG_NUMBERS),
    *(("amounts", [A_SHARE | {"amount": each}]) for each in ("0", "-1", "", "1.0", 1, True, None, "9" * 39)),
    ("amounts", [A_SHARE | {CANARY: 1}]),
    *(("remainder", each) for each in ("Keep", "keep ", "", CANARY, None, True, ["keep"])),
    ("group", "g"),
    ("expires_at", "2099-01-01T00:00:00Z"),
]
WRONG_IN_ALL_THREE: list[tuple[str, Any]] = [
    *(("reference", each) for each in WRONG_LABELS),
    ("description", None),
    ("metadata", {"a": None}),
    ("postings", [A_POSTING]),
    (CANARY, CANARY),
]

HOLD_BODIES = [
    *probes(
        422,
        "validation_failed",
        {
            f"hold: {field}={str(value)[:40]!r} {type(value).__name__}": post(TRANSACTIONS, A_HOLD | {field: value})
            for field, value in WRONG_IN_HOLDS
        }
        | {
            f"capture: {field}={str(value)[:50]!r}": post(CAPTURE, {field: value})
            for field, value in [*WRONG_IN_CAPTURES, *(("effective_at", each) for each in WRONG_TIMES)]
        }
        | {
            f"{target.rsplit('/', 1)[1]}: {field}={str(value)[:40]!r}": post(target, {field: value})
            for target in (CAPTURE, VOID, REVERSE)
            for field, value in WRONG_IN_ALL_THREE
        }
        | {
            "an expiry of what is no hold": post(TRANSACTIONS, A_TRANSACTION | {"expires_at": "2099-01-01T00:00:00Z"}),
            "an expiry of what is said to be no hold": post(
                TRANSACTIONS, A_TRANSACTION | {"expires_at": "2099-01-01T00:00:00Z", "pending": False}
            ),
            "a void that is dated": post(VOID, {"effective_at": "2026-01-01T00:00:00Z"}),
            "a reversal of a part": post(REVERSE, {"amounts": [A_SHARE]}),
            **{
                f"capture of {sequence}": post(f"{TRANSACTIONS}/{sequence}/capture", {})
                for sequence in ("0", "-1", "07", "+7", "7.0", "1e3", "seven", 2**53, "%37x", "9" * 400)
            },
        },
    ),
    *probes(
        422,
        "time_out_of_range",
        {
            f"hold: expires_at={value}": post(TRANSACTIONS, A_HOLD | {"expires_at": value})
            for value in TIMES_OUT_OF_RANGE
            if value < "9"
        },
    ),
    *probes(
        422, "not_pending", {"a capture of a post": post(CAPTURE, {}), "a void of a post": post(VOID, {"metadata": {}})}
    ),
    *probes(
        404,
        "transaction_not_found",
        {
            f"{what} of {sequence}": post(f"{TRANSACTIONS}/{sequence}/{what}", {})
            for what in ("capture", "void", "reverse")
            for sequence in (1, 8, 2**53 - 1)
        },
    ),
    *probes(
        400,
        "malformed_request",
        {
            "a capture of twice the same": post(CAPTURE, b'{"remainder":"keep","remainder":"release"}'),
            "a capture without a body": post(CAPTURE),
        },
    ),
]


def padded(length: int) -> bytes:
    """The ledger's own body, as long as asked for."""
    return json.dumps(A_LEDGER).encode().ljust(length)


def in_chunks(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def claim(length: int | str, *headers: str | bytes) -> bytes:
    """A write that says how long it is, and has not begun."""
    return request("POST", "/v1/ledgers", JSON, *headers, f"Content-Length: {length}")


SIZES = [
    *probes(
        201,
        None,
        {
            "1 MiB": post("/v1/ledgers", padded(BODY_BYTES_MAX)),
            "1 MiB in chunks": chunked("/v1/ledgers", in_chunks(padded(BODY_BYTES_MAX), 8192)),
            "a byte at a time": chunked("/v1/ledgers", in_chunks(padded(60), 1)),
        },
    ),
    *probes(
        413,
        "content_too_large",
        {
            "1 MiB and a byte": post("/v1/ledgers", padded(BODY_BYTES_MAX + 1)),
            "1 MiB and a byte in chunks": chunked("/v1/ledgers", in_chunks(padded(BODY_BYTES_MAX + 1), 65536)),
            "one chunk of 8 MiB": chunked("/v1/ledgers", in_chunks(padded(8 * BODY_BYTES_MAX), 8 * BODY_BYTES_MAX)),
            "a claim of 1 MiB and a byte": claim(BODY_BYTES_MAX + 1),
            "a claim of 1 EiB": claim(2**60),
            "a claim that waits for leave": claim(2**40, "Expect: 100-continue"),
        },
    ),
]  # fmt: skip

# A ledger in one chunk.
BYTES = b"f\r\n" + b'{"name":"edge"}' + b"\r\n0\r\n\r\n"

# Whatever two readers of one stream could read differently is rejected, and the connection closed.
NO_REQUESTS = [
    *probes(
        400,
        "malformed_request",
        {
            "a method in lower case": request("get"),
            "an unknown method": request(CANARY.upper()),
            "a method with a tail": request("GETX"),
            "no method": b" /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
            "no target": b"GET  HTTP/1.1\r\nHost: x\r\n\r\n",
            "a relative target": request(target="healthz"),
            "an address without a path": request(target=f"http://{CANARY}.test"),
            "CONNECT": request("CONNECT", f"{CANARY}.test:443"),
            "bytes beyond ASCII in the target": request(target=b"/v1/ledgers/\xc3\xa9"),
            "bytes beyond ASCII in the query": request(target=b"/v1/ledgers?cursor=\xff"),
            "NUL in the target": request(target=b"/healthz\x00"),
            "a control character in the target": request(target=b"/health\x01z"),
            "a blank in the target": request(target=b"/health z"),
            "a tab in the target": request(target=b"/health\tz"),
            "a key of 100 kB": unauthorized("Bearer " + CANARY * 10_000),
            "a target of 70 kB": request(target="/" + CANARY * 7_000),
            "HTTP/1.2": request(version="1.2"),
            "HTTP/11": request(version="11"),
            "HTTP/1.10": request(version="1.10"),
            "HTTP/01.1": request(version="01.1"),
            "HTTP/0.9, named": request(version="0.9"),
            "HTTP/0.9": b"GET /healthz\r\n",
            "HTTP/0.9 with a line feed": b"GET /healthz\n",
            "HTTP/0.9 and an empty line": b"GET /healthz\r\n\r\n",
            "HTTP/2.0": request(version="2.0"),
            "HTTP/3.0": request(version="3.0"),
            "HTTP/9.9": request(version="9.9"),
            "http/1.1": request().replace(b"HTTP", b"http"),
            "a blank behind the version": request(version="1.1 "),
            "a tab behind the method": request().replace(b"GET ", b"GET\t"),
            "a blank before the method": b" " + request(),
            "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
            "no host for an address": b"GET http://ledger.test/healthz HTTP/1.1\r\n\r\n",
            "two hosts": request("GET", "/healthz", f"Host: {CANARY}"),
            "one host twice": request("GET", "/healthz", "Host: ledger.test"),
            "a host and an empty one": request("GET", "/healthz", "Host:"),
            "two hosts in HTTP/1.0": request("GET", "/healthz", f"Host: {CANARY}", version="1.0"),
            "a malformed host in HTTP/1.0": request(version="1.0").replace(b"ledger.test", b"a b"),
            **{
                f"Host: {host.decode('latin-1')}": request().replace(b"ledger.test", host)
                for host in (
                    b"http://ledger.test",
                    b"ledger.test/",
                    b"ledger.test?a",
                    b"ledger.test#a",
                    b"me@ledger.test",
                    b"ledger test",
                    b"a.test, b.test",
                    b"a.test:80:80",
                    b"a.test:eighty",
                    b"a.test:-1",
                    b"a.test: 80",
                    b"[::1",
                    b"::1",
                    b"[::1]a",
                    b"[1.2.3.4]",
                    b"[::g]",
                    b"[]",
                    b"[fe80::1%25eth0]",
                    b"[v.a]",
                    b"ledger.test%2",
                    b"ledger.test%zz",
                    b'"ledger.test"',
                    b"<a>",
                    b"a\\b",
                    b"\xc3\xa9.test",
                    b"\xff",
                )
            },
            "a user in the target": request(target=f"http://{CANARY}@ledger.test/healthz"),
            "another scheme in the target": request(target="ftp://ledger.test/healthz"),
            "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "another protocol": b"SIP/2.0 200 OK\r\n\r\n",
            "TLS": bytes.fromhex("16030100c8010000c40303"),
            "noise": bytes(range(256)),
            "NULs": bytes(64),
            "line feeds alone": b"GET /healthz HTTP/1.1\nHost: x\n\n",
            "carriage returns alone": b"GET /healthz HTTP/1.1\rHost: x\r\r",
            "a header without a colon": request("GET", "/healthz", CANARY),
            "a header without a name": request("GET", "/healthz", ": x"),
            "a blank before the colon": request("GET", "/healthz", "X-A : x"),
            "a blank in a name": request("GET", "/healthz", "X A: x"),
            "a blank before the first header": b"GET /healthz HTTP/1.1\r\n X-A: x\r\n\r\n",
            "a folded header": request("GET", "/healthz", f"X-A: x\r\n {CANARY}"),
            "DEL in a header": request("GET", "/healthz", b"X-A: x\x7fy"),
            "bytes beyond ASCII in a header's name": request("GET", "/healthz", b"X-\xc3\xa9: x"),
            "NUL in a header": request("GET", "/healthz", b"X-A: x\x00y"),
            "NUL in a header's name": request("GET", "/healthz", b"X-A\x00: x"),
            "a control character in a header": request("GET", "/healthz", b"X-A: x\x01y"),
            "a carriage return in a header": request("GET", "/healthz", b"X-A: x\ry"),
            "a line feed in a key": post(ACCOUNTS, {}, key=f"Idempotency-Key: a\nX-B: {CANARY}"),
            "length and chunks": chunked("/v1/ledgers", b"0\r\n\r\n", "Content-Length: 5"),
            "chunks and length": claim(5, "Transfer-Encoding: chunked") + b"0\r\n\r\n",
            "two lengths": claim(5, "Content-Length: 6") + b"{}   ",
            "one length twice": claim(5, "Content-Length: 5") + b"{}   ",
            "a list of lengths": claim("5, 5") + b"{}   ",
            "a length below zero": claim("-1"),
            "a length with a plus": claim("+5") + b"{}   ",
            "a length in hex": claim("0x5") + b"{}   ",
            "a length with an underscore": claim("1_0") + b"{}        ",
            "a length with a point": claim("5.0") + b"{}   ",
            "a length of 30 digits": claim("9" * 30),
            "an empty length": claim(""),
            "a blank behind Content-Length": request("POST", "/v1/ledgers", JSON, "Content-Length : 5") + b"{}   ",
            "an unknown transfer encoding": request("POST", "/v1/ledgers", JSON, "Transfer-Encoding: xchunked"),
            "identity": request("POST", "/v1/ledgers", JSON, "Transfer-Encoding: identity"),
            "chunks, then identity": request("POST", "/v1/ledgers", JSON, "Transfer-Encoding: chunked, identity"),
            "chunks twice": chunked("/v1/ledgers", b"0\r\n\r\n", "Transfer-Encoding: chunked"),
            "a coding before chunks": request("POST", "/v1/ledgers", JSON, "Transfer-Encoding: gzip, chunked") + BYTES,
            "a coding before chunks, in two headers": request(
                "POST", "/v1/ledgers", JSON, "Transfer-Encoding: gzip", "Transfer-Encoding: chunked"
            )
            + BYTES,
            "chunks in HTTP/1.0": request("POST", "/v1/ledgers", JSON, "Transfer-Encoding: chunked", version="1.0")
            + BYTES,
            "chunks after a vertical tab": request("POST", "/v1/ledgers", JSON, b"Transfer-Encoding: \x0bchunked"),
            "a chunk's length that is none": chunked("/v1/ledgers", b"zz\r\n{}\r\n0\r\n\r\n"),
            "a chunk's length below zero": chunked("/v1/ledgers", b"-2\r\n{}\r\n0\r\n\r\n"),
            "a chunk's length with 0x": chunked("/v1/ledgers", b"0x2\r\n{}\r\n0\r\n\r\n"),
            "a chunk's length beyond 64 bits": chunked("/v1/ledgers", b"F" * 17 + b"\r\n{}"),
            "a chunk's length that is empty": chunked("/v1/ledgers", b"\r\n{}\r\n0\r\n\r\n"),
            "a chunk longer than it says": chunked("/v1/ledgers", b"2\r\n{}{}\r\n0\r\n\r\n"),
            "chunks with line feeds": chunked("/v1/ledgers", b"2\n{}\n0\n\n"),
            "a blank before a chunk's length": chunked("/v1/ledgers", b" f\r\n" + BYTES[3:]),
            "a blank behind a chunk's length": chunked("/v1/ledgers", b"f \r\n" + BYTES[3:]),
            "a control character in a chunk's extension": chunked("/v1/ledgers", b"f;a=\x01\r\n" + BYTES[3:]),
            "a line feed in a chunk's extension": chunked("/v1/ledgers", b"f;a\n" + BYTES[3:]),
            "a trailer without a colon": chunked("/v1/ledgers", BYTES[:-2] + b"X-A\r\n\r\n"),
            "a trailer with a blank before its colon": chunked("/v1/ledgers", BYTES[:-2] + b"X-A : b\r\n\r\n"),
            "a trailer with a line feed": chunked("/v1/ledgers", BYTES[:-2] + b"X-A: b\n\r\n"),
            "a length in a trailer": chunked("/v1/ledgers", BYTES[:-2] + b"Content-Length: 15\r\n\r\n"),
            "chunks in a trailer": chunked("/v1/ledgers", BYTES[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"),
        },
    ),
]
FRAMING = [
    *NO_REQUESTS,
    *probes(
        200,
        None,
        {
            "HTTP/1.0": request(version="1.0"),
            "HTTP/1.0 that wants to stay": request("GET", "/healthz", "Connection: keep-alive", version="1.0"),
            "an address as the target": request(target="http://ledger.test/healthz"),
            "empty lines before": b"\r\n\r\n" + request(),
            "a fragment": request(target="/healthz#fragment"),
            "bytes beyond ASCII in a header": request("GET", "/healthz", b"X-A: \xff\xfe"),
            # Names that a careless reader of headers might keep for itself.
            "a header named repeated": request("GET", "/healthz", f"Repeated: {CANARY}"),
            "a header named repeated, beyond ASCII": request("GET", "/healthz", b"Repeated: \xff"),
            "a header of a proxy": request("GET", "/healthz", f"X-Forwarded-Host: {CANARY}"),
            "a method in a header": request("GET", "/healthz", "X-HTTP-Method-Override: PUT"),
            "no host in HTTP/1.0": b"GET /healthz HTTP/1.0\r\n\r\n",
            "an address and another host": request(target="http://other.test:8080/healthz"),
            **{
                f"Host: {host}": request().replace(b"ledger.test", host.encode())
                for host in (
                    "", "a", "a_b", "a.test:", "a.test:8080", "127.0.0.1:80", "[::1]", "[::1]:80", "[v1.a:b]",
                    "a%20b", "a.test \t", "!$&'()*+,;=~",
                )
            },
            "a header of 32 kB": request("GET", "/healthz", "X-A: " + CANARY * 3_200),
            "an upgrade to WebSocket": request("GET", "/healthz", "Upgrade: websocket", "Connection: Upgrade"),
            "an upgrade to HTTP/2": request("GET", "/healthz", "Upgrade: h2c", "Connection: Upgrade"),
            "a body on a GET": request("GET", "/healthz", "Content-Length: 5") + b"[[[[[",
        },
    ),
    *probes(
        201,
        None,
        {
            "chunks": chunked("/v1/ledgers", in_chunks(padded(20), 7)),
            "chunks with extensions": chunked("/v1/ledgers", b'f;a="b"\r\n{"name":"edge"}\r\n0;c\r\n\r\n'),
            "an unknown expectation": post("/v1/ledgers", A_LEDGER, f"Expect: {CANARY}"),
            # What the HTTP client of Java sends with whatever it sends first.
            "a body, and a wish for HTTP/2": post("/v1/ledgers", A_LEDGER, *UPGRADE),
        },
    ),
]  # fmt: skip


# --- Probes that take more than one send ------------------------------------------------------------------------------


def waits_for_leave(wire: Wire) -> Answer:
    wire.send(claim(15, "Expect: 100-continue"))
    while b"\r\n\r\n" not in wire.received:
        assert wire.receive()
    assert wire.received.startswith(b"HTTP/1.1 100 Continue\r\n")
    wire.send(b'{"name":"edge"}')
    return wire.answer()


def gets_no_leave_without_a_key(wire: Wire) -> Answer:
    head = request("POST", "/v1/ledgers", JSON, "Content-Length: 15", "Expect: 100-continue", authorized=False)
    wire.send(head)
    answer = wire.answer()
    assert b"100 Continue" not in wire.received
    return answer


def is_refused_before_its_body(wire: Wire) -> Answer:
    wire.send(request("POST", "/v1/ledgers", JSON, "Content-Length: 1000", authorized=False))
    answer = wire.answer()
    # The stream stays in step: the late body is passed over, and the next request is read as one.
    wire.send(request("DELETE", f"/{CANARY}", authorized=False).ljust(1000) + request())
    assert wire.answer().status == 200
    return answer


def says_less_than_it_sends(wire: Wire) -> Answer:
    """What is left over is no request, so the connection cannot be trusted any longer."""
    wire.send(claim(5) + json.dumps(A_LEDGER | {"description": CANARY}).encode())
    answer = wire.answer()
    assert wire.is_closed()
    return answer


def smuggles_behind_a_body(wire: Wire) -> Answer:
    """What stands behind the body is a request of its own, and is asked for its key."""
    hidden = request("GET", "/v1/ledgers", authorized=False)
    wire.send(post("/v1/ledgers", A_LEDGER) + hidden)
    assert wire.answer().status == 201
    return wire.answer()


def smuggles_behind_both_lengths(wire: Wire) -> Answer:
    wire.send(chunked("/v1/ledgers", b"0\r\n\r\n" + request("GET", "/v1/ledgers"), "Content-Length: 4"))
    answer = wire.answer()
    assert wire.is_closed()
    return answer


def smuggles_behind_an_upgrade(wire: Wire) -> Answer:
    """A body is no request, whatever protocol its head wishes for, whenever it arrives and whatever it says."""
    hidden = request("GET", "/v1/ledgers")
    claimed = len(wire.filled(hidden))
    wire.send(request("POST", "/v1/ledgers", JSON, KEY, *UPGRADE, f"Content-Length: {claimed}"))
    time.sleep(0.1)
    wire.send(hidden[: len(hidden) // 2])
    time.sleep(0.1)
    wire.send(
        wire.filled(hidden)[len(hidden) // 2 :] + post("/v1/ledgers", A_LEDGER, *UPGRADE) + request(target="/nowhere")
    )
    refused, made = wire.answer(), wire.answer()
    assert (400, 201) == (refused.status, made.status)
    assert wire.answer().status == 404
    return refused


def smuggles_behind_an_upgrade_in_chunks(wire: Wire) -> Answer:
    """Where nobody can tell where the body ends, nothing that follows is a request."""
    wire.send(request("POST", "/v1/ledgers", JSON, KEY, *UPGRADE, "Transfer-Encoding: chunked"))
    answer = wire.answer()
    wire.send(request())
    assert wire.is_closed()
    return answer


def pipelines(wire: Wire) -> Answer:
    """Answers come in the order of the requests, whatever each of them takes."""
    wire.send(post("/v1/ledgers", A_LEDGER) + request(target="/nowhere") + request() + request("PUT"))
    assert [wire.answer().status for _ in range(3)] == [201, 404, 200]
    return wire.answer()


def comes_in_pieces(wire: Wire) -> Answer:
    whole = wire.filled(post("/v1/ledgers", A_LEDGER))
    for at in range(0, len(whole), 11):
        wire.send(whole[at : at + 11])
        time.sleep(0.001)
    return wire.answer()


def hides_a_key_in_a_trailer(wire: Wire) -> Answer:
    """A field behind the body is no header: it comes too late to say who asks."""
    body = b"f\r\n" + b'{"name":"edge"}' + b"\r\n0\r\nAuthorization: Bearer " + SECRET + b"\r\n\r\n"
    wire.send(request("POST", "/v1/ledgers", JSON, "Transfer-Encoding: chunked", authorized=False) + body)
    return wire.answer()


def stops_sending(wire: Wire) -> Answer:
    wire.send(request())
    wire.stop_sending()
    return wire.answer()


def gives_back_the_request_id(wire: Wire) -> Answer:
    wire.send(request("GET", "/nowhere", "X-Request-Id: A.z_0-9"))
    answer = wire.answer()
    assert "A.z_0-9" == answer.header("x-request-id") == answer.json()["request_id"]
    return answer


def has_its_request_id_replaced(*lines: str | bytes) -> Callable[[Wire], Answer]:
    def converse(wire: Wire) -> Answer:
        wire.send(request("GET", "/nowhere", *lines))
        return wire.answer()

    return converse


CONVERSATIONS = [
    Probe("waits for leave to send", waits_for_leave, 201, None),
    Probe("gets no leave without a key", gets_no_leave_without_a_key, 401, "unauthenticated"),
    Probe("is refused before its body", is_refused_before_its_body, 401, "unauthenticated"),
    Probe("says less than it sends", says_less_than_it_sends, 400, "malformed_request"),
    Probe("smuggles behind a body", smuggles_behind_a_body, 401, "unauthenticated"),
    Probe("smuggles behind both lengths", smuggles_behind_both_lengths, 400, "malformed_request"),
    Probe("smuggles behind an upgrade", smuggles_behind_an_upgrade, 400, "malformed_request"),
    Probe("smuggles behind an upgrade, in chunks", smuggles_behind_an_upgrade_in_chunks, 400, "malformed_request"),
    Probe("pipelines", pipelines, 405, "method_not_allowed"),
    Probe("comes in pieces", comes_in_pieces, 201, None),
    Probe("hides a key in a trailer", hides_a_key_in_a_trailer, 401, "unauthenticated"),
    Probe("stops sending", stops_sending, 200, None),
    Probe("gives back the request id", gives_back_the_request_id, 404, "route_not_found"),
    *probes(
        404,
        "route_not_found",
        {
            f"replaces the request id {str(line)[:40]}": has_its_request_id_replaced(line)
            for line in (
                f"X-Request-Id: {CANARY} {CANARY}",
                f"X-Request-Id: {CANARY * 7}",
                f"X-Request-Id: <{CANARY}>",
                f"X-Request-Id: {CANARY}/../",
                b"X-Request-Id: \xff" + CANARY.encode(),
                "X-Request-Id:",
            )
        },
    ),
]

PROBES = [
    *ROUTES,
    *QUERIES,
    *HEADERS,
    *MEDIA,
    *LEDGER_BODIES,
    *ACCOUNT_BODIES,
    *TRANSACTION_BODIES,
    *HOLD_BODIES,
    *SIZES,
    *FRAMING,
    *CONVERSATIONS,
]


# --- The tests --------------------------------------------------------------------------------------------------------

BOOKS: list[dict[str, str]] = [
    {"path": "bank:cash", "asset": "USD/2", "normal_side": "debit"},
    {"path": "bank:euros", "asset": "EUR/2", "normal_side": "debit"},
    {"path": "bank:gold", "asset": "USD/2", "normal_side": "debit"},
    {"path": "users:42:wallet", "asset": "USD/2", "normal_side": "credit", "minimum_balance": "0"},
    {"path": "users:42:capped", "asset": "USD/2", "normal_side": "credit", "maximum_balance": "10"},
]


def exchange(service: Any, data: bytes) -> Answer:
    with Wire(service) as wire:
        wire.send(data)
        answer = wire.answer()
        check_nothing_echoed(wire.received)
        return answer


def open_books(service: Any, ledger: str) -> None:
    assert exchange(service, post("/v1/ledgers", {"name": ledger})).status == 201
    for account in BOOKS:
        assert exchange(service, post(f"/v1/ledgers/{ledger}/accounts", account)).status == 201
    taken = A_TRANSACTION | {"reference": "taken", "description": "The first"}
    posted = post(f"/v1/ledgers/{ledger}/transactions", taken, key="Idempotency-Key: used")
    assert exchange(service, posted).status == 201


@pytest.fixture(scope="module", autouse=True)
def books(service: Any) -> Iterator[None]:
    """The ledger that the probes name. When all of them are done, none has left a trace in its log."""
    open_books(service, LEDGER)
    yield
    ledger = exchange(service, request(target=f"/v1/ledgers/{LEDGER}")).json()
    assert 1 + len(BOOKS) + 1 == ledger["sequence"]


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_a_hostile_request_gets_the_answer_that_the_contract_promises(service: Any, probe: Probe) -> None:
    with Wire(service) as wire:
        if isinstance(probe.send, bytes):
            wire.send(probe.send)
            answer = wire.answer()
        else:
            answer = probe.send(wire)
        check(answer, probe.status, probe.code)
        check_nothing_echoed(wire.received)
    check_alive(service)


@pytest.mark.parametrize("probe", NO_REQUESTS, ids=lambda probe: probe.name)
def test_what_is_no_request_ends_its_connection(service: Any, probe: Probe) -> None:
    """Nobody can tell where the next request would begin. The answer has the guards of every other."""
    with Wire(service) as wire:
        wire.send(probe.send)
        answer = wire.answer()
        assert ("close", "no-store", "nosniff") == tuple(
            answer.header(name) for name in ("connection", "cache-control", "x-content-type-options")
        )
        wire.send(request())
        assert wire.is_closed()


EXAMPLES = {"ledger": LEDGER, "account": "bank:cash", "sequence": "7", "api_key": "nobody"}
OPERATIONS = [
    pytest.param(method.upper(), path.format(**EXAMPLES), operation, id=operation["operationId"])
    for path, operations in CONTRACT["paths"].items()
    for method, operation in operations.items()
]


@pytest.mark.parametrize(("method", "target", "operation"), OPERATIONS)
def test_every_operation_has_the_edge(service: Any, method: str, target: str, operation: dict[str, Any]) -> None:
    """Each promise that the contract makes for all operations is kept by each of them, also by later ones."""
    is_open = operation.get("security") == []
    takes_key = {"$ref": "#/components/parameters/IdempotencyKeyParameter"} in operation.get("parameters", [])
    lines = [JSON, KEY, "Content-Length: 2"] if "requestBody" in operation else []
    body = b"[]" if "requestBody" in operation else b""

    def ask(target: str, *headers: str | bytes, body: bytes = body, authorized: bool = True) -> Answer:
        return exchange(service, request(method, target, *headers, authorized=authorized) + body)

    unauthenticated = ask(f"{target}?{CANARY}=1", *lines, "Accept: text/html", authorized=False)
    check(unauthenticated, *((406, "not_acceptable") if is_open else (401, "unauthenticated")))
    check(ask(f"{target}?{CANARY}=1", *lines, "Accept: text/html"), 406, "not_acceptable")
    check(ask(f"{target}?{CANARY}=1", *lines), 422, "validation_failed")
    check(ask(f"{target}/", *lines), 404, "route_not_found")
    check(ask(f"{target}%0A/", *lines), 404, "route_not_found")
    for parameter in operation.get("parameters", []):
        name = parameter["$ref"].rsplit("/", 1)[1]
        if CONTRACT["components"]["parameters"][name]["in"] == "query":
            name = CONTRACT["components"]["parameters"][name]["name"]
            check(ask(f"{target}?{name}=1&{name}=1"), 400, "malformed_request")
            check(ask(f"{target}?{name}={CANARY}%00"), 422, "validation_failed")
    if takes_key:
        check(ask(target, JSON, "Content-Length: 2"), 400, "idempotency_key_required")
        check(ask(target, *lines, KEY), 400, "malformed_request")
    if "requestBody" in operation:
        check(ask(target, *lines), 422, "validation_failed")
        check(ask(target, *lines, JSON), 400, "malformed_request")
        check(ask(target, KEY, "Content-Length: 2"), 415, "unsupported_media_type")
        check(ask(target, *lines, "Content-Encoding: gzip"), 415, "unsupported_media_type")
        longest = operation["requestBody"].get("x-bytes-max", 2**20)
        check(ask(target, JSON, KEY, f"Content-Length: {longest + 1}", body=b""), 413, "content_too_large")
        check(ask(target, JSON, KEY, "Content-Length: 13", body=b'{"a":1,"a":1}'), 400, "malformed_request")


METHODS = ("PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "PROPFIND", "M-SEARCH", "QUERY", "POST", "GET")


@pytest.mark.parametrize("path", CONTRACT["paths"])
def test_a_method_that_a_path_lacks_is_refused_with_all_that_it_has(service: Any, path: str) -> None:
    has = {method.upper() for method in CONTRACT["paths"][path]}
    for method in METHODS:
        if method not in has:
            # Neither key nor body is looked at: the route comes first.
            head = request(method, path.format(**EXAMPLES), "Content-Length: 3", authorized=False)
            answer = exchange(service, head + b"{]}")
            check(answer, 405, "method_not_allowed")
            assert has == set((answer.header("allow") or "").split(", "))


@pytest.mark.parametrize("target", ["/healthz", "/v1/ledgers", f"/{CANARY}"])
def test_head_is_answered_without_a_body(service: Any, target: str) -> None:
    """The next answer on the connection begins where the head ends."""
    with Wire(service) as wire:
        wire.send(request("HEAD", target) + request())
        assert (404 if CANARY in target else 405) == wire.answer(to_head=True).status
        check(wire.answer(), 200, None)
        check_nothing_echoed(wire.received)


PLACES = [
    (request(target="/v1/ledgers?limit=0"), "limit"),
    (request(target="/v1/ledgers?limit=x"), "limit"),
    (request(target=f"{TRANSACTIONS}?order=up"), "order"),
    (request(target="/v1/ledgers/-"), "ledger"),
    (request(target=f"{TRANSACTIONS}/0"), "sequence"),
    (request(target=f"{ACCOUNTS}/-"), "account"),
    (post(ACCOUNTS, AN_ACCOUNT, key="Idempotency-Key: a b"), "Idempotency-Key"),
    (post(ACCOUNTS, AN_ACCOUNT | {"path": "-"}), "/path"),
    (post(ACCOUNTS, {key: AN_ACCOUNT[key] for key in ("path", "asset")}), "/normal_side"),
    (post(TRANSACTIONS, {"postings": [A_POSTING, A_POSTING | {"amount": "0"}]}), "/postings/1/amount"),
    (post(TRANSACTIONS, A_TRANSACTION | {"metadata": {CANARY: 1}}), "/metadata"),
    (post(TRANSACTIONS, {"postings": [A_POSTING | {CANARY: 1}]}), "/postings/0"),
    (post(TRANSACTIONS, A_TRANSACTION | {CANARY: 1}), ""),
    (post(TRANSACTIONS, A_TRANSACTION | {"expires_at": "2099-01-01T00:00:00Z"}), "/expires_at"),
    (post(f"{TRANSACTIONS}/0/capture", {}), "sequence"),
    (post(CAPTURE, {"amounts": [A_SHARE, A_SHARE | {"posting": -1}]}), "/amounts/1/posting"),
    (post(CAPTURE, {"amounts": [A_SHARE, {"posting": 1, "amount": "1"}, A_SHARE]}), "/amounts/2/posting"),
]


@pytest.mark.parametrize(
    ("sent", "place"), PLACES, ids=[f"{number} {place}" for number, (_, place) in enumerate(PLACES)]
)
def test_a_validation_failure_names_the_place_as_the_contract_does(service: Any, sent: bytes, place: str) -> None:
    """A parameter by its name, what is in the body by a JSON Pointer to the contract's own properties."""
    answer = exchange(service, sent)
    check(answer, 422, "validation_failed")
    assert [place] == [error["pointer"] for error in answer.json()["errors"]]


ODD_TEXTS = (
    "", " ", "tab\tand\nline feed", '"quotes" \\ and \\u0000', "🐶👩\u200d👩\u200d👧", "עברית\u202e", "e\u0301",
    "\ufeff\ufffe\uffff", "\u2028\u2029\u0085\u00a0", "'; drop table events; --", "%s %(a)s {0} $1 :a ?",
    "\U0010ffff" * 1000,
)  # fmt: skip


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("text", ODD_TEXTS, ids=range(len(ODD_TEXTS)))
def test_what_is_odd_but_legal_comes_back_as_it_was_sent(service: Any, text: str) -> None:
    reference = f"odd-{uuid.uuid4().hex}-'%\\\"{{}}~"
    sent = A_TRANSACTION | {"description": text, "metadata": {"a.b:c-d_e": text[:500]}, "reference": reference}
    target = "/v1/ledgers/order/transactions"
    answer = exchange(service, post(target, sent))
    check(answer, 201, None)
    posted = answer.json()
    assert sent["postings"][0].items() <= posted["postings"][0].items()
    assert (text, text[:500], reference) == (
        posted["description"],
        posted["metadata"]["a.b:c-d_e"],
        posted["reference"],
    )
    read = exchange(service, request(target=f"{target}/{posted['sequence']}"))
    assert posted.items() <= read.json().items()


ODD_TIMES = (
    "1900-01-01T00:00:00Z",
    "1900-01-01t00:00:00.000000z",
    "1899-12-31T23:59:59.9-00:01",
    "2000-01-01T00:00:00.1+14:00",
    "2024-02-29T23:59:59.999999-23:59",
    "2026-01-01T00:00:00-00:00",
)


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("instant", ODD_TIMES)
def test_an_odd_but_legal_time_is_answered_as_the_same_instant_in_utc(service: Any, instant: str) -> None:
    answer = exchange(service, post("/v1/ledgers/order/transactions", A_TRANSACTION | {"effective_at": instant}))
    check(answer, 201, None)
    effective_at = answer.json()["effective_at"]
    assert effective_at.endswith("Z")
    assert datetime.fromisoformat(instant.upper()) == datetime.fromisoformat(effective_at)


# --- Which of several faults is answered ------------------------------------------------------------------------------

# In the published order. What is wrong in the books stands in the reverse order in the request.
type Rung = tuple[str, int, str | None]

LADDER: list[Rung] = [
    ("a method that the path lacks", 405, "method_not_allowed"),
    ("no key", 401, "unauthenticated"),
    ("Accept: text/html", 406, "not_acceptable"),
    ("a header twice", 400, "malformed_request"),
    ("a ledger's name that is none", 422, "validation_failed"),
    ("an unknown query parameter", 422, "validation_failed"),
    ("an Idempotency-Key that is none", 422, "validation_failed"),
    ("no Idempotency-Key", 400, "idempotency_key_required"),
    ("another content type", 415, "unsupported_media_type"),
    ("too long a body", 413, "content_too_large"),
    ("a duplicate name", 400, "malformed_request"),
    ("an unknown property", 422, "validation_failed"),
    ("an unknown ledger", 404, "ledger_not_found"),
    ("a used key", 422, "idempotency_key_reused"),
    ("the year 1800", 422, "time_out_of_range"),
    ("a used reference", 409, "reference_exists"),
    ("an unknown account", 422, "unknown_account"),
    ("two assets", 422, "asset_mismatch"),
    ("an overflow", 422, "amount_overflow"),
    ("an empty wallet", 422, "insufficient_funds"),
    ("a full wallet", 422, "maximum_exceeded"),
    ("nothing", 201, None),
]


def faulty(faults: set[str]) -> bytes:
    """A transaction with all of these faults at once."""

    def move(debit: str, credit: str, amount: str) -> dict[str, str]:
        return {"debit_account": debit, "credit_account": credit, "amount": amount}

    postings = [move("bank:cash", "users:42:wallet", "1")]
    if "a full wallet" in faults:
        postings += [move("bank:cash", "users:42:capped", "11")]
    if "an empty wallet" in faults:
        postings += [move("users:42:wallet", "bank:cash", "1000")]
    if "an overflow" in faults:
        postings += [move("bank:gold", "bank:cash", "9" * 38)] * 2
    if "two assets" in faults:
        postings += [move("bank:cash", "bank:euros", "1")]
    if "an unknown account" in faults:
        postings += [move("bank:cash", "nobody", "1")]
    transaction: dict[str, Any] = {"postings": postings}
    if "a used reference" in faults:
        transaction["reference"] = "taken"
    if "the year 1800" in faults:
        transaction["effective_at"] = "1800-01-01T00:00:00Z"
    if "an unknown property" in faults:
        transaction[CANARY] = CANARY
    body = json.dumps(transaction).encode()
    if "a duplicate name" in faults:
        body = body.replace(b"{", b'{"postings":[],', 1)
    if "too long a body" in faults:
        body = body.ljust(BODY_BYTES_MAX + 1)

    ledger = "nowhere" if "an unknown ledger" in faults else "order"
    if "a ledger's name that is none" in faults:
        ledger = "-"
    target = f"/v1/ledgers/{ledger}/transactions"
    if "an unknown query parameter" in faults:
        target += f"?{CANARY}=1"
    key = b"Idempotency-Key: used" if "a used key" in faults else KEY
    headers: list[str | bytes] = [] if "no Idempotency-Key" in faults else [key]
    if "an Idempotency-Key that is none" in faults:
        headers = [b"Idempotency-Key: \xff"]
    headers += ["Content-Type: text/plain" if "another content type" in faults else JSON]
    headers += [JSON] if "a header twice" in faults else []
    headers += ["Accept: text/html"] if "Accept: text/html" in faults else []
    method = "PUT" if "a method that the path lacks" in faults else "POST"
    head = request(method, target, *headers, f"Content-Length: {len(body)}", authorized="no key" not in faults)
    return head + body


@pytest.fixture(scope="module")
def order(service: Any) -> None:
    open_books(service, "order")


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize("rung", range(len(LADDER)), ids=[name for name, _, _ in LADDER])
def test_of_several_faults_the_first_in_the_published_order_is_answered(service: Any, rung: int) -> None:
    """From the top: everything is wrong at once, then all but the first thing, and so on until nothing is."""
    _, status, code = LADDER[rung]
    check(exchange(service, faulty({name for name, _, _ in LADDER[rung:]})), status, code)


PAIRS = list(itertools.combinations(LADDER[:-1], 2))


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize(("first", "second"), PAIRS, ids=[f"{first[0]} - {second[0]}" for first, second in PAIRS])
def test_of_any_two_faults_the_earlier_is_answered(service: Any, first: Rung, second: Rung) -> None:
    name, status, code = first
    check(exchange(service, faulty({name, second[0]})), status, code)


READS = [
    ("/nowhere?limit=1&limit=1&cursor=AAAA", False, 404, "route_not_found"),
    ("/v1/ledgers/nowhere/accounts?limit=1&limit=x&cursor=AAAA", False, 401, "unauthenticated"),
    ("/v1/ledgers/nowhere/accounts?limit=1&limit=x&cursor=AAAA", True, 400, "malformed_request"),
    ("/v1/ledgers/nowhere/accounts?limit=x&cursor=AAAA", True, 422, "validation_failed"),
    ("/v1/ledgers/nowhere/accounts?limit=1&cursor=AAAA", True, 400, "invalid_cursor"),
    ("/v1/ledgers/nowhere/accounts?limit=1", True, 404, "ledger_not_found"),
    ("/v1/ledgers/nowhere/accounts/nobody", True, 404, "ledger_not_found"),
    ("/v1/ledgers/order/accounts/nobody", True, 404, "account_not_found"),
    ("/v1/ledgers/nowhere/accounts/nobody/entries?cursor=AAAA", True, 400, "invalid_cursor"),
    ("/v1/ledgers/nowhere/transactions/999999", True, 404, "ledger_not_found"),
    ("/v1/ledgers/order/transactions/999999", True, 404, "transaction_not_found"),
    ("/v1/ledgers/order/transactions/1", True, 404, "transaction_not_found"),
    ("/v1/ledgers/nowhere/accounts/nobody/holds?cursor=AAAA", True, 400, "invalid_cursor"),
    ("/v1/ledgers/nowhere/accounts/nobody/holds", True, 404, "ledger_not_found"),
    ("/v1/ledgers/order/accounts/nobody/holds", True, 404, "account_not_found"),
    ("/v1/ledgers/nowhere/events?after_sequence=999999", True, 404, "ledger_not_found"),
    ("/v1/ledgers/order/events?after_sequence=999999", True, 422, "sequence_out_of_range"),
]


@pytest.mark.usefixtures("order")
@pytest.mark.parametrize(("target", "authorized", "status", "code"), READS)
def test_reads_keep_the_published_order_too(
    service: Any, target: str, authorized: bool, status: int, code: str
) -> None:
    check(exchange(service, request(target=target, authorized=authorized)), status, code)


@pytest.mark.usefixtures("order")
def test_an_account_that_exists_is_named_before_its_limits(service: Any) -> None:
    wrong = {"path": "bank:cash", "asset": "USD/2", "normal_side": "debit", "minimum_balance": "1"}
    target = "/v1/ledgers/order/accounts"
    check(exchange(service, post(target, wrong)), 409, "account_exists")
    check(exchange(service, post(target, wrong | {"path": "new"})), 422, "limit_not_met")


# --- Clients that stall or vanish -------------------------------------------------------------------------------------


def never_ends(wire: Wire) -> None:
    wire.send(claim(20) + b'{"nam')


def never_begins(wire: Wire) -> None:
    wire.send(claim(20, "Expect: 100-continue"))


def never_ends_its_chunks(wire: Wire) -> None:
    wire.send(chunked("/v1/ledgers", b"f\r\n" + b'{"name":"edge"}' + b"\r\n"))


def drips(wire: Wire) -> None:
    """Something arrives all the time, and it is never all."""
    wire.send(claim(1_000_000))
    until = time.monotonic() + ANSWER_SECONDS_MAX
    while not wire.has_answer() and time.monotonic() < until:
        wire.send(b" ")
        time.sleep(0.05)


@pytest.fixture(scope="module")
def stalled(service: Any) -> dict[str, Answer]:
    """All that stall at once, so that it takes the time of one."""

    def stall(client: Callable[[Wire], None]) -> Answer:
        with Wire(service) as wire:
            client(wire)
            return wire.answer()

    clients = (never_ends, never_begins, never_ends_its_chunks, drips)
    with ThreadPoolExecutor(len(clients)) as threads:
        return dict(zip([each.__name__ for each in clients], threads.map(stall, clients), strict=True))


@pytest.mark.parametrize("client", ["never_ends", "never_begins", "never_ends_its_chunks", "drips"])
def test_a_body_that_does_not_arrive_in_time_is_given_up(stalled: dict[str, Answer], client: str) -> None:
    """And the connection with it: who sends a byte now and then cannot hold it for ever."""
    check(stalled[client], 408, "request_timeout")
    assert stalled[client].header("connection") == "close"


ABANDONED = {
    "nothing sent": b"",
    "half a request line": b"GET /heal",
    "half a head": b"GET /healthz HTTP/1.1\r\nHost:",
    "half a body": claim(1000) + b'{"name":',
    "half a chunk": chunked("/v1/ledgers", b"ff\r\n{"),
    "an answer not waited for": request(target=EVENTS) * 50,
    "a write not waited for": post("/v1/ledgers", A_LEDGER),
    "a header of 1 MiB": b"GET /healthz HTTP/1.1\r\nX-A: " + b"a" * 2**20,
    "20,000 headers": b"GET /healthz HTTP/1.1\r\n" + b"X-A: a\r\n" * 20_000,
}


@pytest.mark.parametrize("goodbye", [Wire.reset, Wire.stop_sending, Wire.__exit__], ids=["reset", "half", "close"])
@pytest.mark.parametrize("sent", ABANDONED)
def test_a_client_that_vanishes_harms_nobody(service: Any, sent: str, goodbye: Callable[[Wire], None]) -> None:
    with Wire(service) as wire:
        wire.send(ABANDONED[sent])
        with contextlib.suppress(OSError):  # the server may have hung up first
            goodbye(wire)
        check_alive(service)


def test_many_idle_connections_leave_room_for_others(service: Any) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(Wire(service)).send(b"GET /healthz HTTP/1.1\r\n")
        check_alive(service)
