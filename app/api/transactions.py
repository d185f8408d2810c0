"""Transactions: post, list, get. What is said about one of them is in `holds.py`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query

from app.api.contract import ContractRoute
from app.api.cursors import CursorPage, check_one_filter, read_filters, read_place, with_cursor
from app.api.edge import fingerprint
from app.api.problems import say
from app.deps import CallerOfRequest, KeyDigest, Present, Session, Submit
from app.ledger import finding, recorded, transactions
from app.ledger.commands import Move, PostBatch, PostTransaction
from app.ledger.history import Moment
from app.ledger.refusals import Refusal
from app.ledger.rules import check_batch, check_transaction
from app.ledger.scopes import check_filter
from app.ledger.transactions import TransactionState
from app.ledger.values import Event
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
    check_transaction(command)
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
        pending=body.pending,
        expires_at=given(body.expires_at),
    )


@router.get(
    "/v1/ledgers/{ledger}/transactions",
    operation_id="listTransactions",
    response_model=models.TransactionPage,
)
async def list_transactions(
    ledger: models.LedgerName,
    session: Session,
    caller: CallerOfRequest,
    account: Annotated[models.AccountPath | None, Query()] = None,
    reference: Annotated[models.Reference | None, Query()] = None,
    group: Annotated[models.Group | None, Query()] = None,
    effective_from: Annotated[models.Timestamp | None, Query()] = None,
    effective_to: Annotated[models.Timestamp | None, Query()] = None,
    order: Annotated[models.Order | None, Query()] = None,
    limit: Annotated[models.LimitParameter, Query()] = 100,
    cursor: Annotated[models.CursorParameter | None, Query()] = None,
) -> CursorPage:
    scope = ("transactions", ledger)
    effective = {"effective_from": effective_from, "effective_to": effective_to}
    filters = {"account": account, "reference": reference, "group": group, **effective}
    check_one_filter({"account": account}, {"reference": reference}, {"group": group}, effective)
    if effective.keys() & {*read_filters(cursor), *(name for name, value in effective.items() if value is not None)}:
        moment = read_place(cursor, *scope, order=order, kind=Moment, filters=filters)
        check_filter(caller.scope, "account", moment.filters)
        page: Any = await finding.list_transactions_effective(
            session,
            ledger,
            start=moment.filters.get("effective_from"),
            end=moment.filters.get("effective_to"),
            order=moment.order,
            after=moment.after,
            pinned=moment.filters.get("pinned"),
            limit=limit,
            cursor_identity=moment.identity,
        )
        return with_cursor(page, *scope, order=moment.order, filters=moment.filters | {"pinned": page.sequence})
    place = read_place(cursor, *scope, order=order, kind=int, filters=filters)
    check_filter(caller.scope, "account", place.filters)
    where: Any = {"order": place.order, "after": place.after, "limit": limit, "cursor_identity": place.identity}
    match place.filters:
        case {"account": path}:
            within = caller.scope.prefix
            page = await finding.list_transactions_of_account(session, ledger, path, within=within, **where)
        case {"reference": str()} | {"group": str()}:
            named: Any = {name: place.filters.get(name) for name in ("reference", "group")}
            page = await finding.find_transactions(session, ledger, **named, **where)
        case _:
            page = await recorded.list_transactions(session, ledger, **where)
    return with_cursor(page, *scope, order=place.order, filters=place.filters)


@router.get(
    "/v1/ledgers/{ledger}/transactions/{sequence}",
    operation_id="getTransaction",
    response_model=models.TransactionState,
)
async def get_transaction(
    ledger: models.LedgerName, sequence: models.EventSequence, present: Present, caller: CallerOfRequest
) -> TransactionState:
    return await present(transactions.get_transaction, ledger, sequence, scope=caller.scope)
