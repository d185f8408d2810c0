"""How the books are written: each request is decided by itself, on the books as the one before left them."""

import copy
from collections.abc import Callable
from datetime import datetime

from tests.model.book import (
    AHEAD_MAX,
    AMOUNT_MAX,
    EFFECTIVE_MIN,
    Account,
    Answer,
    Body,
    Book,
    Hold,
    Line,
    Refused,
    closed_before,
    instant,
    ledger_in_force,
    reversal_of,
)
from tests.model.words import meaning


class Writes:
    now: datetime
    actor: str
    books: dict[str, Book]

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
        self.expire(book)
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

    def capture_transaction(self, ledger: str, sequence: int, key: str | None, body: Body) -> Answer:
        def decide(book: Book, body: Body) -> Body:
            return self._capture(book, sequence, body)

        return self._write(f"captureTransaction {sequence}", decide, ledger, key, body)

    def void_transaction(self, ledger: str, sequence: int, key: str | None, body: Body) -> Answer:
        def decide(book: Book, body: Body) -> Body:
            return self._void(book, sequence, body)

        return self._write(f"voidTransaction {sequence}", decide, ledger, key, body)

    def reverse_transaction(self, ledger: str, sequence: int, key: str | None, body: Body) -> Answer:
        def decide(book: Book, body: Body) -> Body:
            return self._reverse(book, sequence, body)

        return self._write(f"reverseTransaction {sequence}", decide, ledger, key, body)

    def expire(self, book: Book) -> None:
        """Record the expiry of every hold whose time has come, in the order of their times."""
        due = [hold for hold in book.holds.values() if hold.is_due(self.now)]
        for hold in sorted(due, key=lambda hold: (hold.transaction["expires_at"], hold.transaction["sequence"])):
            self._release(book, hold, "transaction_expired", {}, actor="system")
            hold.status = "expired"

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
        if is_never_possible(body):
            return Refused(422, "validation_failed").answer
        if ledger not in self.books:
            return Refused(404, "ledger_not_found").answer
        book = self.books[ledger]
        self.expire(book)
        if key in book.keys:
            first_meaning, first = book.keys[key]
            if first_meaning != meaning(operation, body):
                return Refused(422, "idempotency_key_reused").answer
            return Answer(first.status, first.body, replayed=True)
        if book.is_ahead(self.now):
            return Refused(503, "clock_skewed").answer
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
        book.accounts[body["path"]] = Account(opened, since=event["sequence"])
        return opened

    def _change_account(self, book: Book, path: str, body: Body) -> Body:
        if path not in book.accounts:
            raise Refused(404, "account_not_found")
        account = book.accounts[path]
        before, status = account.opened, body.get("status", "open")
        if body["revision"] != before["revision"]:
            raise Refused(409, "revision_conflict", pointer="/revision")
        if "minimum_balance" in body and account.available() < int(body["minimum_balance"]):
            raise Refused(422, "limit_not_met", pointer="/minimum_balance")
        if "maximum_balance" in body and account.expected() > int(body["maximum_balance"]):
            raise Refused(422, "limit_not_met", pointer="/maximum_balance")
        if {before["status"], status} == {"frozen", "closed"}:
            raise Refused(422, f"account_{before['status']}", account=path)
        pending = account.counters["debits_pending"] or account.counters["credits_pending"]
        if status == "closed" and (account.posted() != 0 or pending):
            raise Refused(422, "account_not_empty", account=path)
        event = book.record("account_changed", self.now, self.actor)
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
        self._check_times(book, body)
        self._check_reference(book, body)
        self._check_accounts(book, body["postings"])
        moves = [(p["debit_account"], p["credit_account"], int(p["amount"])) for p in body["postings"]]
        if body.get("pending", False):
            lines = [Line(debit, credit, pending=amount) for debit, credit, amount in moves]
        else:
            lines = [Line(debit, credit, posted=amount) for debit, credit, amount in moves]
        self._check_limits(book, lines)
        if not body.get("pending", False):
            return self._record(book, "transaction_posted", lines, body)
        held = self._record(book, "transaction_held", lines, body)
        book.holds[held["sequence"]] = Hold(held, [0] * len(lines), [0] * len(lines))
        return held

    def _capture(self, book: Book, sequence: int, body: Body) -> Body:
        hold = self._pending(book, sequence)
        self._check_times(book, body)
        self._check_reference(book, body)
        if "amounts" in body:
            taken = {each["posting"]: int(each["amount"]) for each in body["amounts"]}
        else:
            taken = {number: hold.remaining(number) for number in hold.live}
        asked = [posting for number, posting in enumerate(hold.transaction["postings"]) if number in taken]
        self._check_statuses(book, asked, "frozen")
        for place, (number, amount) in enumerate(taken.items()):
            remaining = hold.remaining(number) if number in hold.numbers else 0
            if amount > remaining:
                pointer = f"/amounts/{place}/{'amount' if number in hold.numbers else 'posting'}"
                told = {"available": str(remaining), "required": str(amount)}
                raise Refused(422, "capture_exceeds_hold", pointer=pointer, **told)

        keep = body.get("remainder", "release") == "keep"
        lines = []
        for number in hold.live:
            captured = taken.get(number, 0)
            released = 0 if keep else hold.remaining(number) - captured
            if captured or released:
                lines.append(line_of(hold, number, captured=captured, released=released))
        event = self._record_of_hold(book, "transaction_captured", lines, hold, body)
        if not hold.live:
            hold.status = "captured"
        return event

    def _void(self, book: Book, sequence: int, body: Body) -> Body:
        hold = self._pending(book, sequence)
        self._check_reference(book, body)
        event = self._release(book, hold, "transaction_voided", body)
        hold.status = "voided"
        return event

    def _reverse(self, book: Book, sequence: int, body: Body) -> Body:
        original = book.transaction(sequence)
        if original["kind"] not in ("transaction_posted", "transaction_captured"):
            raise Refused(422, "not_reversible")
        if reversal_of(book, sequence) is not None:
            raise Refused(409, "already_reversed")
        self._check_times(book, body)
        self._check_reference(book, body)
        lines = [
            Line(posting["credit_account"], posting["debit_account"], posted=int(posting["amount"]))
            for posting in original["postings"]
            if int(posting["amount"]) > 0
        ]
        self._check_statuses(book, [vars(line) for line in lines], "closed", "frozen")
        self._check_limits(book, lines)
        said = {**body, "group": original["group"]}
        return self._record(book, "transaction_reversed", lines, said, reverses=sequence)

    def _pending(self, book: Book, sequence: int) -> Hold:
        """The hold with this sequence, if it has not ended."""
        if book.transaction(sequence)["kind"] != "transaction_held":
            raise Refused(422, "not_pending")
        hold = book.holds[sequence]
        ended = {"captured": "already_captured", "voided": "already_voided", "expired": "hold_expired"}
        if hold.status in ended:
            raise Refused(409, ended[hold.status])
        return hold

    def _release(self, book: Book, hold: Hold, kind: str, body: Body, actor: str | None = None) -> Body:
        """Give back all that is still held."""
        lines = [line_of(hold, number, captured=0, released=hold.remaining(number)) for number in hold.live]
        return self._record_of_hold(book, kind, lines, hold, body, actor)

    def _record_of_hold(
        self, book: Book, kind: str, lines: list[Line], hold: Hold, body: Body, actor: str | None = None
    ) -> Body:
        for line in lines:
            hold.captured[line.hold_posting] += line.posted
            hold.released[line.hold_posting] += line.released
        said = {**body, "group": hold.transaction["group"]}
        return self._record(book, kind, lines, said, hold=hold.transaction["sequence"], actor=actor)

    def _record(
        self,
        book: Book,
        kind: str,
        lines: list[Line],
        said: Body,
        *,
        hold: int | None = None,
        reverses: int | None = None,
        actor: str | None = None,
    ) -> Body:
        event = book.record(kind, self.now, actor or self.actor)
        transaction = {
            **event,
            "effective_at": instant(said["effective_at"]) if "effective_at" in said else event["recorded_at"],
            "expires_at": instant(said["expires_at"]) if "expires_at" in said else None,
            "hold": hold,
            "reverses": reverses,
            **{name: said.get(name) for name in ("reference", "group", "description")},
            "metadata": said.get("metadata", {}),
            "postings": [],
        }
        for line in lines:
            debited, credited = book.accounts[line.debit_account], book.accounts[line.credit_account]
            transaction["postings"].append(
                {
                    "debit_account": line.debit_account,
                    "credit_account": line.credit_account,
                    "asset": debited.opened["asset"],
                    "amount": str(line.pending if kind == "transaction_held" else line.posted),
                    "released": str(line.released),
                    "hold_posting": line.hold_posting,
                    "debit_version": self._enter(debited, "debit", line, transaction),
                    "credit_version": self._enter(credited, "credit", line, transaction),
                }
            )
        if transaction["reference"] is not None:
            book.references.add(transaction["reference"])
        book.events.append({**event, "transaction": transaction})
        return transaction

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

    def _check_times(self, book: Book, body: Body) -> None:
        effective = instant(body["effective_at"]) if "effective_at" in body else None
        if effective is not None and not EFFECTIVE_MIN <= effective <= self.now + AHEAD_MAX:
            raise Refused(422, "time_out_of_range", pointer="/effective_at")
        if "expires_at" in body and instant(body["expires_at"]) <= self.now:
            raise Refused(422, "time_out_of_range", pointer="/expires_at")
        closed = closed_before(book)
        if effective is not None and closed is not None and effective < closed:
            raise Refused(422, "period_closed", pointer="/effective_at")

    def _check_reference(self, book: Book, body: Body) -> None:
        if body.get("reference") in book.references:
            raise Refused(409, "reference_exists", pointer="/reference")

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
        self._check_statuses(book, postings, "closed", "frozen")
        for number, posting in enumerate(postings):
            for side in ("debit", "credit"):
                version = book.accounts[posting[f"{side}_account"]].version
                if posting.get(f"expected_{side}_version", version) != version:
                    raise Refused(409, "version_conflict", pointer=f"/postings/{number}/expected_{side}_version")

    def _check_statuses(self, book: Book, postings: list[Body], *statuses: str) -> None:
        for status in statuses:
            for posting in postings:
                for path in (posting["debit_account"], posting["credit_account"]):
                    if book.accounts[path].opened["status"] == status:
                        raise Refused(422, f"account_{status}", account=path)

    def _check_limits(self, book: Book, lines: list[Line]) -> None:
        """Judge the result of the whole transaction, account by account as the postings name them."""
        judged = {path: book.accounts[path] for line in lines for path in (line.debit_account, line.credit_account)}
        after = {path: dict(account.counters) for path, account in judged.items()}
        for line in lines:
            for path, side in ((line.debit_account, "debits"), (line.credit_account, "credits")):
                after[path][f"{side}_posted"] += line.posted
                after[path][f"{side}_pending"] += line.pending

        for path, counters in after.items():
            for side in ("debits", "credits"):
                if counters[f"{side}_posted"] + counters[f"{side}_pending"] > AMOUNT_MAX:
                    raise Refused(422, "amount_overflow", account=path)
        for path, account in judged.items():
            if account.opened["minimum_balance"] is not None:
                room = account.available() - int(account.opened["minimum_balance"])
                taken = account.available() - account.available(after[path])
                if taken > room:
                    refusal = {"account": path, "available": str(room), "required": str(taken)}
                    raise Refused(422, "insufficient_funds", **refusal)
        for path, account in judged.items():
            if account.opened["maximum_balance"] is not None:
                room = int(account.opened["maximum_balance"]) - account.expected()
                added = account.expected(after[path]) - account.expected()
                if added > room:
                    refusal = {"account": path, "available": str(room), "required": str(added)}
                    raise Refused(422, "maximum_exceeded", **refusal)

    def _enter(self, account: Account, side: str, line: Line, event: Body) -> int:
        """Add one side of a posting to its account. Only what is posted is of any time, and on the statement."""
        account.counters[f"{side}s_posted"] += line.posted
        account.counters[f"{side}s_pending"] += line.pending
        account.version += 1
        if line.posted == 0:
            return account.version
        latest = account.latest_effective or event["effective_at"]
        account.latest_effective = max(latest, event["effective_at"])
        account.statement.append(
            {
                "version": account.version,
                "sequence": event["sequence"],
                "side": side,
                "amount": str(line.posted),
                "balance": str(account.posted()),
                "effective_at": event["effective_at"],
                "recorded_at": event["recorded_at"],
                "late": event["effective_at"] < latest,
                "reference": event["reference"],
                "group": event["group"],
                "description": event["description"],
            }
        )
        return account.version


def is_never_possible(body: Body) -> bool:
    """Whether a request is one that no state of the books could allow, although no schema rules it out."""
    posts = body.get("transactions", [body])
    postings = [posting for each in posts for posting in each.get("postings", [])]
    captured = [each["posting"] for each in body.get("amounts", [])]
    return (
        any(posting["debit_account"] == posting["credit_account"] for posting in postings)
        or any("expires_at" in each and not each.get("pending", False) for each in posts)
        or len(captured) != len(set(captured))
    )


def line_of(hold: Hold, number: int, *, captured: int, released: int) -> Line:
    """What is captured and what is given back of one posting of a hold; neither is held any longer."""
    posting = hold.transaction["postings"][number]
    return Line(
        debit_account=posting["debit_account"],
        credit_account=posting["credit_account"],
        posted=captured,
        pending=-(captured + released),
        released=released,
        hold_posting=number,
    )
