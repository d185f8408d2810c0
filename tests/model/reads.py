"""What is read of the books; whatever is of the present, after the expiry of what was due."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from tests.model.book import (
    COUNTERS,
    Account,
    Answer,
    Body,
    Book,
    Refused,
    closed_before,
    ledger_in_force,
    reversal_of,
    transactions,
)


class Reads:
    books: dict[str, Book]
    expire: Callable[[Book], None]

    def get_ledger(self, ledger: str) -> Answer:
        return self._read(ledger, self._ledger)

    def list_ledgers(self, *, after: str | None = None) -> Answer:
        names = [name for name in sorted(self.books) if after is None or name > after]
        return Answer(200, {"items": [self._ledger(self.books[name]) for name in names]})

    def get_account(self, ledger: str, path: str) -> Answer:
        return self._read(ledger, lambda book: self._account(book, path), present=True)

    def list_accounts(self, ledger: str, *, after: str | None = None, **filters: str) -> Answer:
        """Every account that a filter lets through, in bytewise order; from the one that follows `after`."""

        def read(book: Book) -> Body:
            found = [self._account(book, path) for path in sorted(book.accounts) if after is None or path > after]
            items = [account for account in found if is_listed(account, filters)]
            return {"items": items, "sequence": book.sequence}

        return self._read(ledger, read, present=True)

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
            known = [entry for entry in account.statement if entry["sequence"] <= point]
            sums, lines = {"debit": 0, "credit": 0}, []
            for entry in sorted(known, key=lambda entry: (entry["effective_at"], entry["version"])):
                sums[entry["side"]] += int(entry["amount"])
                balance = account.in_its_sense(debits=sums["debit"], credits=sums["credit"])
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
            lines = cut(book.accounts[path].statement, "version", order, after)
            return {"items": lines, "sequence": book.sequence}

        return self._read(ledger, read)

    def get_transaction(self, ledger: str, sequence: int) -> Answer:
        """A transaction as it was recorded, and what has become of it by now."""
        return self._read(ledger, lambda book: state(book, book.transaction(sequence)), present=True)

    def list_account_holds(self, ledger: str, path: str, order: str, *, after: int | None = None) -> Answer:
        """Every hold of which something is still held of the account; from the one that follows `after`."""

        def read(book: Book) -> Body:
            self._account(book, path)
            live = [
                hold.transaction
                for hold in book.holds.values()
                if any(path in named(hold.transaction["postings"][number]) for number in hold.live)
            ]
            items = [state(book, held) for held in cut(live, "sequence", order, after)]
            return {"items": items, "sequence": book.sequence}

        return self._read(ledger, read, present=True)

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
                if account.since > point or (prefix and not f"{path}:".startswith(f"{prefix}:")):
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

        return self._read(ledger, read, present=not as_of)

    def get_trial_balance(self, ledger: str, **as_of: Any) -> Answer:
        """For each asset the sum of all debit balances and that of all credit balances, which agree."""

        def read(book: Book) -> Body:
            point = known_at(book, as_of)
            items: dict[str, Body] = {}
            for account in book.accounts.values():
                if account.since > point:
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

    def _read(self, ledger: str, read: Callable[[Book], Body], *, present: bool = False) -> Answer:
        if ledger not in self.books:
            return Refused(404, "ledger_not_found").answer
        if present:
            self.expire(self.books[ledger])
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
        configuration = {
            name: value for name, value in account.opened.items() if name not in ("sequence", "recorded_at")
        }
        return {
            **configuration,
            "version": account.version,
            **in_digits(account.counters),
            "posted": str(account.posted()),
            "available": str(account.available()),
            "sequence": book.sequence,
        }


def state(book: Book, transaction: Body) -> Body:
    """A transaction as it was recorded, and what has become of it."""
    hold = book.holds.get(transaction["sequence"])
    return {
        **transaction,
        "hold_status": hold and hold.status,
        "hold_lines": [
            {
                "posting": number,
                "held": str(hold.held(number)),
                "captured": str(hold.captured[number]),
                "released": str(hold.released[number]),
            }
            for number in (hold.numbers if hold else ())
        ],
        "reversed_by": reversal_of(book, transaction["sequence"]),
        "as_of_sequence": book.sequence,
    }


def named(posting: Body) -> set[str]:
    return {posting["debit_account"], posting["credit_account"]}


def is_listed(account: Body, filters: Body) -> bool:
    """Whether an account is of the asset or the status asked for, or is the prefix or lies below it."""
    below = dict(filters)
    prefix = below.pop("prefix", None)
    return (prefix is None or f"{account['path']}:".startswith(f"{prefix}:")) and below.items() <= account.items()


def is_found(transaction: Body, filters: Body) -> bool:
    """Whether a transaction is of the reference or the group asked for, or names the account."""
    said = dict(filters)
    path = said.pop("account", None)
    is_named = path is None or any(path in named(posting) for posting in transaction["postings"])
    return is_named and all(transaction[name] == value for name, value in said.items())


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
    for entry in account.statement:
        if entry["sequence"] <= sequence and (effective is None or entry["effective_at"] <= effective):
            sums[entry["side"]] += int(entry["amount"])
    return account.in_its_sense(debits=sums["debit"], credits=sums["credit"])


def cut(items: list[Body], number: str, order: str, after: int | None) -> list[Body]:
    """What follows the item of this number, oldest or newest first."""
    if order == "oldest":
        return [item for item in items if after is None or item[number] > after]
    return [item for item in reversed(items) if after is None or item[number] < after]
