"""Ledgers: create, change, list, get."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.api.contract import ContractRoute
from app.api.cursors import CursorPage, read_position, with_cursor
from app.api.edge import fingerprint
from app.deps import CallerOfRequest, KeyDigest, Session, Submit
from app.ledger import queries
from app.ledger.commands import CreateLedger, UpdateLedger
from app.ledger.submissions import CREATION_KEY
from app.ledger.values import Event
from app.wire import given
from generated import models

router = APIRouter(route_class=ContractRoute, tags=["Ledgers"])


@router.post("/v1/ledgers", operation_id="createLedger", response_model=models.LedgerConfiguration, status_code=201)
async def create_ledger(body: models.CreateLedgerRequest, submit: Submit) -> Event:
    command = CreateLedger(body.name, given(body.description), given(body.metadata) or {})
    return await submit(body.name, command, key=CREATION_KEY, fingerprint=fingerprint("createLedger", {}, body))


@router.put("/v1/ledgers/{ledger}", operation_id="updateLedger", response_model=models.LedgerConfiguration)
async def update_ledger(
    ledger: models.LedgerName, body: models.UpdateLedgerRequest, key: KeyDigest, submit: Submit
) -> Event:
    command = UpdateLedger(ledger, body.revision, given(body.description), given(body.metadata) or {})
    meaning = fingerprint("updateLedger", {"ledger": ledger}, body)
    return await submit(ledger, command, key=key, fingerprint=meaning)


@router.get("/v1/ledgers", operation_id="listLedgers", response_model=models.LedgerPage)
async def list_ledgers(
    session: Session,
    caller: CallerOfRequest,
    limit: Annotated[models.LimitParameter, Query()] = 100,
    cursor: Annotated[models.CursorParameter | None, Query()] = None,
) -> CursorPage:
    after = read_position(cursor, "ledgers", kind=str)
    page = await queries.list_ledgers(session, among=caller.scope.ledgers, after=after, limit=limit)
    return with_cursor(page, "ledgers")


@router.get("/v1/ledgers/{ledger}", operation_id="getLedger", response_model=models.Ledger)
async def get_ledger(ledger: models.LedgerName, session: Session) -> queries.LedgerState:
    return await queries.get_ledger(session, ledger)
