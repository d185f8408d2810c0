"""Keys: make, list, revoke. Only the operator's own may."""

from typing import Annotated

from fastapi import APIRouter, Query

from app.access import api_keys
from app.access.api_keys import ApiKey, CreatedApiKey
from app.access.callers import RESERVED_LABELS
from app.api.contract import ContractRoute
from app.api.cursors import CursorPage, read_position, with_cursor
from app.deps import CallerOfRequest, KeyMaker, Session
from app.ledger.refusals import ValidationFailed
from app.ledger.scopes import OPERATIONS
from app.wire import given
from generated import models

router = APIRouter(route_class=ContractRoute, tags=["Keys"])


@router.post("/v1/api-keys", operation_id="createApiKey", response_model=models.CreatedApiKey, status_code=201)
async def create_api_key(body: models.CreateApiKeyRequest, maker: KeyMaker, caller: CallerOfRequest) -> CreatedApiKey:
    label = given(body.label) or body.name
    if label in RESERVED_LABELS:
        raise ValidationFailed([{"pointer": "/label", "message": "The label is reserved"}])
    ledgers = given(body.ledgers)
    key = ApiKey(
        name=body.name,
        label=label,
        operations=[each for each in OPERATIONS if each in body.operations],
        ledgers=None if ledgers is None else sorted(set(ledgers)),
        account_prefix=given(body.account_prefix),
        amount_max=given(body.amount_max),
        created_at=await maker.read_clock(),
        created_by=caller.label,
        expires_at=given(body.expires_at),
    )
    return await maker.create(key)


@router.get("/v1/api-keys", operation_id="listApiKeys", response_model=models.ApiKeyPage)
async def list_api_keys(
    session: Session,
    limit: Annotated[models.LimitParameter, Query()] = 100,
    cursor: Annotated[models.CursorParameter | None, Query()] = None,
) -> CursorPage:
    after = read_position(cursor, "api-keys", kind=str)
    return with_cursor(await api_keys.list_api_keys(session, after=after, limit=limit), "api-keys")


@router.post("/v1/api-keys/{api_key}/revoke", operation_id="revokeApiKey", response_model=models.ApiKey)
async def revoke_api_key(api_key: models.ApiKeyName, maker: KeyMaker, caller: CallerOfRequest) -> ApiKey:
    return await maker.revoke(api_key, by=caller.label)
