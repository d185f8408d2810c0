"""Cursors: where a page ended, with the list and the order that it belongs to, as an opaque string."""

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any

from app.ledger.queries import Order, Page
from app.ledger.refusals import InvalidCursor

_NAME = re.compile(r"[!-~]{1,255}")
_INTEGER_MAX = 2**53 - 1


@dataclass(frozen=True, slots=True)
class CursorPage:
    """A page as it is answered."""

    items: list[Any]
    next_cursor: str | None
    sequence: int


def with_cursor(page: Page[Any, Any], *scope: str, order: Order | None = None) -> CursorPage:
    """The page, with a cursor for what follows it in the list that `scope` names, if anything does."""
    if page.next is None:
        return CursorPage(page.items, None, page.sequence)
    text = json.dumps([*scope, order, page.next], separators=(",", ":"))
    return CursorPage(page.items, base64.urlsafe_b64encode(text.encode()).decode().rstrip("="), page.sequence)


def read_position[Position: (str, int)](cursor: str | None, *scope: str, kind: type[Position]) -> Position | None:
    """Where to read on in a list of one order. Raises `InvalidCursor` for a cursor of any other list."""
    _, after = _read(cursor, scope, kind)
    return after


def read_order_and_position[Position: (str, int)](
    cursor: str | None, *scope: str, order: Order | None, kind: type[Position]
) -> tuple[Order, Position | None]:
    """The order that the cursor carries, or else the one asked for, and where to read on."""
    carried, after = _read(cursor, scope, kind)
    if carried is not None and order is not None and carried != order:
        raise InvalidCursor()
    return carried or order or "newest", after


def _read[Position: (str, int)](
    cursor: str | None, scope: tuple[str, ...], kind: type[Position]
) -> tuple[Order | None, Position | None]:
    if cursor is None:
        return None, None
    try:
        decoded = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        *found, order, after = decoded
    except (ValueError, TypeError, RecursionError, binascii.Error):
        raise InvalidCursor() from None
    if tuple(found) != scope or order not in (None, "newest", "oldest") or type(after) is not kind:
        raise InvalidCursor()
    if not (_NAME.fullmatch(after) if isinstance(after, str) else 0 <= after <= _INTEGER_MAX):
        raise InvalidCursor()
    return order, after
