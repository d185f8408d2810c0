"""Transactions: post, list, get."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.api.contract import ContractRoute
from app.api.cursors import CursorPage, read_order_and_position, with_cursor
from app.api.edge import fingerprint
from app.deps import KeyDigest, Session, Submit
from app.ledger import queries
from app.ledger.rules import check_moves
from app.ledger.values import Event, Move, PostTransaction
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
    command = PostTransaction(
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
    check_moves(command.moves)
    meaning = fingerprint("postTransaction", {"ledger": ledger}, body)
    return await submit(ledger, command, key=key, fingerprint=meaning)


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
