"""The log of a ledger, and its feed."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.api.contract import ContractRoute
from app.deps import Session
from app.ledger import queries
from generated import models

router = APIRouter(route_class=ContractRoute, tags=["Events"])


@router.get("/v1/ledgers/{ledger}/events", operation_id="listEvents", response_model=models.EventPage)
async def list_events(
    ledger: models.LedgerName,
    session: Session,
    after_sequence: Annotated[models.AfterSequenceParameter, Query()] = 0,
    limit: Annotated[models.LimitParameter, Query()] = 100,
) -> queries.LogPage:
    return await queries.list_events(session, ledger, after=after_sequence, limit=limit)
