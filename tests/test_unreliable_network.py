"""The network of the fault campaign: what is cut on its way was said or not, and what is silent goes on."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest

from tests.unreliable_network import Direction, UnreliableNetwork

pytestmark = pytest.mark.anyio
MESSAGE = b"tallystick-writer says this"
PATIENCE_S = 60


class Chosen(random.Random):
    """A seed that chooses the next message in one direction."""

    def __init__(self, direction: Direction) -> None:
        super().__init__(1)
        self.direction = direction

    def choice(self, options):
        return self.direction if self.direction in options else options[0]

    def randrange(self, *_):
        return 0


@contextlib.asynccontextmanager
async def echoing(folder) -> AsyncIterator[tuple[UnreliableNetwork, list[bytes]]]:
    """A network in front of a server that answers each message with itself, and what the server was told."""
    heard: list[bytes] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1000):
                heard.append(data)
                writer.write(data)
                await writer.drain()
        writer.close()

    path = str(folder / "echo")
    server = await asyncio.start_unix_server(echo, path)
    try:
        async with UnreliableNetwork(lambda: path) as network:
            yield network, heard
    finally:
        server.close()


async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """What is answered to the message; nothing if the connection ends."""
    writer.write(MESSAGE)
    async with asyncio.timeout(PATIENCE_S):
        try:
            return await reader.read(1000)
        except ConnectionError:
            return b""


@pytest.mark.parametrize(("direction", "count"), [(Direction.TO_SERVER, 1), (Direction.TO_CLIENT, 2)])
async def test_what_is_cut_was_said_or_not(tmp_path, direction, count):
    """Cut on the way there, the server has not heard it; cut on the way back, it has."""
    async with echoing(tmp_path) as (network, heard):
        reader, writer = await asyncio.open_connection("127.0.0.1", network.port)
        assert MESSAGE == await say(reader, writer)
        assert network.cut(Chosen(direction))
        assert b"" == await say(reader, writer)
        assert [MESSAGE] * count == heard
        writer.close()


@pytest.mark.parametrize("direction", [*Direction])
async def test_what_is_silent_goes_on(tmp_path, direction):
    """Nothing arrives for so long, and then all of it does."""
    async with echoing(tmp_path) as (network, heard):
        reader, writer = await asyncio.open_connection("127.0.0.1", network.port)
        assert MESSAGE == await say(reader, writer)
        began = asyncio.get_running_loop().time()
        assert network.silence(Chosen(direction), 0.5)
        assert MESSAGE == await say(reader, writer)
        assert asyncio.get_running_loop().time() - began > 0.4
        assert [MESSAGE] * 2 == heard
        writer.close()


async def test_a_server_that_is_away_is_not_connected_to(tmp_path):
    async with UnreliableNetwork(lambda: str(tmp_path / "nothing")) as network:
        assert not network.cut(random.Random(1))
        reader, writer = await asyncio.open_connection("127.0.0.1", network.port)
        assert b"" == await say(reader, writer)
        writer.close()
