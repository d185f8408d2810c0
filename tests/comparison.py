"""The model and the service asked the same, side by side: every answer of both has to be the same."""

import json
import secrets
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.conftest import Service, wait_until
from tests.model import Answer, Body, Model, in_plain, instant

START = datetime(2030, 1, 1, 12, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
TIMEOUT_SECONDS = 20
PAGES_MAX = 2_000

# How each write is asked for: the method, and the path below its ledger.
WRITES = {
    "createAccount": ("POST", "/accounts"),
    "updateAccount": ("PUT", "/accounts/{about}"),
    "updateLedger": ("PUT", ""),
    "postTransaction": ("POST", "/transactions"),
    "postTransactionBatch": ("POST", "/transaction-batches"),
    "captureTransaction": ("POST", "/transactions/{about}/capture"),
    "voidTransaction": ("POST", "/transactions/{about}/void"),
    "reverseTransaction": ("POST", "/transactions/{about}/reverse"),
    "closePeriod": ("POST", "/closings"),
    "reopenPeriod": ("POST", "/reopenings"),
}
# Refusals that leave their key free, or that another request had taken it.
UNFROZEN = {
    "idempotency_key_required", "validation_failed", "ledger_not_found", "account_not_found", "transaction_not_found",
    "idempotency_key_reused", "clock_skewed",
}  # fmt: skip


@dataclass(frozen=True)
class Listing:
    """A list that is read page by page: the accounts, an account's statement or live holds, or the transactions."""

    kind: str
    ledger: str
    account: str = ""
    order: str = "newest"

    def path(self) -> str:
        return f"accounts/{self.account}/{self.kind}" if self.kind in ("entries", "holds") else self.kind

    def position(self, item: Body) -> Any:
        return item[{"accounts": "path", "entries": "version"}.get(self.kind, "sequence")]


class Books:
    """Asks the model and, where there is one, the service the same; every answer of both has to be the same.

    Ledgers go by short names here. In truth each name begins with a fresh prefix, so that nobody's ledgers meet,
    and the newest prefix sorts first, so that the list of all ledgers need not be read to its end.
    """

    def __init__(self, service: Service | None = None) -> None:
        self.service = service
        self.model = Model(START)
        self.prefix = f"0.{10**20 - time.time_ns():020d}.{secrets.token_hex(4)}."
        self.prose: dict[tuple[str, str], Body] = {}
        self.set_clock(START)
        if service is not None:
            self.client = httpx.Client(
                base_url=service.url,
                headers={"Authorization": f"Bearer {service.key}"},
                timeout=TIMEOUT_SECONDS,
            )

    def close(self) -> None:
        if self.service is not None:
            self.client.close()

    def set_clock(self, now: datetime) -> None:
        self.model.now = now
        if self.service is not None:
            self.service.clock.now = now

    def advance(self, seconds: float, *, look: bool = True) -> None:
        """Move the clock, and read something present wherever holds are due by it. The service expires them within
        a second anyhow; after the look, both have."""
        self.set_clock(self.model.now + timedelta(seconds=seconds))
        for name, book in self.model.books.items() if look else ():
            due = [hold.transaction for hold in book.holds.values() if hold.is_due(self.model.now)]
            if due:
                self.read_account(due[0]["postings"][0]["debit_account"], name.removeprefix(self.prefix))

    # Writes

    def create_ledger(self, ledger: str, *, rewritten: bool = False, **fields: Any) -> Answer:
        body = {"name": self.prefix + ledger, **fields}
        expected = self.model.create_ledger(body)
        if self.service is not None:
            got = self.send("POST", "", body=rewrite(body) if rewritten else body)
            self.compare(expected, got, write=(ledger, ""))
        return expected

    def write(
        self,
        operation: str,
        ledger: str,
        key: str | None,
        body: Body,
        *,
        rewritten: bool = False,
        about: str | int = "",
        left: int = 0,
    ) -> Answer:
        """`about` is the account or the transaction that the write is about, where it names one. Before it is answered,
        the same request is sent and `left` so many times: then the answer may be a replay."""
        sent = rewrite(body, operation) if rewritten else body
        name = self.prefix + ledger
        expected = write_to(self.model, operation, name, key, sent, about)
        if self.service is not None:
            method, path = WRITES[operation]
            for _ in range(left):
                self.leave(method, f"/{name}{path.format(about=about)}", sent, key)
            got = self.send(method, f"/{name}{path.format(about=about)}", body=sent, key=key)
            self.compare(expected, got, write=(ledger, key or ""), left=left > 0)
        return expected

    def open(
        self, path: str, side: str = "debit", *, key: str | None = "", asset: str = "USD/2", **fields: Any
    ) -> Answer:
        body = {"path": path, "asset": asset, "normal_side": side, **fields}
        return self.write("createAccount", "main", new_key(key), body)

    def post(self, *postings: tuple[str, str, int], key: str | None = "", **fields: Any) -> Answer:
        return self.write("postTransaction", "main", new_key(key), {"postings": moves(*postings), **fields})

    def hold(self, *postings: tuple[str, str, int], key: str | None = "", **fields: Any) -> Answer:
        body = {"postings": moves(*postings), "pending": True, **fields}
        return self.write("postTransaction", "main", new_key(key), body)

    def capture(
        self, hold: int, *amounts: tuple[int, int], key: str | None = "", keep: bool = False, **fields: Any
    ) -> Answer:
        """Capture so much of these postings, or all that is left; `keep` the remainder, or release it."""
        body = dict(fields)
        if amounts:
            body["amounts"] = [{"posting": posting, "amount": str(amount)} for posting, amount in amounts]
        if keep:
            body["remainder"] = "keep"
        return self.write("captureTransaction", "main", new_key(key), body, about=hold)

    def void(self, hold: int, *, key: str | None = "", **fields: Any) -> Answer:
        return self.write("voidTransaction", "main", new_key(key), fields, about=hold)

    def reverse(self, sequence: int, *, key: str | None = "", **fields: Any) -> Answer:
        return self.write("reverseTransaction", "main", new_key(key), fields, about=sequence)

    def close_before(self, before: Any, *, key: str | None = "", reason: str = "done") -> Answer:
        before = before if isinstance(before, str) else before.isoformat()
        return self.write("closePeriod", "main", new_key(key), {"before": before, "reason": reason})

    def reopen(self, before: datetime | None = None, *, key: str | None = "", reason: str = "amiss") -> Answer:
        body = {"reason": reason} | ({} if before is None else {"before": before.isoformat()})
        return self.write("reopenPeriod", "main", new_key(key), body)

    def update_ledger(self, revision: int, *, key: str | None = "", ledger: str = "main", **fields: Any) -> Answer:
        return self.write("updateLedger", ledger, new_key(key), {"revision": revision, **fields})

    def update(self, path: str, revision: int, *, key: str | None = "", **fields: Any) -> Answer:
        return self.write("updateAccount", "main", new_key(key), {"revision": revision, **fields}, about=path)

    # Reads

    def read_ledger(self, ledger: str = "main") -> Answer:
        return self._read(self.model.get_ledger(self.prefix + ledger), ledger, "")

    def read_account(self, path: str, ledger: str = "main") -> Answer:
        return self._read(self.model.get_account(self.prefix + ledger, path), ledger, f"/accounts/{path}")

    def read_transaction(self, sequence: int, ledger: str = "main") -> Answer:
        expected = self.model.get_transaction(self.prefix + ledger, sequence)
        return self._read(expected, ledger, f"/transactions/{sequence}")

    def _read(self, expected: Answer, ledger: str, path: str) -> Answer:
        if self.service is not None:
            self.compare(expected, self.send("GET", f"/{self.prefix}{ledger}{path}"))
        return expected

    def remaining(self, listing: Listing, after: Any = None) -> Answer:
        """What the model has of a list after a position."""
        ledger = self.prefix + listing.ledger
        if listing.kind == "accounts":
            return self.model.list_accounts(ledger, after=after)
        if listing.kind == "entries":
            return self.model.list_account_entries(ledger, listing.account, listing.order, after=after)
        if listing.kind == "holds":
            return self.model.list_account_holds(ledger, listing.account, listing.order, after=after)
        return self.model.list_transactions(ledger, listing.order, after=after)

    def read_page(
        self,
        listing: Listing,
        limit: int,
        *,
        cursor: str | None = None,
        after: Any = None,
        say_order: bool = True,
    ) -> tuple[str | None, Any]:
        """Compare one page with what the model has left of the list; answer where the next one begins."""
        params: dict[str, Any] = {"limit": limit}
        if listing.kind != "accounts" and say_order:
            params["order"] = listing.order
        if cursor is not None:
            params["cursor"] = cursor
        got = self.send("GET", f"/{self.prefix}{listing.ledger}/{listing.path()}", params=params)
        expected = self.remaining(listing, after)
        if expected.status != 200 or got.status_code != 200:
            self.compare(expected, got)
            return None, None
        page, left = in_plain(got.json()), expected.body["items"]
        assert set(page) == {"items", "next_cursor", "sequence"}
        assert page["sequence"] == expected.body["sequence"]
        self._compare_part(page["items"], left, limit)
        if page["next_cursor"] is None:
            assert page["items"] == left
            return None, None
        assert page["items"] != left, "a next page is promised, but nothing is left"
        return page["next_cursor"], listing.position(page["items"][-1])

    def read_list(self, listing: Listing, limit: int) -> Answer:
        if self.service is not None:
            cursor, after = self.read_page(listing, limit)
            while cursor is not None:
                cursor, after = self.read_page(listing, limit, cursor=cursor, after=after)
        return self.remaining(listing)

    def read_events(self, after_sequence: int, limit: int, ledger: str = "main") -> Answer:
        """Compare one page of the log."""
        expected = self.model.list_events(self.prefix + ledger, after_sequence)
        if self.service is None:
            return expected
        params = {"after_sequence": after_sequence, "limit": limit}
        got = self.send("GET", f"/{self.prefix}{ledger}/events", params=params)
        if expected.status != 200 or got.status_code != 200:
            self.compare(expected, got)
            return expected
        page, left = in_plain(got.json()), expected.body["items"]
        self._compare_part(page["items"], left, limit)
        last = page["items"][-1]["sequence"] if page["items"] else after_sequence
        assert set(page) == {"items", "next_after_sequence", "sequence"}
        assert (page["next_after_sequence"], page["sequence"]) == (last, expected.body["sequence"])
        return expected

    def read_ledgers(self, limit: int) -> None:
        """Compare our part of the list of all ledgers, of which there are many."""
        mine: list[Body] = []
        params: dict[str, Any] = {"limit": limit}
        for _ in range(PAGES_MAX):
            page = in_plain(self.send("GET", "", params=params).json())
            names = [item["name"] for item in page["items"]]
            assert len(names) <= limit
            assert names == sorted(names)
            mine += [item for item in page["items"] if item["name"].startswith(self.prefix)]
            if page["next_cursor"] is None or names[-1] > self.prefix + "~":
                break
            params = {"limit": limit, "cursor": page["next_cursor"]}
        assert mine == self.model.list_ledgers().body["items"]

    def _compare_part(self, items: list[Body], left: list[Body], limit: int) -> None:
        assert items == left[: len(items)]
        assert len(items) <= limit
        assert items or not left, "an empty page, although more is left"

    def refuse_cursor(self, listing: Listing, cursor: str) -> None:
        params = {"cursor": cursor} | ({} if listing.kind == "accounts" else {"order": listing.order})
        got = self.send("GET", f"/{self.prefix}{listing.ledger}/{listing.path()}", params=params)
        self.compare(Answer(400, {"status": 400, "code": "invalid_cursor"}), got)

    # Comparison

    def send(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, Any] | None = None,
        body: Body | None = None,
        key: str | None = None,
    ) -> httpx.Response:
        headers = {} if body is None else {"Content-Type": "application/json"}
        if key is not None:
            headers["Idempotency-Key"] = key
        content = None if body is None else json.dumps(body, ensure_ascii=False)
        answer = self.client.request(method, "/v1/ledgers" + path, params=params, content=content, headers=headers)
        assert answer.status_code < 500 or answer.json()["code"] == "clock_skewed", answer.text
        return answer

    def leave(self, method: str, path: str, body: Body, key: str | None) -> None:
        """Send a request and close the connection; return when the service has done with it what it does."""
        assert self.service is not None
        content = json.dumps(body, ensure_ascii=False).encode()
        head = (
            f"{method} /v1/ledgers{path} HTTP/1.1\r\nHost: tallystick\r\nAuthorization: Bearer {self.service.key}\r\n"
        )
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        head += "" if key is None else f"Idempotency-Key: {key}\r\n"
        address = urlsplit(self.service.url)
        with socket.create_connection((address.hostname, address.port), timeout=TIMEOUT_SECONDS) as connection:
            port = connection.getsockname()[1]
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: tallystick\r\n\r\n")
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200"), "the connection is known to the service now"
            connection.sendall(f"{head}\r\n".encode() + content)
        wait_until(lambda: self.service is not None and self.service.has_forgotten(port), seconds_max=60)

    def compare(
        self, expected: Answer, got: httpx.Response, write: tuple[str, str] | None = None, *, left: bool = False
    ) -> None:
        body = got.json()
        media_type = "application/json" if got.status_code < 400 else "application/problem+json"
        assert got.headers["Content-Type"] == media_type, got.text
        replayed = got.headers.get("Idempotency-Replayed")
        assert replayed in (None, "true")
        is_replayed = expected.replayed if left and not expected.replayed else replayed is not None
        assert Answer(got.status_code, in_plain(body), is_replayed) == expected
        if got.status_code >= 400:
            assert body["request_id"] == got.headers["X-Request-Id"]
            prose = {name: body[name] for name in ("type", "title", "detail")}
            if write is not None and expected.replayed:
                assert prose == self.prose[write]
            elif write is not None and body["code"] not in UNFROZEN:
                self.prose[write] = prose


def write_to(model: Model, operation: str, ledger: str, key: str | None, body: Body, about: Any = "") -> Answer:
    """Put a write to the model."""
    match operation:
        case "createAccount":
            return model.create_account(ledger, key, body)
        case "updateAccount":
            return model.update_account(ledger, about, key, body)
        case "updateLedger":
            return model.update_ledger(ledger, key, body)
        case "postTransactionBatch":
            return model.post_transaction_batch(ledger, key, body)
        case "captureTransaction":
            return model.capture_transaction(ledger, about, key, body)
        case "voidTransaction":
            return model.void_transaction(ledger, about, key, body)
        case "reverseTransaction":
            return model.reverse_transaction(ledger, about, key, body)
        case "closePeriod":
            return model.close_period(ledger, key, body)
        case "reopenPeriod":
            return model.reopen_period(ledger, key, body)
    return model.post_transaction(ledger, key, body)


def new_key(key: str | None = "") -> str | None:
    """A key that nothing was written with, unless one is said, or none at all."""
    return secrets.token_hex(8) if key == "" else key


def moves(*postings: tuple[str, str, int]) -> list[Body]:
    return [{"debit_account": d, "credit_account": c, "amount": str(amount)} for d, c, amount in postings]


def expecting(debited: str, credited: str, amount: int = 1, **versions: int) -> Body:
    """A posting that expects these versions of its accounts."""
    expected = {f"expected_{side}_version": version for side, version in versions.items()}
    return {"debit_account": debited, "credit_account": credited, "amount": str(amount), **expected}


# What an operation takes for said where it is not.
DEFAULTS: dict[str, tuple[str, Any]] = {
    "updateAccount": ("status", "open"),
    "postTransaction": ("pending", False),
    "captureTransaction": ("remainder", "release"),
}


def rewrite(body: Body, operation: str = "") -> Body:
    """The same request in other words: another order, another offset, a default said or left unsaid."""
    other = dict(reversed(body.items()))
    if "transactions" in other:
        transactions = [rewrite(transaction, "postTransaction") for transaction in other["transactions"]]
        return {"atomic": other.get("atomic", True), "transactions": transactions}
    for name in other.keys() & {"effective_at", "expires_at", "before"}:
        if "1900" < other[name] < "9000":
            zone = timezone(timedelta(hours=5, minutes=30))
            other[name] = instant(other[name]).astimezone(zone).isoformat()
    defaults = [DEFAULTS[operation]] if operation in DEFAULTS else []
    if "reason" not in other:
        defaults.append(("metadata", {}))
    for name, default in defaults:
        if other.get(name, default) == default and other.pop(name, None) is None:
            other[name] = default
    for name in other.keys() & {"postings", "amounts"}:
        other[name] = [dict(reversed(each.items())) for each in other[name]]
    return other


def refusal(answer: Answer, *fields: str) -> list[Any]:
    """The code of a refusal, and the fields asked for."""
    assert answer.status >= 400, answer
    return [answer.body["code"], *(answer.body[name] for name in fields)]


def column(answer: Answer, name: str) -> list[Any]:
    return [item[name] for item in answer.body["items"]]


def statement(books: Books, path: str, *, order: str = "oldest") -> Answer:
    return books.read_list(Listing("entries", "main", path, order), 2)
