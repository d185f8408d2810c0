"""What handlers may depend on: a session for reads, the writer for writes, the caller, the idempotency key."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.access import api_keys
from app.access.api_keys import ApiKey, CreatedApiKey
from app.access.callers import Caller
from app.access.known_keys import KnownKeys
from app.clock import ClockWatch
from app.db import Database
from app.ledger import queries
from app.ledger.commands import Command
from app.ledger.feed import Feed
from app.ledger.known_ledgers import LedgerRef
from app.ledger.refusals import OutcomeUnknown, Overloaded, Refusal, StorageUnavailable
from app.ledger.submissions import Receipt, Submission
from app.ledger.values import Event
from app.ledger.writer import LedgerWriter
from app.load import Load
from generated import models

# A second read finds what the first one had expired; more are needed only if clocks differ between processes.
PRESENT_READS_MAX = 5


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    """A session for reads: one snapshot, ended before the answer is sent."""
    database: Database = request.app.state.database
    async with database.sessions() as session:
        yield session


async def get_sessions(request: Request) -> async_sessionmaker[AsyncSession]:
    """Sessions for reads, for a handler that waits between them: it holds none meanwhile."""
    database: Database = request.app.state.database
    return database.sessions


async def get_feed(request: Request) -> Feed:
    feed: Feed = request.app.state.feed
    return feed


async def get_load(request: Request) -> Load:
    load: Load = request.app.state.load
    return load


class PresentReads:
    """Reads the present state of a ledger: once every hold is expired whose time had come when it was asked for."""

    def __init__(self, request: Request) -> None:
        self._sessions: async_sessionmaker[AsyncSession] = request.app.state.database.sessions
        self._writer: LedgerWriter = request.app.state.writer
        self._clock: Callable[[], datetime] = request.app.state.clock

    async def __call__[Found](
        self, read: Callable[..., Awaitable[Found]], ledger: str, *args: Any, **where: Any
    ) -> Found:
        """What `read(session, ledger, …, now=…)` finds. Raises what that does, but for `ExpiryDue`, and
        `Overloaded`, `StorageUnavailable` or `ClockSkewed` where the expiries could not be written."""
        now = self._clock()
        for _ in range(PRESENT_READS_MAX):
            try:
                async with self._sessions() as session:
                    return await read(session, ledger, *args, now=now, **where)
            except queries.ExpiryDue as due:
                await self._expire(due.ledger)
        raise Overloaded()

    async def _expire(self, ledger: LedgerRef) -> None:
        try:
            await self._writer.expire_holds(ledger)
        except OutcomeUnknown:
            # Whatever became of it, nothing that this caller asked for is in doubt.
            raise StorageUnavailable() from None


async def get_present(request: Request) -> PresentReads:
    return PresentReads(request)


class Submitter:
    """Submits a command of this request to the writer, as its caller, and says so in the answer's headers."""

    def __init__(self, request: Request, response: Response) -> None:
        self._writer: LedgerWriter = request.app.state.writer
        self._scope = request.scope
        self._response = response

    async def __call__(self, ledger: str, command: Command, *, key: bytes, fingerprint: bytes) -> Event:
        """The event that the command made, committed; or the one that its key stands for."""
        return (await self.receive(ledger, command, key=key, fingerprint=fingerprint)).event

    async def receive(self, ledger: str, command: Command, *, key: bytes, fingerprint: bytes) -> Receipt:
        """The receipt of a command that may make several events."""
        caller: Caller = self._scope["caller"]
        submission = Submission(
            command,
            key,
            fingerprint,
            caller.label,
            self._scope["request_id"],
            scope=caller.scope,
            trace=self._scope.get("trace"),
        )
        receipt = await self._writer.submit(ledger, submission)
        if receipt.replayed:
            self._response.headers["Idempotency-Replayed"] = "true"
        return receipt


async def get_submitter(request: Request, response: Response) -> Submitter:
    return Submitter(request, response)


async def get_caller(request: Request) -> Caller:
    caller: Caller = request.scope["caller"]
    return caller


async def get_key_digest(
    request: Request, key: Annotated[models.IdempotencyKey, Header(alias="Idempotency-Key")]
) -> bytes:
    """What stands for an idempotency key in its ledger: the first 16 bytes of its SHA-256.

    Callers with an account prefix have keys of their own, shared by those of the same prefix: nobody can try or use up
    the keys of others. A NUL stands in no prefix and no key, so that no two of these are the same.
    """
    prefix = request.scope["caller"].scope.prefix
    named = key if prefix is None else f"{prefix}\0{key}"
    return hashlib.sha256(named.encode()).digest()[:16]


class ApiKeyMaker:
    """Makes and revokes keys. What it did, this process knows at once, and every other within a second."""

    def __init__(self, request: Request) -> None:
        self._database: Database = request.app.state.database
        self._deadline_s: float = request.app.state.settings.write_deadline_s
        self._known: KnownKeys = request.app.state.known_keys
        self._clock: Callable[[], datetime] = request.app.state.clock
        self._watch: ClockWatch = request.app.state.watch

    async def read_clock(self) -> datetime:
        """When a key is made. Raises `ClockSkewed`, `StorageUnavailable` and `Overloaded`."""
        await self._watch.confirm()
        return self._watch.now()

    async def create(self, key: ApiKey) -> CreatedApiKey:
        """Raises what `create_api_key` does."""
        async with self._deadline():
            created = await api_keys.create_api_key(self._database.writes, key)
        await self._look()
        return created

    async def revoke(self, name: str, *, by: str) -> ApiKey:
        """The key, revoked now or before. Raises `ApiKeyNotFound`, and what `revoke_api_key` does."""
        async with self._deadline():
            # By whatever clock: no key goes on counting because a clock is wrong.
            await api_keys.revoke_api_key(self._database.writes, name, at=self._clock(), by=by)
        await self._look()
        async with self._database.sessions() as session:
            return await api_keys.get_api_key(session, name)

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._deadline_s):
                yield
        except TimeoutError:
            raise OutcomeUnknown() from None

    async def _look(self) -> None:
        with suppress(Refusal):  # It is done, and the next look that succeeds will tell this process too.
            await self._known.look()


async def get_key_maker(request: Request) -> ApiKeyMaker:
    return ApiKeyMaker(request)


Session = Annotated[AsyncSession, Depends(get_session, scope="function")]
Sessions = Annotated[async_sessionmaker[AsyncSession], Depends(get_sessions)]
FeedOfProcess = Annotated[Feed, Depends(get_feed)]
LoadOfProcess = Annotated[Load, Depends(get_load)]
Present = Annotated[PresentReads, Depends(get_present)]
CallerOfRequest = Annotated[Caller, Depends(get_caller)]
KeyMaker = Annotated[ApiKeyMaker, Depends(get_key_maker)]
Submit = Annotated[Submitter, Depends(get_submitter)]
KeyDigest = Annotated[bytes, Depends(get_key_digest)]
