"""Balances: of an account at any time, and sums over accounts."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.api.contract import ContractRoute
from app.deps import Session
from app.ledger import history
from app.ledger.history import AsOf
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
