"""Pages of lists: some rows in an order, as many as were asked for, or as make so many bytes of JSON."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, Select, Text, cast, func, null, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.expression import ColumnCollection

Order = Literal["newest", "oldest"]
Columns = ColumnCollection[str, Any]
# What an item of a list may be as JSON, from the columns of its row.
Size = Callable[[Columns], ColumnElement[int]]

# A page ends before it would have this many bytes of JSON, however many items were asked for; one it always has.
PAGE_BYTES_MAX = 2_000_000
# What an item has at most beside its free text: names of properties, numbers and instants, and an account's path.
ITEM_BYTES = 500


@dataclass(frozen=True, slots=True)
class Page[Item, Position]:
    """Some items in order. `next` is the position to read on from, or None on the last page."""

    items: list[Item]
    next: Position | None
    sequence: int
    # Of the ledger that the page was read in.
    identity: str | None = None


async def read_page(
    session: AsyncSession,
    query: Select[Any],
    column: Any,
    order: Order,
    after: str | int | None,
    limit: int,
    size: Size,
) -> tuple[list[Row[Any]], bool]:
    """The rows of a page in the order of a column, with the bytes of JSON that they may become so far, and whether
    more follow them."""

    def placed(column: Any) -> Any:
        return column.desc() if order == "newest" else column

    if after is not None:
        query = query.where(column < after if order == "newest" else column > after)
    place = placed(column)
    # What is stored is no longer than what is said. Its sum stops the page without unpacking what it will not show.
    stored = func.coalesce(func.pg_column_size(query.selected_columns.get("metadata", null())), 0)
    rows_before = {"order_by": place, "rows": (None, -1)}
    numbered = query.add_columns(
        func.row_number().over(order_by=place).label("number"),
        func.coalesce(func.sum(stored).over(**rows_before), 0).label("stored_before"),
    )
    # One row more than was asked for tells whether anything follows. The windows run along the index, and stop with it.
    few = numbered.order_by(place).limit(limit + 1).subquery()
    so_far = func.sum(size(few.c)).over(order_by=placed(few.c[column.name])).label("bytes_so_far")
    looked_at = or_(few.c.number <= 2, few.c.stored_before <= PAGE_BYTES_MAX)
    sized = select(few, so_far, func.count().over().label("found")).where(looked_at).subquery()
    fits = or_(sized.c.number == 1, sized.c.bytes_so_far <= PAGE_BYTES_MAX)
    rows = list(await session.execute(select(sized).where(fits).order_by(sized.c.number)))
    return rows[:limit], bool(rows) and rows[0].found > len(rows[:limit])


def bytes_said(*columns: ColumnElement[Any]) -> ColumnElement[int]:
    """What these are as JSON, which is as it will be answered or longer."""
    return func.octet_length(cast(func.json_build_array(*columns), Text))
