"""The log of a ledger, and its feed."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.requests import ClientDisconnect

from app.api.contract import ContractRoute
from app.api.edge import identify, read_headers
from app.deps import FeedOfProcess, LoadOfProcess, Sessions
from app.ledger import recorded
from generated import models

router = APIRouter(route_class=ContractRoute, tags=["Events"])


@router.get("/v1/ledgers/{ledger}/events", operation_id="listEvents", response_model=models.EventPage)
async def list_events(
    ledger: models.LedgerName,
    sessions: Sessions,
    feed: FeedOfProcess,
    load: LoadOfProcess,
    request: Request,
    after_sequence: Annotated[models.AfterSequenceParameter, Query()] = 0,
    limit: Annotated[models.LimitParameter, Query()] = 100,
    wait_seconds: Annotated[models.WaitSecondsParameter, Query()] = 0,
) -> recorded.LogPage:
    async with sessions() as session:
        page = await recorded.list_events(session, ledger, after=after_sequence, limit=limit)
    # Whoever reads on is known by the label of the key.
    feed.counts.asked(request.scope["caller"].shown, ledger, behind=page.sequence - after_sequence)
    if page.items or not wait_seconds:
        return page
    following = feed.list_next_events(ledger, after=after_sequence, limit=limit, wait_s=wait_seconds)
    with load.aside():
        page = await _unless_gone(request, following)
    # Whose key was revoked, or has expired, while he waited, is told nothing more.
    await identify(request, read_headers(request))
    return page


async def _unless_gone[Answer](request: Request, answer: Coroutine[Any, Any, Answer]) -> Answer:
    """The answer; or `ClientDisconnect`, with nothing left behind, if its client goes away first."""
    answering = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_until_gone(request))
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return await answering
        await leaving  # raises what is wrong with a body that should not be there
        raise ClientDisconnect()
    finally:
        for task in (answering, leaving):
            task.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)


async def _until_gone(request: Request) -> None:
    # A GET has no body to wait for: what comes, if anything, is passed over.
    with suppress(ClientDisconnect):
        async for _ in request.stream():
            pass
        while (await request.receive())["type"] != "http.disconnect":
            pass
