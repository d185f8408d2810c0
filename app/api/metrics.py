"""What monitoring asks for."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from app.api.contract import ContractRoute
from generated import models

router = APIRouter(route_class=ContractRoute, tags=["Service"])


@router.get("/metrics", operation_id="getMetrics", response_model=models.Metrics, response_class=PlainTextResponse)
async def get_metrics(request: Request, response: Response) -> str:
    response.headers["Content-Type"] = CONTENT_TYPE_PLAIN_0_0_4
    return generate_latest(request.app.state.registry).decode()
