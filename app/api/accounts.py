"""Accounts: open, change, list, get, their statements, and their live holds."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import MISSING

from app.api.contract import ContractRoute
from app.api.cursors import (
    CursorPage,
    check_one_filter,
    read_filters,
    read_place,
    with_cursor,
)
from app.api.edge import fingerprint
from app.deps import CallerOfRequest, KeyDigest, Present, Session, Submit
from app.ledger import finding, queries, statements, transactions
from app.ledger.commands import OpenAccount, UpdateAccount
from app.ledger.history import Moment
from app.ledger.refusals import InvalidCursor
from app.ledger.scopes import check_filter
from app.ledger.values import Event
from app.wire import given
from generated import models

router = APIRouter(route_class=ContractRoute, tags=["Accounts"])


@router.post(
    "/v1/ledgers/{ledger}/accounts",
    operation_id="createAccount",
    response_model=models.AccountConfiguration,
    status_code=201,
)
async def create_account(
    ledger: models.LedgerName, body: models.CreateAccountRequest, key: KeyDigest, submit: Submit
) -> Event:
    command = OpenAccount(
        path=body.path,
        asset=body.asset,
        normal_side=body.normal_side,
        minimum_balance=given(body.minimum_balance),
        maximum_balance=given(body.maximum_balance),
        description=given(body.description),
        metadata=given(body.metadata) or {},
    )
    meaning = fingerprint("createAccount", {"ledger": ledger}, body)
    return await submit(ledger, command, key=key, fingerprint=meaning)


@router.put(
    "/v1/ledgers/{ledger}/accounts/{account}",
    operation_id="updateAccount",
    response_model=models.AccountConfiguration,
)
async def update_account(
    ledger: models.LedgerName,
    account: models.AccountPath,
    body: models.UpdateAccountRequest,
    key: KeyDigest,
    submit: Submit,
) -> Event:
    command = UpdateAccount(
        path=account,
        revision=body.revision,
        status=given(body.status) or "open",
        minimum_balance=given(body.minimum_balance),
        maximum_balance=given(body.maximum_balance),
        description=given(body.description),
        metadata=given(body.metadata) or {},
    )
    # Open is the default, and said or unsaid it means the same; the generator would let null pass for a default.
    meant = body.model_copy(update={"status": MISSING}) if command.status == "open" else body
    meaning = fingerprint("updateAccount", {"ledger": ledger, "account": account}, meant)
    return await submit(ledger, command, key=key, fingerprint=meaning)


@router.get("/v1/ledgers/{ledger}/accounts", operation_id="listAccounts", response_model=models.AccountPage)
async def list_accounts(
    ledger: models.LedgerName,
    present: Present,
    caller: CallerOfRequest,
    prefix: Annotated[models.AccountPath | None, Query()] = None,
    asset: Annotated[models.Asset | None, Query()] = None,
    status: Annotated[models.AccountStatus | None, Query()] = None,
    limit: Annotated[models.LimitParameter, Query()] = 100,
    cursor: Annotated[models.CursorParameter | None, Query()] = None,
) -> CursorPage:
    scope = ("accounts", ledger)
    check_one_filter({"prefix": prefix}, {"asset": asset}, {"status": status})
    place = read_place(cursor, *scope, kind=str, filters={"prefix": prefix, "asset": asset, "status": status})
    check_filter(caller.scope, "prefix", place.filters)
    where: Any = {"after": place.after, "limit": limit, "cursor_identity": place.identity}
    match place.filters:
        case {"prefix": path}:
            page = await present(finding.list_accounts_below, ledger, path, **where)
        case {"asset": str()} | {"status": str()}:
            named = {name: place.filters.get(name) for name in ("asset", "status")}
            page = await present(finding.find_accounts, ledger, **named, **where)
        case _:
            page = await present(queries.list_accounts, ledger, **where)
    return with_cursor(page, *scope, filters=place.filters)


@router.get("/v1/ledgers/{ledger}/accounts/{account}", operation_id="getAccount", response_model=models.Account)
async def get_account(ledger: models.LedgerName, account: models.AccountPath, present: Present) -> queries.AccountState:
    return await present(queries.get_account, ledger, account)


@router.get(
    "/v1/ledgers/{ledger}/accounts/{account}/entries",
    operation_id="listAccountEntries",
    response_model=models.AccountEntryPage,
)
async def list_account_entries(
    ledger: models.LedgerName,
    account: models.AccountPath,
    session: Session,
    sort: Annotated[models.Sort | None, Query()] = None,
    order: Annotated[models.Order | None, Query()] = None,
    limit: Annotated[models.LimitParameter, Query()] = 100,
    cursor: Annotated[models.CursorParameter | None, Query()] = None,
) -> CursorPage:
    scope = ("entries", ledger, account)
    carried = read_filters(cursor)
    if (sort or carried.get("sort")) == "effective":
        moment = read_place(cursor, *scope, order=order, kind=Moment, filters={"sort": sort})
        page: Any = await statements.list_entries_in_effective_order(
            session,
            ledger,
            account,
            order=moment.order,
            after=moment.after,
            pinned=moment.filters.get("pinned"),
            limit=limit,
            cursor_identity=moment.identity,
        )
        return with_cursor(page, *scope, order=moment.order, filters={"sort": "effective", "pinned": page.sequence})
    if "sort" in carried:
        raise InvalidCursor()
    place = read_place(cursor, *scope, order=order, kind=int)
    where: Any = {"order": place.order, "after": place.after, "limit": limit, "cursor_identity": place.identity}
    page = await queries.list_account_entries(session, ledger, account, **where)
    return with_cursor(page, *scope, order=place.order)


@router.get(
    "/v1/ledgers/{ledger}/accounts/{account}/holds",
    operation_id="listAccountHolds",
    response_model=models.HoldPage,
)
async def list_account_holds(
    ledger: models.LedgerName,
    account: models.AccountPath,
    present: Present,
    caller: CallerOfRequest,
    order: Annotated[models.Order | None, Query()] = None,
    limit: Annotated[models.LimitParameter, Query()] = 100,
    cursor: Annotated[models.CursorParameter | None, Query()] = None,
) -> CursorPage:
    scope = ("holds", ledger, account)
    place = read_place(cursor, *scope, order=order, kind=int)
    where: Any = {"order": place.order, "after": place.after, "limit": limit, "cursor_identity": place.identity}
    page = await present(transactions.list_account_holds, ledger, account, within=caller.scope.prefix, **where)
    return with_cursor(page, *scope, order=place.order)
