"""Transactions: post, list, get."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query

from app.api.contract import ContractRoute
from app.api.cursors import CursorPage, read_order_and_position, with_cursor
from app.api.edge import fingerprint
from app.api.problems import say
from app.deps import KeyDigest, Session, Submit
from app.ledger import queries
from app.ledger.refusals import Refusal
from app.ledger.rules import check_batch, check_moves
from app.ledger.values import Event, Move, PostBatch, PostTransaction
from app.wire import given
from generated import models

router = APIRouter(route_class=ContractRoute, tags=["Transactions"])


@router.post(
    "/v1/ledgers/{ledger}/transactions",
    operation_id="postTransaction",
    response_model=models.Transaction,
    status_code=201,
)
async def post_transaction(
    ledger: models.LedgerName, body: models.PostTransactionRequest, key: KeyDigest, submit: Submit
) -> Event:
    command = _transaction(body)
    check_moves(command.moves)
    meaning = fingerprint("postTransaction", {"ledger": ledger}, body)
    return await submit(ledger, command, key=key, fingerprint=meaning)


@router.post(
    "/v1/ledgers/{ledger}/transaction-batches",
    operation_id="postTransactionBatch",
    response_model=models.TransactionBatch,
    status_code=200,
)
async def post_transaction_batch(
    ledger: models.LedgerName, body: models.PostTransactionBatchRequest, key: KeyDigest, submit: Submit
) -> Results:
    await asyncio.sleep(0)  # A large body took its time to read: let others have the loop in between.
    command = PostBatch(tuple(map(_transaction, body.transactions)), atomic=body.atomic)
    check_batch(command)
    meaning = fingerprint("postTransactionBatch", {"ledger": ledger}, body)
    receipt = await submit.receive(ledger, command, key=key, fingerprint=meaning)
    return Results([Result.of(each) for each in receipt.results])


@dataclass(frozen=True, slots=True)
class Results:
    results: list[Result]


class Result:
    """Of one transaction of a batch: `transaction`, or else `problem`."""

    transaction: Event
    problem: dict[str, Any]

    @classmethod
    def of(cls, became: Event | Refusal) -> Result:
        result = cls()
        if isinstance(became, Refusal):
            result.problem = say(became)
        else:
            result.transaction = became
        return result


def _transaction(body: models.PostTransactionRequest) -> PostTransaction:
    return PostTransaction(
        moves=tuple(
            Move(
                move.debit_account,
                move.credit_account,
                move.amount,
                given(move.expected_debit_version),
                given(move.expected_credit_version),
            )
            for move in body.postings
        ),
        effective_at=given(body.effective_at),
        reference=given(body.reference),
        group=given(body.group),
        description=given(body.description),
        metadata=given(body.metadata) or {},
    )


@router.get(
    "/v1/ledgers/{ledger}/transactions",
    operation_id="listTransactions",
    response_model=models.TransactionPage,
)
async def list_transactions(
    ledger: models.LedgerName,
    session: Session,
    order: Annotated[models.Order | None, Query()] = None,
    limit: Annotated[models.LimitParameter, Query()] = 100,
    cursor: Annotated[models.CursorParameter | None, Query()] = None,
) -> CursorPage:
    scope = ("transactions", ledger)
    order, after = read_order_and_position(cursor, *scope, order=order, kind=int)
    page = await queries.list_transactions(session, ledger, order=order, after=after, limit=limit)
    return with_cursor(page, *scope, order=order)


@router.get(
    "/v1/ledgers/{ledger}/transactions/{sequence}",
    operation_id="getTransaction",
    response_model=models.Transaction,
)
async def get_transaction(ledger: models.LedgerName, sequence: models.EventSequence, session: Session) -> Event:
    return await queries.get_transaction(session, ledger, sequence)
