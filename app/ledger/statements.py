"""An account's statement in effective order: two sorted streams, merged, with the balance summed along the page.

On-time entries rise in effective time with their version; late ones stand in an index by effective time. A line's
place is its effective time and its version. Let `start` be the last version up to which every entry lies at or
before a place: what comes after it does so only if it is late. So the balance at a place is the formula of
`history`, with the place in the stead of an instant.
"""

import json
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, func, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from app.ledger import pages
from app.ledger.history import FOR_EVER, VERSIONS, Moment
from app.ledger.pages import ITEM_BYTES, Order, Page
from app.ledger.queries import ENTRY_EVENT, StatementLine, get_head, make_statement_line, select_statement
from app.ledger.refusals import AccountNotFound
from app.ledger.values import EARLIEST, Side
from app.models import accounts, entries, late_entries

_INSTANT = timedelta(microseconds=1)


async def list_entries_in_effective_order(
    session: AsyncSession,
    ledger: str,
    path: str,
    *,
    order: Order,
    after: Moment | None,
    pinned: int | None,
    limit: int,
    cursor_identity: str | None = None,
) -> Page[StatementLine, Moment]:
    """The statement by effective time, as known at `pinned`. Raises `LedgerNotFound`, `AccountNotFound`."""
    ledger_id, last, identity = await get_head(session, ledger, cursor_identity=cursor_identity)
    query = select(accounts.c.account_id, accounts.c.normal_side)
    found = await session.execute(query.where(accounts.c.ledger_id == ledger_id, accounts.c.path == path))
    account = found.one_or_none()
    if account is None:
        raise AccountNotFound()
    sequence = last if pinned is None else min(pinned, last)
    statement = _Statement(session, ledger_id, account.account_id, account.normal_side, sequence)
    read = statement.read_forward if order == "oldest" else statement.read_backward
    lines, more = await read(after, limit)
    return Page(lines, _place(lines[-1]) if more else None, sequence, identity)


def _place(line: StatementLine) -> Moment:
    return Moment(line.effective_at, line.version)


def _cut(lines: list[StatementLine], limit: int) -> tuple[list[StatementLine], bool]:
    """As many of the lines as a page holds, and whether more follow."""
    size = 0
    for count, line in enumerate(lines[:limit]):
        size += ITEM_BYTES + len(json.dumps((line.reference, line.group, line.description)))
        if count and size > pages.PAGE_BYTES_MAX:
            return lines[:count], True
    return lines[:limit], len(lines) > limit


@dataclass(frozen=True, slots=True)
class _Statement:
    """An account's entries as known at one sequence."""

    session: AsyncSession
    ledger_id: int
    account_id: int
    normal_side: Side
    sequence: int

    async def read_forward(self, after: Moment | None, limit: int) -> tuple[list[StatementLine], bool]:
        start, known = await self._start(after) if after else (0, await self._known())
        late = self._late(known).order_by(late_entries.c.effective_at, late_entries.c.version)
        if after:
            late = late.where(after < _LATE_PLACE)
        places = await self._late_places(late, limit)
        if len(places) > limit:  # On-time entries beyond the last of these belong to later pages.
            known = min(known, (await self._start(places[-1]))[0])
        on_time = self._on_time().where(entries.c.version > start, entries.c.version <= known)
        found = await self._read(on_time.order_by(entries.c.version).limit(limit + 1), places)
        lines = sorted(found, key=_place)[: limit + 1]
        balance = await self._balance(after) if after else 0
        for number, line in enumerate(lines):
            balance += self._raised(line)
            lines[number] = replace(line, balance=balance)
        return _cut(lines, limit)

    async def read_backward(self, after: Moment | None, limit: int) -> tuple[list[StatementLine], bool]:
        # The place just before `after`: versions are whole numbers.
        before = Moment(after.effective_at, after.number - 1) if after else None
        start, known = await self._start(before) if before else (await self._known(),) * 2
        late = self._late(known).order_by(late_entries.c.effective_at.desc(), late_entries.c.version.desc())
        if before:
            late = late.where(before >= _LATE_PLACE)
        places = await self._late_places(late, limit)
        low = (await self._start(places[-1]))[0] if len(places) > limit else 0
        on_time = self._on_time().where(entries.c.version > low, entries.c.version <= min(start, known))
        found = await self._read(on_time.order_by(entries.c.version.desc()).limit(limit + 1), places)
        lines = sorted(found, key=_place, reverse=True)[: limit + 1]
        balance = await self._balance(_place(lines[0])) if lines else 0
        for number, line in enumerate(lines):
            lines[number] = replace(line, balance=balance)
            balance -= self._raised(line)
        return _cut(lines, limit)

    def _raised(self, line: StatementLine) -> int:
        return line.amount if line.side == self.normal_side else -line.amount

    def _on_time(self) -> Select[Any]:
        effective_at = func.coalesce(ENTRY_EVENT.c.effective_at, ENTRY_EVENT.c.recorded_at)
        return select_statement(self.ledger_id, self.account_id).where(effective_at == entries.c.latest_effective)

    def _late(self, known: int) -> Select[Any]:
        return select(late_entries.c.effective_at, late_entries.c.version).where(
            late_entries.c.ledger_id == self.ledger_id,
            late_entries.c.account_id == self.account_id,
            late_entries.c.version <= known,
            late_entries.c.amount != 0,
        )

    async def _late_places(self, late: Select[Any], limit: int) -> list[Moment]:
        return [Moment(*row) for row in await self.session.execute(late.limit(limit + 1))]

    async def _read(self, on_time: Select[Any], late: list[Moment]) -> list[StatementLine]:
        rows = list(await self.session.execute(on_time))
        if late:
            versions = [place.number for place in late]
            those = select_statement(self.ledger_id, self.account_id).where(entries.c.version == func.any(versions))
            rows += await self.session.execute(those)
        return [make_statement_line(row) for row in rows]

    async def _start(self, place: Moment) -> tuple[int, int]:
        """The last version up to which every entry lies at or before the place; and the last one known."""
        effective_at = max(place.effective_at, EARLIEST)
        up_to, known = await self._versions(effective_at)
        before, _ = await self._versions(effective_at - _INSTANT)
        return min(up_to, max(place.number, before)), known

    async def _known(self) -> int:
        return (await self._versions(FOR_EVER))[1]

    async def _versions(self, effective: Any) -> tuple[int, int]:
        bounds = self._key | {"effective": effective, "sequence": self.sequence}
        row = (await self.session.execute(VERSIONS_OF, bounds)).one()
        return row[0], row[1]

    async def _balance(self, place: Moment) -> int:
        start, known = await self._start(place)
        effective_at, version = place
        bounds = {"start": start, "known": known, "effective": effective_at, "version": version}
        return int(await self.session.scalar(_BALANCE, self._key | bounds))

    @property
    def _key(self) -> dict[str, Any]:
        return {"ledger_id": self.ledger_id, "account_id": self.account_id}


_LATE_PLACE = tuple_(late_entries.c.effective_at, late_entries.c.version)
VERSIONS_OF = text(
    "".join(
        (
            "select effective.version, known.version from (",
            "select * from accounts where ledger_id = :ledger_id and account_id = :account_id offset 0) as a",
            VERSIONS,
        )
    )
)
_BALANCE = text("""
select (coalesce((select balance from entries where ledger_id = :ledger_id and account_id = :account_id
                     and version = least(cast(:start as bigint), cast(:known as bigint))), 0)
      + coalesce((select sum(amount) from late_entries where ledger_id = :ledger_id and account_id = :account_id
                     and (effective_at, version) <= (:effective, cast(:version as bigint))
                     and version > :start and version <= :known), 0))::text
""")
