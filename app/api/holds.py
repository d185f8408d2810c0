"""What is said about a transaction: a hold is captured or voided, what was posted is reversed."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import MISSING

from app.api.contract import ContractRoute
from app.api.edge import fingerprint
from app.deps import KeyDigest, Submit
from app.ledger.commands import CaptureTransaction, ReverseTransaction, VoidTransaction
from app.ledger.rules import check_capture
from app.ledger.values import Event
from app.wire import given
from generated import models

router = APIRouter(route_class=ContractRoute, tags=["Transactions"])


@router.post(
    "/v1/ledgers/{ledger}/transactions/{sequence}/capture",
    operation_id="captureTransaction",
    response_model=models.Transaction,
    status_code=201,
)
async def capture_transaction(
    ledger: models.LedgerName,
    sequence: models.EventSequence,
    body: models.CaptureTransactionRequest,
    key: KeyDigest,
    submit: Submit,
) -> Event:
    amounts = given(body.amounts)
    command = CaptureTransaction(
        **_about(sequence, body),
        amounts=None if amounts is None else tuple((each.posting, each.amount) for each in amounts),
        keep=given(body.remainder) == "keep",
        effective_at=given(body.effective_at),
    )
    check_capture(number for number, _ in command.amounts or ())
    # Released is the default, and said or unsaid it means the same.
    meant = body if command.keep else body.model_copy(update={"remainder": MISSING})
    meaning = fingerprint("captureTransaction", {"ledger": ledger, "sequence": str(sequence)}, meant)
    return await submit(ledger, command, key=key, fingerprint=meaning)


@router.post(
    "/v1/ledgers/{ledger}/transactions/{sequence}/void",
    operation_id="voidTransaction",
    response_model=models.Transaction,
    status_code=201,
)
async def void_transaction(
    ledger: models.LedgerName,
    sequence: models.EventSequence,
    body: models.VoidTransactionRequest,
    key: KeyDigest,
    submit: Submit,
) -> Event:
    meaning = fingerprint("voidTransaction", {"ledger": ledger, "sequence": str(sequence)}, body)
    return await submit(ledger, VoidTransaction(**_about(sequence, body)), key=key, fingerprint=meaning)


@router.post(
    "/v1/ledgers/{ledger}/transactions/{sequence}/reverse",
    operation_id="reverseTransaction",
    response_model=models.Transaction,
    status_code=201,
)
async def reverse_transaction(
    ledger: models.LedgerName,
    sequence: models.EventSequence,
    body: models.ReverseTransactionRequest,
    key: KeyDigest,
    submit: Submit,
) -> Event:
    command = ReverseTransaction(**_about(sequence, body), effective_at=given(body.effective_at))
    meaning = fingerprint("reverseTransaction", {"ledger": ledger, "sequence": str(sequence)}, body)
    return await submit(ledger, command, key=key, fingerprint=meaning)


def _about(
    sequence: int,
    body: models.CaptureTransactionRequest | models.VoidTransactionRequest | models.ReverseTransactionRequest,
) -> dict[str, Any]:
    """What every command about a transaction says."""
    return {
        "subject": sequence,
        "reference": given(body.reference),
        "description": given(body.description),
        "metadata": given(body.metadata) or {},
    }
