"""Periods: close a ledger's books before an instant, and reopen them."""

from fastapi import APIRouter

from app.api.contract import ContractRoute
from app.api.edge import fingerprint
from app.deps import KeyDigest, Submit
from app.ledger.commands import ClosePeriod, ReopenPeriod
from app.ledger.values import Event
from app.wire import given
from generated import models

router = APIRouter(route_class=ContractRoute, tags=["Periods"])


@router.post("/v1/ledgers/{ledger}/closings", operation_id="closePeriod", response_model=models.Period, status_code=201)
async def close_period(
    ledger: models.LedgerName, body: models.ClosePeriodRequest, key: KeyDigest, submit: Submit
) -> Event:
    meaning = fingerprint("closePeriod", {"ledger": ledger}, body)
    return await submit(ledger, ClosePeriod(body.before, body.reason), key=key, fingerprint=meaning)


@router.post(
    "/v1/ledgers/{ledger}/reopenings", operation_id="reopenPeriod", response_model=models.Period, status_code=201
)
async def reopen_period(
    ledger: models.LedgerName, body: models.ReopenPeriodRequest, key: KeyDigest, submit: Submit
) -> Event:
    meaning = fingerprint("reopenPeriod", {"ledger": ledger}, body)
    return await submit(ledger, ReopenPeriod(given(body.before), body.reason), key=key, fingerprint=meaning)
