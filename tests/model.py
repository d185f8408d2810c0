"""The same ledger in memory: the executable specification that the service is compared with.

Deliberately simple, and it shares nothing with the service: plain dicts and ints, one request after the other, no
database. Requests and answers are what openapi.yaml says they are, except that instants in answers are datetimes
(one instant has several spellings), that a refusal holds only what a program may rely on (no title, no detail),
and that a list is answered as everything that is left of it: how it is cut into pages is not the model's matter.

Requests are taken to be of the contract's form. The two static refusals that a test of behaviour can stumble
upon are answered all the same: a write without a key, and a posting from an account to itself.
"""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

AMOUNT_MAX = 10**38 - 1
AHEAD_MAX = timedelta(seconds=60)
EFFECTIVE_MIN = datetime(1900, 1, 1, tzinfo=UTC)

type Body = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a caller gets to see of one request."""

    status: int
    body: Body
    replayed: bool = False


class Refused(Exception):
    """The request is refused; unless it was told apart from the ledger's state, the refusal is frozen."""

    def __init__(self, status: int, code: str, **fields: Any) -> None:
        self.answer = Answer(status, {"status": status, "code": code, **fields})


@dataclass
class Account:
    opened: Body
    debits: int = 0
    credits: int = 0
    entries: list[Body] = field(default_factory=list)
    latest_effective: datetime | None = None

    def posted(self, *, debits: int, credits: int) -> int:
        """The balance in the account's normal sense, if it had been debited and credited by so much."""
        return debits - credits if self.opened["normal_side"] == "debit" else credits - debits


@dataclass
class Book:
    """One ledger: its log, and what follows from it."""

    events: list[Body] = field(default_factory=list)
    accounts: dict[str, Account] = field(default_factory=dict)
    references: set[str] = field(default_factory=set)
    keys: dict[str, tuple[str, Answer]] = field(default_factory=dict)

    @property
    def sequence(self) -> int:
        return len(self.events)

    def record(self, kind: str, now: datetime, actor: str) -> Body:
        """The next event of the log, stamped with a time that never falls along it."""
        last = self.events[-1]["recorded_at"] if self.events else now
        return {
            "sequence": self.sequence + 1,
            "kind": kind,
            "recorded_at": max(now, last),
            "actor": actor,
        }


class Model:
    """The service, as its callers see it. `now` is its clock, which belongs to the test."""

    def __init__(self, now: datetime, actor: str = "operator") -> None:
        self.now = now
        self.actor = actor
        self.books: dict[str, Book] = {}

    # Writes

    def create_ledger(self, body: Body) -> Answer:
        book = self.books.get(body["name"])
        if book is None:
            book = self.books[body["name"]] = Book()
            event = book.record("ledger_created", self.now, self.actor)
            ledger = {
                "name": body["name"],
                "description": body.get("description"),
                "metadata": body.get("metadata", {}),
                "revision": 1,
                "sequence": event["sequence"],
                "recorded_at": event["recorded_at"],
            }
            book.events.append({**event, "ledger": ledger})
            answer = Answer(201, ledger)
            book.keys[""] = (meaning("createLedger", body), answer)
            return answer
        first_meaning, first = book.keys[""]
        if first_meaning != meaning("createLedger", body):
            return Refused(409, "ledger_exists").answer
        return Answer(first.status, first.body, replayed=True)

    def create_account(self, ledger: str, key: str | None, body: Body) -> Answer:
        return self._write("createAccount", self._open_account, ledger, key, body)

    def update_ledger(self, ledger: str, key: str | None, body: Body) -> Answer:
        return self._write("updateLedger", self._change_ledger, ledger, key, body, status=200)

    def update_account(self, ledger: str, account: str, key: str | None, body: Body) -> Answer:
        def decide(book: Book, body: Body) -> Body:
            return self._change_account(book, account, body)

        return self._write(f"updateAccount {account}", decide, ledger, key, body, status=200)

    def close_period(self, ledger: str, key: str | None, body: Body) -> Answer:
        return self._write("closePeriod", self._close, ledger, key, body)

    def reopen_period(self, ledger: str, key: str | None, body: Body) -> Answer:
        return self._write("reopenPeriod", self._reopen, ledger, key, body)

    def post_transaction(self, ledger: str, key: str | None, body: Body) -> Answer:
        return self._write("postTransaction", self._post, ledger, key, body)

    def post_transaction_batch(self, ledger: str, key: str | None, body: Body) -> Answer:
        return self._write("postTransactionBatch", self._post_batch, ledger, key, body, status=200)

    def _write(
        self,
        operation: str,
        decide: Callable[[Book, Body], Body],
        ledger: str,
        key: str | None,
        body: Body,
        *,
        status: int = 201,
    ) -> Answer:
        if key is None:
            return Refused(400, "idempotency_key_required").answer
        transactions = body.get("transactions", [body])
        postings = [posting for each in transactions for posting in each.get("postings", [])]
        if any(p["debit_account"] == p["credit_account"] for p in postings):
            return Refused(422, "validation_failed").answer
        if ledger not in self.books:
            return Refused(404, "ledger_not_found").answer
        book = self.books[ledger]
        if key in book.keys:
            first_meaning, first = book.keys[key]
            if first_meaning != meaning(operation, body):
                return Refused(422, "idempotency_key_reused").answer
            return Answer(first.status, first.body, replayed=True)
        try:
            answer = Answer(status, decide(book, body))
        except Refused as refused:
            answer = refused.answer
            if answer.status == 404:  # what is not there yet may come: the key stays free
                return answer
        book.keys[key] = (meaning(operation, body), answer)
        return answer

    def _change_ledger(self, book: Book, body: Body) -> Body:
        before = ledger_in_force(book)
        if body["revision"] != before["revision"]:
            raise Refused(409, "revision_conflict", pointer="/revision")
        event = book.record("ledger_changed", self.now, self.actor)
        changed = {
            "name": before["name"],
            "description": body.get("description"),
            "metadata": body.get("metadata", {}),
            "revision": before["revision"] + 1,
            "sequence": event["sequence"],
            "recorded_at": event["recorded_at"],
        }
        book.events.append({**event, "ledger": changed})
        return changed

    def _open_account(self, book: Book, body: Body) -> Body:
        if body["path"] in book.accounts:
            raise Refused(409, "account_exists", account=body["path"])
        if int(body.get("minimum_balance", "0")) > 0:
            raise Refused(422, "limit_not_met", pointer="/minimum_balance")
        if int(body.get("maximum_balance", "0")) < 0:
            raise Refused(422, "limit_not_met", pointer="/maximum_balance")
        event = book.record("account_opened", self.now, self.actor)
        opened = {
            "path": body["path"],
            "asset": body["asset"],
            "normal_side": body["normal_side"],
            "status": "open",
            "minimum_balance": body.get("minimum_balance"),
            "maximum_balance": body.get("maximum_balance"),
            "description": body.get("description"),
            "metadata": body.get("metadata", {}),
            "revision": 1,
            "sequence": event["sequence"],
            "recorded_at": event["recorded_at"],
        }
        book.events.append({**event, "account": opened})
        book.accounts[body["path"]] = Account(opened)
        return opened

    def _change_account(self, book: Book, path: str, body: Body) -> Body:
        if path not in book.accounts:
            raise Refused(404, "account_not_found")
        account = book.accounts[path]
        before, status = account.opened, body.get("status", "open")
        if body["revision"] != before["revision"]:
            raise Refused(409, "revision_conflict", pointer="/revision")
        posted = account.posted(debits=account.debits, credits=account.credits)
        if "minimum_balance" in body and posted < int(body["minimum_balance"]):
            raise Refused(422, "limit_not_met", pointer="/minimum_balance")
        if "maximum_balance" in body and posted > int(body["maximum_balance"]):
            raise Refused(422, "limit_not_met", pointer="/maximum_balance")
        if {before["status"], status} == {"frozen", "closed"}:
            raise Refused(422, f"account_{before['status']}", account=path)
        if status == "closed" and posted != 0:
            raise Refused(422, "account_not_empty", account=path)
        event = book.record("account_changed", self.now, self.actor)
        # The configuration in force takes the place of the one that the account was opened with.
        account.opened = {
            **before,
            "status": status,
            "minimum_balance": body.get("minimum_balance"),
            "maximum_balance": body.get("maximum_balance"),
            "description": body.get("description"),
            "metadata": body.get("metadata", {}),
            "revision": before["revision"] + 1,
            "sequence": event["sequence"],
            "recorded_at": event["recorded_at"],
        }
        book.events.append({**event, "account": account.opened})
        return account.opened

    def _close(self, book: Book, body: Body) -> Body:
        before, closed = instant(body["before"]), closed_before(book)
        if not EFFECTIVE_MIN <= before <= self.now or (closed is not None and before <= closed):
            raise Refused(422, "time_out_of_range", pointer="/before")
        return self._period(book, "period_closed", before, body["reason"])

    def _reopen(self, book: Book, body: Body) -> Body:
        before, closed = instant(body["before"]) if "before" in body else None, closed_before(book)
        if closed is None or (before is not None and not EFFECTIVE_MIN <= before < closed):
            raise Refused(422, "time_out_of_range", pointer="/before")
        return self._period(book, "period_reopened", before, body["reason"])

    def _period(self, book: Book, kind: str, before: datetime | None, reason: str) -> Body:
        event = book.record(kind, self.now, self.actor)
        told = {name: event[name] for name in ("sequence", "recorded_at", "actor")}
        period = {"closed_before": before, "reason": reason, **told}
        book.events.append({**event, "period": period})
        return period

    def _post(self, book: Book, body: Body) -> Body:
        event = book.record("transaction_posted", self.now, self.actor)
        event["effective_at"] = event["recorded_at"]
        if "effective_at" in body:
            event["effective_at"] = instant(body["effective_at"])
            if not EFFECTIVE_MIN <= event["effective_at"] <= self.now + AHEAD_MAX:
                raise Refused(422, "time_out_of_range", pointer="/effective_at")
            if (closed := closed_before(book)) is not None and event["effective_at"] < closed:
                raise Refused(422, "period_closed", pointer="/effective_at")
        if body.get("reference") in book.references:
            raise Refused(409, "reference_exists", pointer="/reference")
        self._check_accounts(book, body["postings"])
        self._check_limits(book, body["postings"])

        for name in ("reference", "group", "description"):
            event[name] = body.get(name)
        event["metadata"] = body.get("metadata", {})
        event["postings"] = []
        for posting in body["postings"]:
            debited = book.accounts[posting["debit_account"]]
            credited = book.accounts[posting["credit_account"]]
            event["postings"].append(
                {
                    **{name: posting[name] for name in ("debit_account", "credit_account", "amount")},
                    "asset": debited.opened["asset"],
                    "debit_version": self._enter(debited, "debit", posting, event),
                    "credit_version": self._enter(credited, "credit", posting, event),
                }
            )
        if event["reference"] is not None:
            book.references.add(event["reference"])
        book.events.append(
            {
                **{name: event[name] for name in ("sequence", "kind", "recorded_at", "actor")},
                "transaction": event,
            }
        )
        return event

    def _post_batch(self, book: Book, body: Body) -> Body:
        before = copy.deepcopy(book)
        results: list[Body] = []
        for place, transaction in enumerate(body["transactions"]):
            try:
                results.append({"transaction": self._post(book, transaction)})
            except Refused as refused:
                problem = refused.answer.body
                if body.get("atomic", True):
                    vars(book).update(vars(before))
                    raise Refused(422, "batch_refused", index=place, problem=problem) from None
                results.append({"problem": problem})
        return {"results": results}

    def _check_accounts(self, book: Book, postings: list[Body]) -> None:
        for number, posting in enumerate(postings):
            for name in ("debit_account", "credit_account"):
                if posting[name] not in book.accounts:
                    raise Refused(422, "unknown_account", pointer=f"/postings/{number}/{name}")
        for number, posting in enumerate(postings):
            debited, credited = (
                book.accounts[posting["debit_account"]],
                book.accounts[posting["credit_account"]],
            )
            if debited.opened["asset"] != credited.opened["asset"]:
                raise Refused(422, "asset_mismatch", pointer=f"/postings/{number}")
        for status in ("closed", "frozen"):
            for posting in postings:
                for path in (posting["debit_account"], posting["credit_account"]):
                    if book.accounts[path].opened["status"] == status:
                        raise Refused(422, f"account_{status}", account=path)
        for number, posting in enumerate(postings):
            for side in ("debit", "credit"):
                version = len(book.accounts[posting[f"{side}_account"]].entries)
                if posting.get(f"expected_{side}_version", version) != version:
                    raise Refused(409, "version_conflict", pointer=f"/postings/{number}/expected_{side}_version")

    def _check_limits(self, book: Book, postings: list[Body]) -> None:
        """Judge the result of the whole transaction, account by account as the postings name them."""
        moves: dict[str, dict[str, int]] = {}
        for posting in postings:
            for side in ("debit", "credit"):
                move = moves.setdefault(posting[f"{side}_account"], {"debit": 0, "credit": 0})
                move[side] += int(posting["amount"])
        judged = []
        for path, move in moves.items():
            account = book.accounts[path]
            if max(account.debits + move["debit"], account.credits + move["credit"]) > AMOUNT_MAX:
                raise Refused(422, "amount_overflow", account=path)
            before = account.posted(debits=account.debits, credits=account.credits)
            change = account.posted(debits=move["debit"], credits=move["credit"])
            judged.append((path, account.opened, before, change))

        for path, opened, before, change in judged:
            if opened["minimum_balance"] is not None:
                room = before - int(opened["minimum_balance"])
                if room + change < 0:
                    refusal = {"account": path, "available": str(room), "required": str(-change)}
                    raise Refused(422, "insufficient_funds", **refusal)
        for path, opened, before, change in judged:
            if opened["maximum_balance"] is not None:
                room = int(opened["maximum_balance"]) - before
                if change > room:
                    refusal = {"account": path, "available": str(room), "required": str(change)}
                    raise Refused(422, "maximum_exceeded", **refusal)

    def _enter(self, account: Account, side: str, posting: Body, event: Body) -> int:
        if side == "debit":
            account.debits += int(posting["amount"])
        else:
            account.credits += int(posting["amount"])
        latest = account.latest_effective or event["effective_at"]
        account.latest_effective = max(latest, event["effective_at"])
        account.entries.append(
            {
                "version": len(account.entries) + 1,
                "sequence": event["sequence"],
                "side": side,
                "amount": posting["amount"],
                "balance": str(account.posted(debits=account.debits, credits=account.credits)),
                "effective_at": event["effective_at"],
                "recorded_at": event["recorded_at"],
                "late": event["effective_at"] < latest,
                "reference": event["reference"],
                "group": event["group"],
                "description": event["description"],
            }
        )
        return len(account.entries)

    # Reads

    def get_ledger(self, ledger: str) -> Answer:
        return self._read(ledger, self._ledger)

    def list_ledgers(self, *, after: str | None = None) -> Answer:
        names = [name for name in sorted(self.books) if after is None or name > after]
        return Answer(200, {"items": [self._ledger(self.books[name]) for name in names]})

    def get_account(self, ledger: str, path: str) -> Answer:
        return self._read(ledger, lambda book: self._account(book, path))

    def list_accounts(self, ledger: str, *, after: str | None = None, **filters: str) -> Answer:
        """Every account that a filter lets through, in bytewise order; from the one that follows `after`."""

        def read(book: Book) -> Body:
            found = [self._account(book, path) for path in sorted(book.accounts) if after is None or path > after]
            items = [account for account in found if is_listed(account, filters)]
            return {"items": items, "sequence": book.sequence}

        return self._read(ledger, read)

    def list_transactions_in_effective_order(
        self, ledger: str, order: str, start: datetime | None, end: datetime | None
    ) -> Answer:
        """Those effective from `start` on and before `end`, by effective time."""

        def read(book: Book) -> Body:
            found = [
                transaction
                for transaction in transactions(book)
                if (start is None or transaction["effective_at"] >= start)
                and (end is None or transaction["effective_at"] < end)
            ]
            found.sort(key=lambda each: (each["effective_at"], each["sequence"]), reverse=order == "newest")
            return {"items": found, "sequence": book.sequence}

        return self._read(ledger, read)

    def list_entries_in_effective_order(
        self,
        ledger: str,
        path: str,
        order: str,
        *,
        after: tuple[datetime, int] | None = None,
        pinned: int | None = None,
    ) -> Answer:
        """The statement by effective time, each line with the balance of what comes up to it; as known at `pinned`,
        from the line that follows the effective time and version `after` in this order."""

        def read(book: Book) -> Body:
            self._account(book, path)
            account = book.accounts[path]
            point = book.sequence if pinned is None else pinned
            known = [entry for entry in account.entries if entry["sequence"] <= point]
            sums, lines = {"debit": 0, "credit": 0}, []
            for entry in sorted(known, key=lambda entry: (entry["effective_at"], entry["version"])):
                sums[entry["side"]] += int(entry["amount"])
                balance = account.posted(debits=sums["debit"], credits=sums["credit"])
                lines.append({**entry, "balance": str(balance)})
            if order == "newest":
                lines.reverse()
            places = [(line["effective_at"], line["version"]) for line in lines]
            return {"items": lines[places.index(after) + 1 :] if after else lines, "sequence": point}

        return self._read(ledger, read)

    def list_account_entries(self, ledger: str, path: str, order: str, *, after: int | None = None) -> Answer:
        """The whole statement; from the line that follows version `after` in this order."""

        def read(book: Book) -> Body:
            self._account(book, path)
            lines = cut(book.accounts[path].entries, "version", order, after)
            return {"items": lines, "sequence": book.sequence}

        return self._read(ledger, read)

    def get_transaction(self, ledger: str, sequence: int) -> Answer:
        def read(book: Book) -> Body:
            for transaction in transactions(book):
                if transaction["sequence"] == sequence:
                    return transaction
            raise Refused(404, "transaction_not_found")

        return self._read(ledger, read)

    def list_transactions(self, ledger: str, order: str, *, after: int | None = None, **filters: str) -> Answer:
        """Every transaction that a filter lets through; from the one that follows sequence `after` in this order."""

        def read(book: Book) -> Body:
            found = [each for each in transactions(book) if is_found(each, filters)]
            return {"items": cut(found, "sequence", order, after), "sequence": book.sequence}

        return self._read(ledger, read)

    def get_balance(self, ledger: str, path: str, **as_of: Any) -> Answer:
        """The posted balance at an effective time, as known at a point of the log: a plain sum over the account."""

        def read(book: Book) -> Body:
            self._account(book, path)
            opened = book.accounts[path].opened
            point = known_at(book, as_of)
            return {
                "account": path,
                "asset": opened["asset"],
                "normal_side": opened["normal_side"],
                "posted": str(posted_at(book.accounts[path], as_of.get("effective"), point)),
                "as_of_effective": as_of.get("effective"),
                "sequence": point,
            }

        return self._read(ledger, read)

    def get_totals(self, ledger: str, prefix: str | None = None, **as_of: Any) -> Answer:
        """Sums over the accounts that are the prefix or lie below it; of the past, of posted balances only."""

        def read(book: Book) -> Body:
            point = known_at(book, as_of)
            items: dict[str, Body] = {}
            for path, account in sorted(book.accounts.items()):
                if account.opened["sequence"] > point or (prefix and not f"{path}:".startswith(f"{prefix}:")):
                    continue
                sums = items.setdefault(
                    account.opened["asset"], {"accounts": 0, "posted": 0, **dict.fromkeys(COUNTERS)}
                )
                sums["accounts"] += 1
                sums["posted"] += posted_at(account, as_of.get("effective"), point)
                for name in COUNTERS if not as_of else ():
                    sums[name] = (sums[name] or 0) + int(self._account(book, path)[name])
            return {
                "items": [{"asset": asset, **in_digits(items[asset])} for asset in sorted(items)],
                "as_of_effective": as_of.get("effective"),
                "sequence": point,
            }

        return self._read(ledger, read)

    def get_trial_balance(self, ledger: str, **as_of: Any) -> Answer:
        """For each asset the sum of all debit balances and that of all credit balances, which agree."""

        def read(book: Book) -> Body:
            point = known_at(book, as_of)
            items: dict[str, Body] = {}
            for account in book.accounts.values():
                if account.opened["sequence"] > point:
                    continue
                sums = items.setdefault(account.opened["asset"], {"debit_balances": 0, "credit_balances": 0})
                balance = posted_at(account, as_of.get("effective"), point)
                if (account.opened["normal_side"] == "debit") == (balance > 0):
                    sums["debit_balances"] += abs(balance)
                else:
                    sums["credit_balances"] += abs(balance)
            return {
                "items": [{"asset": asset, **in_digits(items[asset])} for asset in sorted(items)],
                "as_of_effective": as_of.get("effective"),
                "sequence": point,
            }

        return self._read(ledger, read)

    def list_events(self, ledger: str, after_sequence: int) -> Answer:
        def read(book: Book) -> Body:
            if after_sequence > book.sequence:
                raise Refused(422, "sequence_out_of_range")
            return {"items": book.events[after_sequence:], "sequence": book.sequence}

        return self._read(ledger, read)

    def _read(self, ledger: str, read: Callable[[Book], Body]) -> Answer:
        if ledger not in self.books:
            return Refused(404, "ledger_not_found").answer
        try:
            return Answer(200, read(self.books[ledger]))
        except Refused as refused:
            return refused.answer

    def _ledger(self, book: Book) -> Body:
        last = book.events[-1]
        return {
            **ledger_in_force(book),
            "closed_before": closed_before(book),
            "sequence": last["sequence"],
            "recorded_at": last["recorded_at"],
        }

    def _account(self, book: Book, path: str) -> Body:
        if path not in book.accounts:
            raise Refused(404, "account_not_found")
        account = book.accounts[path]
        posted = str(account.posted(debits=account.debits, credits=account.credits))
        configuration = {
            name: value for name, value in account.opened.items() if name not in ("sequence", "recorded_at")
        }
        return {
            **configuration,
            "version": len(account.entries),
            "debits_posted": str(account.debits),
            "credits_posted": str(account.credits),
            "debits_pending": "0",
            "credits_pending": "0",
            "posted": posted,
            "available": posted,
            "sequence": book.sequence,
        }


def ledger_in_force(book: Book) -> Body:
    return [event["ledger"] for event in book.events if "ledger" in event][-1]


def closed_before(book: Book) -> datetime | None:
    """The instant that the books are closed before, which is what the last word on it says."""
    periods = [event["period"] for event in book.events if "period" in event]
    return periods[-1]["closed_before"] if periods else None


def transactions(book: Book) -> list[Body]:
    return [event["transaction"] for event in book.events if "transaction" in event]


def is_listed(account: Body, filters: Body) -> bool:
    """Whether an account is of the asset or the status asked for, or is the prefix or lies below it."""
    below = dict(filters)
    prefix = below.pop("prefix", None)
    return (prefix is None or f"{account['path']}:".startswith(f"{prefix}:")) and below.items() <= account.items()


def is_found(transaction: Body, filters: Body) -> bool:
    """Whether a transaction is of the reference or the group asked for, or names the account."""
    said = dict(filters)
    path = said.pop("account", None)
    named = {p[side] for p in transaction["postings"] for side in ("debit_account", "credit_account")}
    return (path is None or path in named) and all(transaction[name] == value for name, value in said.items())


COUNTERS = ("debits_posted", "credits_posted", "debits_pending", "credits_pending")


def in_digits(sums: Body) -> Body:
    return {name: value if name == "accounts" or value is None else str(value) for name, value in sums.items()}


def known_at(book: Book, as_of: Body) -> int:
    """The last sequence that a reader of the past knows of; 0 lies before the first event."""
    if as_of.get("sequence", 0) > book.sequence:
        raise Refused(422, "sequence_out_of_range")
    recorded = [e for e in book.events if as_of.get("recorded") is None or e["recorded_at"] <= as_of["recorded"]]
    return min(len(recorded), as_of.get("sequence", book.sequence))


def posted_at(account: Account, effective: datetime | None, sequence: int) -> int:
    """What an account had posted of what was effective by then, and known by then."""
    sums = {"debit": 0, "credit": 0}
    for entry in account.entries:
        if entry["sequence"] <= sequence and (effective is None or entry["effective_at"] <= effective):
            sums[entry["side"]] += int(entry["amount"])
    return account.posted(debits=sums["debit"], credits=sums["credit"])


def cut(items: list[Body], number: str, order: str, after: int | None) -> list[Body]:
    """What follows the item of this number, oldest or newest first."""
    if order == "oldest":
        return [item for item in items if after is None or item[number] > after]
    return [item for item in reversed(items) if after is None or item[number] < after]


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def meaning(operation: str, body: Body) -> str:
    """The same text for two requests if and only if they ask for the same."""
    defaults = ("metadata", {}), ("status", "open")
    said = {name: value for name, value in body.items() if (name, value) not in defaults}
    for name in said.keys() & {"effective_at", "before"}:
        said[name] = instant(said[name]).isoformat()
    if "transactions" in said:
        said["transactions"] = [meaning("", transaction) for transaction in said["transactions"]]
    if said.get("atomic") is True:
        del said["atomic"]
    return operation + json.dumps(said, sort_keys=True)


INSTANTS = ("recorded_at", "effective_at", "as_of_effective", "closed_before")


def in_plain(said: Any) -> Any:
    """What the service says in JSON, in the model's terms: instants read, and a refusal without its prose."""
    if isinstance(said, list):
        return [in_plain(item) for item in said]
    if not isinstance(said, dict):
        return said
    prose = ("type", "title", "detail", "request_id", "errors") if "code" in said else ()
    return {
        name: in_utc(value) if name in INSTANTS and value is not None else in_plain(value)
        for name, value in said.items()
        if name not in prose
    }


def in_utc(text: str) -> datetime:
    read = datetime.fromisoformat(text)
    assert read.utcoffset() == timedelta(0), f"not in UTC: {text}"
    return read
