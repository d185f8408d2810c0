"""Verification: a range of a ledger's log, and the accounts that it touches, against the invariants."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from app.api.contract import ContractRoute
from app.deps import Sessions
from app.ledger import verify
from generated import models

router = APIRouter(route_class=ContractRoute, tags=["Verification"])


@router.get("/v1/ledgers/{ledger}/verification", operation_id="verifyLedger", response_model=models.VerificationReport)
async def verify_ledger(
    ledger: models.LedgerName,
    sessions: Sessions,
    request: Request,
    after_sequence: Annotated[models.AfterSequenceParameter, Query()] = 0,
    limit: Annotated[models.VerificationLimitParameter, Query()] = 1000,
) -> verify.VerificationReport:
    report = await verify.verify_range(sessions, ledger, after=after_sequence, limit=limit)
    request.app.state.verifications.add(
        {check.name: (check.checked, check.offenders) for check in report.checks},
        events=report.to_sequence - report.from_sequence + 1,
        at=request.app.state.clock().timestamp(),
    )
    return report
