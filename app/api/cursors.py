"""Cursors: where a page ended, with the list, the filters and the order that it belongs to, as an opaque string."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import StringConstraints, TypeAdapter, ValidationError

from app.ledger.history import Moment
from app.ledger.pages import Order, Page
from app.ledger.refusals import InvalidCursor, ValidationFailed
from generated import models

_NAME = re.compile(r"[!-~]{1,255}")
_INTEGER_MAX = 2**53 - 1

# So much of the identity of its ledger is in a cursor: enough to tell it from one that took its name after a restore.
_IDENTITY_CHARACTERS = 8

# What a cursor may carry: filters as the contract has them, the sequence that later pages are held to, and the
# beginning of the identity of the ledger that it was made in.
_FILTERS: dict[str, TypeAdapter[Any]] = {
    "sort": TypeAdapter(models.Sort),
    "account": TypeAdapter(models.AccountPath),
    "reference": TypeAdapter(models.Reference),
    "group": TypeAdapter(models.Group),
    "effective_from": TypeAdapter(models.Timestamp),
    "effective_to": TypeAdapter(models.Timestamp),
    "asset": TypeAdapter(models.Asset),
    "status": TypeAdapter(models.AccountStatus),
    "prefix": TypeAdapter(models.AccountPath),
    "as_of_effective": TypeAdapter(models.Timestamp),
    "as_of_sequence": TypeAdapter(models.PastSequence),
    "as_of_recorded": TypeAdapter(models.Timestamp),
    "pinned": TypeAdapter(models.PastSequence),
    "identity": TypeAdapter(Annotated[str, StringConstraints(pattern=rf"^[0-9a-f]{{{_IDENTITY_CHARACTERS}}}$")]),
}
_MOMENT = TypeAdapter(tuple[models.Timestamp, models.PastSequence])


@dataclass(frozen=True, slots=True)
class CursorPage:
    """A page as it is answered."""

    items: list[Any]
    next_cursor: str | None
    sequence: int


@dataclass(frozen=True, slots=True)
class Place[Position]:
    """A place in a list: its filters and its order, as the cursor carries them or else as asked for, the position to
    read on from, and the beginning of the identity of the ledger that the cursor was made in."""

    filters: dict[str, Any]
    order: Order
    after: Position | None
    identity: str | None = None


def with_cursor(
    page: Page[Any, Any], *scope: str, order: Order | None = None, filters: Mapping[str, Any] | None = None
) -> CursorPage:
    """The page, with a cursor for what follows it in the list that `scope` names, if anything does."""
    return CursorPage(page.items, make_cursor(page, *scope, order=order, filters=filters), page.sequence)


def make_cursor(
    page: Page[Any, Any], *scope: str, order: Order | None = None, filters: Mapping[str, Any] | None = None
) -> str | None:
    """The cursor for what follows the page, if anything does."""
    if page.next is None:
        return None
    carried = dict(filters or {})
    if page.identity is not None:
        carried["identity"] = page.identity[:_IDENTITY_CHARACTERS]
    said = [*scope, carried, order, page.next] if carried else [*scope, order, page.next]
    text = json.dumps(said, separators=(",", ":"), default=datetime.isoformat)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_position[Position: (str, int)](cursor: str | None, *scope: str, kind: type[Position]) -> Position | None:
    """Where to read on in a list of one order. Raises `InvalidCursor` for a cursor of any other list."""
    return read_place(cursor, *scope, kind=kind).after


def read_place[Position: (str, int, Moment)](
    cursor: str | None,
    *scope: str,
    kind: type[Position],
    order: Order | None = None,
    filters: Mapping[str, Any] | None = None,
) -> Place[Position]:
    """Where to read on. What stands beside a cursor may repeat what it carries, and may not contradict it.

    `filters` names every filter that the list has, with None for one that was not given. Raises `InvalidCursor`.
    """
    given = {name: value for name, value in (filters or {}).items() if value is not None}
    if cursor is None:
        return Place(given, order or "newest", None)
    *found, carried_order, position = _decode(cursor)
    carried = _read_filters(found.pop()) if found and isinstance(found[-1], dict) else {}
    # One that was made by a version before this has none, and is good in any ledger of its name.
    identity = carried.pop("identity", None)
    if tuple(found) != scope or not carried.keys() <= {*(filters or ()), "pinned"}:
        raise InvalidCursor()
    if carried_order not in (None, "newest", "oldest") or order not in (None, carried_order or order):
        raise InvalidCursor()
    if any(carried.get(name) != value for name, value in given.items()):
        raise InvalidCursor()
    return Place(carried, carried_order or order or "newest", _read_position(position, kind), identity)


def check_one_filter(*filters: Mapping[str, Any]) -> None:
    """Each mapping is one filter, of one parameter or several. Raises `ValidationFailed` if two are given."""
    given = [name for each in filters for name in [next((n for n, value in each.items() if value is not None), None)]]
    names = [name for name in given if name is not None]
    if len(names) > 1:
        raise ValidationFailed([{"pointer": names[1], "message": "A list takes one filter beside its order"}])


def read_filters(cursor: str | None) -> dict[str, Any]:
    """What a cursor carries beside its position, where that decides how the rest is read. Raises `InvalidCursor`."""
    said = _decode(cursor)[:-2] if cursor is not None else []
    return _read_filters(said[-1]) if said and isinstance(said[-1], dict) else {}


def _decode(cursor: str) -> list[Any]:
    try:
        decoded = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, RecursionError, binascii.Error):
        raise InvalidCursor() from None
    if not isinstance(decoded, list) or len(decoded) < 2:
        raise InvalidCursor()
    return decoded


def _read_filters(said: dict[str, Any]) -> dict[str, Any]:
    try:
        return {name: _FILTERS[name].validate_python(value) for name, value in said.items()}
    except (KeyError, ValidationError):
        raise InvalidCursor() from None


def _read_position(said: Any, kind: type[Any]) -> Any:
    if kind is Moment:
        try:
            return Moment(*_MOMENT.validate_python(said))
        except ValidationError:
            raise InvalidCursor() from None
    if type(said) is not kind:
        raise InvalidCursor()
    if not (_NAME.fullmatch(said) if isinstance(said, str) else 0 <= said <= _INTEGER_MAX):
        raise InvalidCursor()
    return said
