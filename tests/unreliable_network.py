"""A way from the service to Postgres on which connections are cut, or fall silent for a while, at a seeded moment."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

CHUNK_BYTES = 65_536
WRITER = b"tallystick-writer"


class Direction(StrEnum):
    TO_SERVER = "to the server"
    TO_CLIENT = "to the client"


@dataclass(eq=False)
class Link:
    """One connection, and what is to happen to it after so many more chunks in one direction."""

    is_writers: bool = False
    armed: tuple[Direction, int, float | None] | None = None
    speaks: asyncio.Event = field(default_factory=asyncio.Event)
    close: Callable[[], None] = lambda: None


class UnreliableNetwork:
    """Forwards TCP connections to a Unix socket, which may change its place.

    What is cut before it reaches the server was never said. What is cut on the way back was done, and nobody hears
    of it. A silent connection stays open, forwards nothing for a while, and then goes on.
    """

    def __init__(self, find_socket: Callable[[], str]) -> None:
        self._find_socket = find_socket
        self._links: list[Link] = []
        self._serving: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> "UnreliableNetwork":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for timer in self._timers:
            timer.cancel()
        for link in self._links:
            link.speaks.set()
            link.close()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def cut(self, chance: random.Random) -> bool:
        """Cut one connection at one of its next messages, before or after the server has it; False if there is none."""
        return self._arm(chance, None)

    def silence(self, chance: random.Random, seconds: float) -> bool:
        """Have one connection, at one of its next messages, forward nothing for so long; False if there is none."""
        return self._arm(chance, seconds)

    def _arm(self, chance: random.Random, seconds: float | None) -> bool:
        writers = [link for link in self._links if link.is_writers and link.armed is None]
        others = [link for link in self._links if not link.is_writers and link.armed is None]
        links = writers if writers and chance.random() < 0.8 else others or writers
        if not links:
            return False
        chance.choice(links).armed = (chance.choice([*Direction]), chance.randrange(8), seconds)
        return True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        link = Link()
        link.speaks.set()
        try:
            up_reader, up_writer = await asyncio.open_unix_connection(self._find_socket())
        except OSError:
            writer.close()
            self._serving.discard(task)
            return

        def close() -> None:
            for end in (writer, up_writer):
                end.transport.abort()

        link.close = close
        self._links.append(link)
        try:
            await asyncio.gather(
                self._forward(link, reader, up_writer, Direction.TO_SERVER),
                self._forward(link, up_reader, writer, Direction.TO_CLIENT),
            )
        finally:
            self._links.remove(link)
            self._serving.discard(task)
            close()

    async def _forward(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                link.is_writers = link.is_writers or WRITER in data
                self._act(link, direction)
                await link.speaks.wait()
                if writer.transport.is_closing():
                    return
                writer.write(data)
                await writer.drain()
        if not writer.transport.is_closing():  # one end has closed in order: let the other know, with all that was said
            writer.close()

    def _act(self, link: Link, direction: Direction) -> None:
        if link.armed is None or link.armed[0] != direction:
            return
        _, chunks, seconds = link.armed
        if chunks:
            link.armed = (direction, chunks - 1, seconds)
            return
        link.armed = None
        if seconds is None:
            link.close()
        else:
            link.speaks.clear()
            self._timers.add(asyncio.get_running_loop().call_later(seconds, link.speaks.set))
