"""Accounts: open, change, list, get, and their statements."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import MISSING

from app.api.contract import ContractRoute
from app.api.cursors import CursorPage, read_order_and_position, read_position, with_cursor
from app.api.edge import fingerprint
from app.deps import KeyDigest, Session, Submit
from app.ledger import queries
from app.ledger.values import Event, OpenAccount, UpdateAccount
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
    session: Session,
    limit: Annotated[models.LimitParameter, Query()] = 100,
    cursor: Annotated[models.CursorParameter | None, Query()] = None,
) -> CursorPage:
    scope = ("accounts", ledger)
    after = read_position(cursor, *scope, kind=str)
    return with_cursor(await queries.list_accounts(session, ledger, after=after, limit=limit), *scope)


@router.get("/v1/ledgers/{ledger}/accounts/{account}", operation_id="getAccount", response_model=models.Account)
async def get_account(ledger: models.LedgerName, account: models.AccountPath, session: Session) -> queries.AccountState:
    return await queries.get_account(session, ledger, account)


@router.get(
    "/v1/ledgers/{ledger}/accounts/{account}/entries",
    operation_id="listAccountEntries",
    response_model=models.AccountEntryPage,
)
async def list_account_entries(
    ledger: models.LedgerName,
    account: models.AccountPath,
    session: Session,
    order: Annotated[models.Order | None, Query()] = None,
    limit: Annotated[models.LimitParameter, Query()] = 100,
    cursor: Annotated[models.CursorParameter | None, Query()] = None,
) -> CursorPage:
    scope = ("entries", ledger, account)
    order, after = read_order_and_position(cursor, *scope, order=order, kind=int)
    page = await queries.list_account_entries(session, ledger, account, order=order, after=after, limit=limit)
    return with_cursor(page, *scope, order=order)
