"""Is it alive, and can it work?"""

from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from fastapi import APIRouter
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.api.contract import ContractRoute
from app.deps import Session
from app.ledger.refusals import StorageUnavailable
from generated import models

router = APIRouter(route_class=ContractRoute, tags=["Service"])

_ALEMBIC = Config(Path(__file__).parents[2] / "alembic.ini")
MIGRATION_HEAD = ScriptDirectory.from_config(_ALEMBIC).get_current_head()


@router.get("/healthz", operation_id="getHealth", response_model=models.Health)
async def get_health() -> models.Health:
    return models.Health(status="ok")


@router.get("/readyz", operation_id="getReadiness", response_model=models.Health)
async def get_readiness(session: Session) -> models.Health:
    try:
        applied = await session.scalar(text("select version_num from alembic_version"))
    except DBAPIError:  # no such table: nothing was migrated
        raise StorageUnavailable() from None
    if applied != MIGRATION_HEAD:
        raise StorageUnavailable()
    return models.Health(status="ok")
