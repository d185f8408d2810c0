"""Balances: of an account at any time, and sums over accounts."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query

from app.api.contract import ContractRoute
from app.api.cursors import Place, make_cursor, read_place
from app.deps import CallerOfRequest, Present, Session
from app.ledger import history, totals
from app.ledger.history import AsOf
from app.ledger.pages import Page
from app.ledger.scopes import check_filter
from generated import models

router = APIRouter(route_class=ContractRoute, tags=["Balances"])

AsOfEffective = Annotated[models.Timestamp | None, Query()]
AsOfSequence = Annotated[models.PastSequence | None, Query()]
AsOfRecorded = Annotated[models.Timestamp | None, Query()]


@router.get(
    "/v1/ledgers/{ledger}/accounts/{account}/balance",
    operation_id="getAccountBalance",
    response_model=models.AccountBalance,
)
async def get_account_balance(
    ledger: models.LedgerName,
    account: models.AccountPath,
    session: Session,
    as_of_effective: AsOfEffective = None,
    as_of_sequence: AsOfSequence = None,
    as_of_recorded: AsOfRecorded = None,
) -> history.AccountBalance:
    as_of = AsOf(as_of_effective, as_of_sequence, as_of_recorded)
    return await history.get_account_balance(session, ledger, account, as_of)


@dataclass(frozen=True, slots=True)
class PastPage:
    """A page of sums as it is answered."""

    items: list[Any]
    next_cursor: str | None
    as_of_effective: datetime | None
    sequence: int


@router.get("/v1/ledgers/{ledger}/totals", operation_id="getTotals", response_model=models.AssetTotalsPage)
async def get_totals(
    ledger: models.LedgerName,
    present: Present,
    caller: CallerOfRequest,
    prefix: Annotated[models.AccountPath | None, Query()] = None,
    as_of_effective: AsOfEffective = None,
    as_of_sequence: AsOfSequence = None,
    as_of_recorded: AsOfRecorded = None,
    limit: Annotated[models.LimitParameter, Query()] = 100,
    cursor: Annotated[models.CursorParameter | None, Query()] = None,
) -> PastPage:
    scope = ("totals", ledger)
    filters = {"prefix": prefix} | _filters(as_of_effective, as_of_sequence, as_of_recorded)
    place = read_place(cursor, *scope, kind=str, filters=filters)
    check_filter(caller.scope, "prefix", place.filters)
    below, as_of = place.filters.get("prefix"), _as_of(place)
    where: Any = {"after": place.after, "limit": limit, "cursor_identity": place.identity}
    page = await present(totals.get_totals, ledger, prefix=below, as_of=as_of, **where)
    return _past_page(page, *scope, place=place)


@router.get(
    "/v1/ledgers/{ledger}/trial-balance", operation_id="getTrialBalance", response_model=models.TrialBalancePage
)
async def get_trial_balance(
    ledger: models.LedgerName,
    session: Session,
    as_of_effective: AsOfEffective = None,
    as_of_sequence: AsOfSequence = None,
    as_of_recorded: AsOfRecorded = None,
    limit: Annotated[models.LimitParameter, Query()] = 100,
    cursor: Annotated[models.CursorParameter | None, Query()] = None,
) -> PastPage:
    scope = ("trial-balance", ledger)
    place = read_place(cursor, *scope, kind=str, filters=_filters(as_of_effective, as_of_sequence, as_of_recorded))
    where: Any = {"after": place.after, "limit": limit, "cursor_identity": place.identity}
    page = await totals.get_trial_balance(session, ledger, as_of=_as_of(place), **where)
    return _past_page(page, *scope, place=place)


def _filters(effective: datetime | None, sequence: int | None, recorded: datetime | None) -> dict[str, Any]:
    return {"as_of_effective": effective, "as_of_sequence": sequence, "as_of_recorded": recorded}


def _as_of(place: Place[str]) -> AsOf:
    return AsOf(*(place.filters.get(name) for name in ("as_of_effective", "as_of_sequence", "as_of_recorded")))


def _past_page(page: Page[Any, str], *scope: str, place: Place[str]) -> PastPage:
    cursor = make_cursor(page, *scope, filters=place.filters)
    return PastPage(page.items, cursor, place.filters.get("as_of_effective"), page.sequence)
