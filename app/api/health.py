"""Is it alive, and can it work?"""

from fastapi import APIRouter, Request

from app.api.contract import ContractRoute
from app.readiness import Readiness
from generated import models

router = APIRouter(route_class=ContractRoute, tags=["Service"])


@router.get("/healthz", operation_id="getHealth", response_model=models.Health)
async def get_health() -> models.Health:
    # Never asks the database: a process is not to be ended because something else is away.
    return models.Health(status="ok")


@router.get("/readyz", operation_id="getReadiness", response_model=models.Readiness)
async def get_readiness(request: Request) -> models.Readiness:
    readiness: Readiness = request.app.state.readiness
    return models.Readiness(status="ok", warnings=await readiness.check())
