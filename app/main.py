"""The application: its parts put together, its routes mounted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog
from fastapi import FastAPI

from app.access.authentication import Authentication
from app.access.known_keys import KnownKeys
from app.access.rates import Buckets
from app.access.tokens import Tokens
from app.api import (
    accounts,
    balances,
    docs,
    events,
    health,
    holds,
    keys,
    ledgers,
    metrics,
    periods,
    transactions,
    verification,
)
from app.api.compression import Compressor
from app.api.contract import CONTRACT
from app.api.cors import Cors
from app.api.problems import add_problem_handlers
from app.clock import ClockWatch
from app.counts import RequestCounts, VerificationCounts
from app.db import Database
from app.errors import configure_error_reports
from app.ledger.expiry import Sweeper
from app.ledger.feed import Feed
from app.ledger.writer import LedgerWriter
from app.load import Load
from app.logs import configure_logging
from app.metrics import ServiceCollector, make_registry
from app.middleware import RequestMiddleware
from app.readiness import Readiness
from app.server import STOPPING
from app.settings import Settings

if TYPE_CHECKING:
    from app.traces import Traces

log = structlog.get_logger()


def system_clock() -> datetime:
    return datetime.now(UTC)


class Stop:
    """What a stop means to the parts of the application; the server says when (app/server.py)."""

    def __init__(self, readiness: Readiness, feed: Feed, writer: LedgerWriter) -> None:
        self._readiness = readiness
        self.release = feed.release
        self.close = feed.stop
        self.give_up = writer.give_up

    def announce(self) -> None:
        self._readiness.stopping = True


@asynccontextmanager
async def run_parts(app: FastAPI, traces: Traces | None) -> AsyncIterator[dict[str, Any]]:
    """The parts that work as long as the service does: made and started, and at the end drained and closed."""
    settings: Settings = app.state.settings
    clock: Callable[[], datetime] = app.state.clock
    app.state.database = Database(settings)
    app.state.watch = ClockWatch(app.state.database, clock, skew_max_s=settings.clock_skew_max_s)
    app.state.known_keys = KnownKeys(app.state.database.keys, drop=app.state.database.ledgers.clear)
    tokens = _tokens(settings, clock)
    app.state.authentication = Authentication(
        settings.actors(), app.state.known_keys, tokens, clock, open_to_all=settings.lets_everybody_in
    )
    app.state.key_rates = Buckets(per_s=settings.key_requests_per_s, burst=settings.key_burst)
    app.state.address_rates = Buckets(per_s=settings.address_failures_per_s, burst=settings.address_failure_burst)
    app.state.feed = Feed(app.state.database, waiters_max=settings.feed_waiters_max)
    app.state.writer = LedgerWriter(
        app.state.database,
        clock,
        deadline_s=settings.write_deadline_s,
        watch=app.state.watch,
        tell=app.state.feed.tell,
        trace=traces.batch if traces else None,
    )
    app.state.readiness = Readiness(
        app.state.database, app.state.writer, app.state.watch, allow_unsafe=settings.allow_unsafe_database
    )
    app.state.registry = make_registry(
        ServiceCollector(
            CONTRACT.document["info"]["version"], app.state.requests, app.state.verifications, app.state.writer,
            app.state.feed, app.state.database, app.state.watch,
        )
    )  # fmt: skip
    sweeper = Sweeper(app.state.database, app.state.writer, app.state.watch, connections=settings.write_pool_size)
    app.state.watch.start()
    app.state.known_keys.start()
    if tokens is not None:
        tokens.keys.start()
    app.state.feed.start()
    sweeper.start()
    if settings.lets_everybody_in:
        log.warning("no_api_key", detail="Serving without authentication, for development only.")
    yield {STOPPING: Stop(app.state.readiness, app.state.feed, app.state.writer)}
    await sweeper.close()
    await app.state.writer.drain()
    await app.state.feed.close()
    await app.state.known_keys.close()
    await app.state.watch.close()
    if tokens is not None:
        await tokens.keys.close()
    await app.state.database.close()
    if traces:
        await traces.close()


def create_app(settings: Settings | None = None, clock: Callable[[], datetime] = system_clock) -> FastAPI:
    """The service. `clock` is the only clock that the ledger knows; it answers aware datetimes in UTC."""
    settings = settings or Settings()
    configure_logging(settings)
    configure_error_reports(settings)
    traces = make_traces(settings)

    app = FastAPI(
        title=CONTRACT.document["info"]["title"],
        lifespan=lambda app: run_parts(app, traces),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.openapi = lambda: CONTRACT.document  # type: ignore[method-assign]  # FastAPI documents this way
    app.state.settings = settings
    app.state.clock = clock
    app.state.compressor = Compressor()
    app.state.requests = RequestCounts(CONTRACT.operations)
    app.state.verifications = VerificationCounts()
    app.state.open_operations = frozenset({"getMetrics"} if settings.metrics == "open" else ())
    app.state.load = Load(requests_max=settings.requests_max, body_bytes_max=settings.body_memory_mib << 20)
    origins = settings.origins()
    cors = Cors(origins, CONTRACT) if origins else None
    app.add_middleware(RequestMiddleware, load=app.state.load, counts=app.state.requests, traces=traces, cors=cors)
    add_problem_handlers(app)
    resources = [transactions, holds, accounts, balances, ledgers, periods, events, verification, keys, health]
    resources += [metrics] if settings.metrics != "closed" else []
    resources += [docs] if settings.docs != "closed" else []
    for resource in resources:
        # As they are: a router that is included is matched by way of a copy, which costs every request.
        app.router.routes.extend(resource.router.routes)
    return app


def make_traces(settings: Settings) -> Traces | None:
    """The service's traces, if they have somewhere to go. Raises ValueError if what makes them is not installed."""
    if settings.traces_endpoint is None:
        return None
    try:
        from app.traces import Traces
    except ModuleNotFoundError as error:
        raise ValueError("TRACES_ENDPOINT is set, but the group `traces` is not installed") from error
    return Traces(settings, version=CONTRACT.document["info"]["version"])


def _tokens(settings: Settings, clock: Callable[[], datetime]) -> Tokens | None:
    if not settings.jwt_issuer:
        return None
    return Tokens(
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        jwks=settings.jwt_jwks,
        claim=settings.jwt_claim,
        clock=clock,
    )


def __getattr__(name: str) -> FastAPI:
    # `uvicorn app.main:app` makes the service from the environment; importing this module alone needs none.
    if name == "app":
        return create_app()
    raise AttributeError(name)
