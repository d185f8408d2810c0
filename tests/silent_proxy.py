"""A TCP proxy before Postgres whose connections fall silent: nothing is closed, and nothing arrives any more.

This is what a NAT that forgot a connection, a host that died, or an address that moved looks like from both ends. The
proxy reads the frontend's side of the protocol, so a test names the message at which the silence begins. It runs on a
thread of its own, and so serves tests that block as well as those that await.
"""

import asyncio
import contextlib
import re
import struct
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import parse_qs, urlsplit

SSL_REQUEST, CANCEL_REQUEST = 80877103, 80877102

# What a statement is called here: the first of these that its text matches.
MESSAGES = {
    "BEGIN": r"begin",
    "COMMIT": r"commit",
    "ROLLBACK": r"rollback",
    "LISTEN": r"listen",
    "NOTIFY": r"select pg_notify",
    "LOCK": r"select 1 from heads .* for no key update",
    "WRITE": r".*insert into events",
    "LOOK": r"select epoch\.\*, name, label, secret_digest",
    "CHECK": r"with needed as",
    "INITIALIZE": r"select pg_catalog\.version",
    "FIND": r"select ledger_id, identity from ledgers join heads",
    "LOCK TABLE": r"lock table heads",
    "GRANT": r"grant",
    "KEY LOCK": r"select pg_advisory_xact_lock",
    "KEY WRITE": r"(insert into|update) api_keys",
    "READ": r"(with|select) ",
}


def name_statement(text: str) -> str:
    return next((name for name, form in MESSAGES.items() if re.match(rf"\s*{form}", text, re.I | re.S)), "OTHER")


@dataclass(frozen=True)
class Silence:
    """Where a silence begins: at a message of the connections with this application name.

    The server still gets the message if `delivered`; its reply goes nowhere. `everywhere` makes every connection that
    stands at that moment silent, and not this one alone.
    """

    application: str
    message: str
    delivered: bool = False
    everywhere: bool = False
    # The number of such messages that pass before.
    after: int = 0


@dataclass(eq=False)
class Way:
    """One connection of the service, and the proxy's own to the server."""

    application: str = ""
    silent: bool = False
    statements: dict[bytes, str] = field(default_factory=dict)
    buffer: bytes = b""
    started: bool = False
    # Whether the message read last is one of several that end with Sync.
    extended: bool = False


class SilentProxy:
    """Use as a context manager; `url` is the address of the database through the proxy."""

    def __init__(self, database: str) -> None:
        parts = urlsplit(database)
        self._folder = parse_qs(parts.query).get("host", [None])[0]
        self._parts = parts
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._ways: set[Way] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._silence: Silence | None = None
        self._held: tuple[str, str] | None = None
        self._release = asyncio.Event()
        self.holds = threading.Event()
        # Set when the silence has begun, with its time.
        self.fell = threading.Event()
        self.fell_at = 0.0
        # What each application has sent, in order.
        self.seen: list[tuple[str, str]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"postgresql+asyncpg://postgres@127.0.0.1:{port}{self._parts.path}?ssl=disable"
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def fall_silent(self, silence: Silence) -> None:
        """Let a connection fall silent at the next message of this kind."""
        self.fell.clear()
        self._count = silence.after
        self._silence = silence

    def fall_silent_now(self) -> None:
        """Let every connection that stands fall silent."""

        async def fall() -> None:
            self._fall(self._ways)

        self._call(fall())

    def hold(self, application: str, message: str) -> None:
        """Keep the next message of this kind back until it is let go."""
        self.holds.clear()
        self._release.clear()
        self._held = (application, message)

    def let_go(self) -> None:
        self._loop.call_soon_threadsafe(self._release.set)

    def count(self, application: str, message: str) -> int:
        return self.seen.count((application, message))

    def _call(self, awaitable):
        async def run():
            return await awaitable

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._folder is None:
            server = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        else:
            server = await asyncio.open_unix_connection(f"{self._folder}/.s.PGSQL.5432")
        way = Way()
        self._ways.add(way)
        try:
            with contextlib.suppress(ConnectionError):
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._forward(way, reader, server[1]))
                    both.create_task(self._back(way, server[0], writer))
        finally:
            self._ways.discard(way)
            for end in (writer, server[1]):
                end.close()

    async def _forward(self, way: Way, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        async for message, name in self._read_messages(way, reader):
            if name is not None:
                self.seen.append((way.application, name))
                if self._held == (way.application, name):
                    self._held = None
                    self.holds.set()
                    await self._release.wait()
                if self._begins(way, name):
                    if self._silence.delivered:
                        # With the messages that belong to it, so that the server carries it out.
                        server.write(message + await self._read_rest(way, reader))
                        await server.drain()
                    self._fall(self._ways if self._silence.everywhere else {way})
                    self._silence = None
            if way.silent:
                await _for_ever()
            server.write(message)
            await server.drain()
        if way.silent:
            await _for_ever()
        server.write_eof()

    async def _back(self, way: Way, server: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await server.read(65536):
            if way.silent:
                await _for_ever()
            writer.write(data)
            await writer.drain()
        if way.silent:
            await _for_ever()
        writer.close()

    def _begins(self, way: Way, name: str) -> bool:
        silence = self._silence
        if silence is None or (silence.application, silence.message) != (way.application, name):
            return False
        self._count -= 1
        return self._count < 0

    def _fall(self, ways: set[Way]) -> None:
        for way in ways:
            way.silent = True
        self.fell_at = time.monotonic()
        self.fell.set()

    async def _read_messages(self, way: Way, reader: asyncio.StreamReader) -> AsyncIterator[tuple[bytes, str | None]]:
        """Each message of the frontend, and what it is called if it carries out a statement or begins a session."""
        while True:
            message = self._cut(way)
            if message is not None:
                yield message, self._name(way, message)
                continue
            data = await reader.read(65536)
            if not data:
                return
            way.buffer += data

    async def _read_rest(self, way: Way, reader: asyncio.StreamReader) -> bytes:
        """The messages up to Sync, if the statement is one of several messages."""
        rest = b""
        while not rest.endswith(b"S\x00\x00\x00\x04") and way.extended:
            message = self._cut(way)
            if message is None:
                way.buffer += await reader.read(65536)
            else:
                rest += message
        return rest

    def _cut(self, way: Way) -> bytes | None:
        """The first whole message of what has come; the first ones of a session have no type."""
        head = 5 if way.started else 4
        if len(way.buffer) < head:
            return None
        (length,) = struct.unpack("!i", way.buffer[head - 4 : head])
        end = length + head - 4
        if len(way.buffer) < end:
            return None
        message, way.buffer = way.buffer[:end], way.buffer[end:]
        return message

    def _name(self, way: Way, message: bytes) -> str | None:
        way.extended = False
        if not way.started:
            (code,) = struct.unpack("!i", message[4:8])
            if code in (SSL_REQUEST, CANCEL_REQUEST):
                return None
            way.started = True
            values = message[8:].split(b"\0")
            settings = dict(zip(values[::2], values[1::2], strict=False))
            way.application = settings.get(b"application_name", b"").decode().removeprefix("tallystick-")
            return "STARTUP"
        kind, body = message[:1], message[5:]
        if kind == b"Q":
            return name_statement(body[:-1].decode())
        if kind == b"P":
            name, text, _ = body.split(b"\0", 2)
            way.statements[name] = text.decode()
        elif kind == b"B":
            way.extended = True
            _, name, _ = body.split(b"\0", 2)
            return name_statement(way.statements[name])
        return None


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()
