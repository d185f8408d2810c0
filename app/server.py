"""The HTTP server: uvicorn, with what it leaves open closed: slow heads, silent connections, and the stop."""

import asyncio
import errno
import os
import resource
import secrets
import socket
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any
from typing import Protocol as Shape

import httptools
import structlog
import uvicorn
from uvicorn._types import ASGIReceiveEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from app.api.problems import problem_response
from app.heads import check_head, is_simple_request
from app.ledger.refusals import MalformedRequest, Overloaded, Refusal
from app.middleware import GUARDS
from app.settings import Settings

log = structlog.get_logger()

HEAD_BYTES_MAX = 64 * 1024
HEAD_SECONDS_MAX = 10
GRACE_SECONDS = 0.2
# How long a connection that nothing has come on may stay when the listener has closed: its first request is on its way.
FIRST_REQUEST_SECONDS = 1.0
# What may still arrive of a request that was answered before it had arrived whole: a refused body, mostly.
REST_BYTES_MAX = 4 * 1024 * 1024
# What is read and passed over on a connection that is to be closed.
PASSED_OVER_BYTES_MAX = 1024 * 1024
# How long a second signal leaves to what is in flight.
QUICK_SECONDS = 3.0
# How much of the time to stop is kept for saying so to those who cannot be answered, and for closing.
LAST_SECONDS = 2.0
LOOK_SECONDS = 0.02
# How many connections at once are told that there is no room for them.
TURNED_AWAY_MAX = 64
# Files and connections of the database, beside those of the clients.
DESCRIPTORS_BESIDE = 128
# How many connections are taken at most when the listener closes. No backlog is as long.
ACCEPTED_MAX = 65_536
# In how many places a process listens, so how many new connections it takes in a turn of its event loop.
LISTENERS = 32
# The name in the lifespan's state of what the application does when the server stops.
STOPPING = "stopping"


class Stopping(Shape):
    """What an application has the server tell it of a stop, in this order."""

    def announce(self) -> None:
        """Say that it is not ready. Called from a signal handler, so it does nothing but that."""

    def release(self) -> None:
        """Answer those who only wait for something to happen."""

    def close(self) -> None:
        """Answer those who have come to wait since, and let nobody wait any more."""

    def give_up(self) -> None:
        """Answer everybody else: the time is over."""


class State(ServerState):
    """What the connections of a server share."""

    def __init__(self, connections_max: int) -> None:
        super().__init__()
        self.connections_max = connections_max
        # Those with no request in hand, the one that has been so for longest first.
        self.silent: dict[Connection, None] = {}
        self.stopping = False
        self.has_closed_listener = False


class Outlet:
    """Where an answer is written. Of one whose client has gone, nothing is left to say.

    A connection that ends tells its latest request alone, and the one that is being answered may be an earlier one.
    """

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport = transport
        self.close = close
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


class Cycle(RequestResponseCycle):
    """One request and its answer. The request may be cut off before all of it has come; it is answered all the same.

    The application alone knows whether it needs what is missing. An answer given below it, such as a 400, could deny
    what the application has done.
    """

    _is_cut = False
    _is_read = False
    _fault: MalformedRequest | None = None

    def cut(self, fault: MalformedRequest | None = None) -> None:
        """End the request where it is: because of a fault in its bytes, or because its client sends no more."""
        self._is_cut = True
        self._fault = self._fault or fault
        self.keep_alive = self.waiting_for_100_continue = False
        self.message_event.set()

    async def receive(self) -> ASGIReceiveEvent:
        """Raises the fault to a reader of a body that has one."""
        if self._is_cut:
            self.message_event.set()
        message = await super().receive()
        if message["type"] == "http.request":
            if self._is_cut and (self._is_read or message["more_body"]):
                return self._end()
            self._is_read = not message["more_body"]
        return message

    def _end(self) -> ASGIReceiveEvent:
        if self._fault is not None and self.more_body:
            raise self._fault
        self.disconnected = True
        self.transport.close()
        return {"type": "http.disconnect"}


class Connection(HttpToolsProtocol):
    """Bounds the head of a request in size and time, keeps trailers out of it, and counts with the others.

    When anything goes wrong here while a request is in hand, that request is answered first, and truthfully.
    """

    server_state: State
    cycle: Cycle
    _outlet: Outlet
    _waiting: asyncio.TimerHandle | None = None
    _closing: asyncio.TimerHandle | None = None
    _arrived = 0
    # What has arrived of a head that began with a piece.
    _head: bytearray | None = None
    _is_rest = False
    # Whether the parser is between the head of a message and its end, and whether it was so within the last piece.
    _is_in_body = False
    _was_in_body = False
    # Whether it is unknown where in a piece the present head began.
    _is_unmeasured = False
    # What is still to come of the body of a request that asked for another protocol.
    _body_left = 0
    # Whether what still arrives is passed over; whether nothing more is written; whether the client sends no more.
    _is_deaf = False
    _is_ending = False
    _is_left = False
    _passed_over = 0
    _fault: MalformedRequest | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._outlet = Outlet(transport, self._end)
        if len(self.connections) > self.server_state.connections_max and not self._make_room():
            self._turn_away()
            return
        self._wait_for_head()
        if self.server_state.has_closed_listener:
            self.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._keep_open()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer what the client asked before it stopped sending, then close."""
        if not self._is_in_hand():
            return False
        self._is_deaf = self._is_left = True
        self._stop_waiting()
        self.cycle.cut()
        return True

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            self._pass_over(data)
            return
        if self._body_left:
            self._unset_keepalive_if_required()
        left = data
        while left and not self._is_deaf and not self.transport.is_closing():
            left = self._read_body(left) if self._body_left else self._feed(left)
        if self._is_deaf or self.transport.is_closing():
            return
        if self._waiting is None and self._is_answered() and self.timeout_keep_alive_task is None:
            # The rest of a body that nobody wants, or line feeds before the next request: neither may go on for ever.
            self._wait_for_head()
            self._is_rest = True

    def _pass_over(self, data: bytes) -> None:
        self._passed_over += len(data)
        if self._passed_over > PASSED_OVER_BYTES_MAX:
            if self._is_in_hand():
                self.flow.pause_reading()
            else:
                self.transport.abort()

    def _feed(self, data: bytes) -> bytes:
        """Have the parser read a piece that is no longer than the present head may be; what is left.

        So a head that begins and ends within a piece is not too long, and one that is not over by then is.
        """
        size = HEAD_BYTES_MAX if self._waiting is None or self._is_rest else HEAD_BYTES_MAX - self._arrived
        piece = data[:size] if len(data) > size else data
        self._was_in_body = self._is_in_body
        try:
            super().data_received(piece)
        except httptools.HttpParserUpgrade as stopped:
            return data[stopped.args[0] :]
        if self._waiting is not None and not self._is_deaf:
            self._count(piece)
        return data[size:]

    def _count(self, piece: bytes) -> None:
        """Count a piece that did not bring the end of what is waited for."""
        if self._is_rest:
            self._arrived += len(piece)
            if self._arrived > REST_BYTES_MAX:
                self.transport.close()
        elif self._was_in_body:
            # It began somewhere in this piece: where its target was read last. Measured again when all of it is there.
            self._is_unmeasured = True
            start = piece.rfind(b" " + self.url) if self.url else len(piece)
            self._arrived = len(piece) - start + len(self.parser.get_method())
        else:
            self._arrived += len(piece)
            if self._head is None:
                self._head = bytearray()
            self._head += piece
            is_simple = b"\n" in piece and not self._is_unmeasured and is_simple_request(self._head)
            if is_simple or self._arrived >= HEAD_BYTES_MAX:
                self.send_400_response("The head of the request is too long, or of HTTP/0.9.")

    def _unsupported_upgrade_warning(self) -> None:
        raise

    def send_400_response(self, msg: str) -> None:
        """Reject what the parser could not read. Requests that came before it are answered instead, as the last."""
        self._is_deaf = True
        self._stop_waiting()
        fault = self._fault or MalformedRequest(pointer="")
        if not self._is_in_hand():
            if not self._is_in_body:
                self._outlet.write(closing_answer(fault, self.server_state.default_headers))
            self._end()
        elif self._is_in_body:
            self.cycle.cut(fault)
        else:
            self.cycle.keep_alive = False

    def _read_body(self, data: bytes) -> bytes:
        """Take the body of a request that asked for another protocol; what comes after it."""
        body, rest = data[: self._body_left], data[self._body_left :]
        self._body_left -= len(body)
        super().on_body(body)
        if not self._body_left:
            self.on_message_complete()
        return rest

    def _stay_with_this_protocol(self) -> None:
        """Read the request as any other, as a server that knows no other protocol should (RFC 9110, 7.8).

        The parser takes all that follows for the other protocol, and what comes later for the next request: so that
        a body could pass for a request, of somebody else behind a proxy.
        """
        headers = dict(self.scope["headers"])
        if b"transfer-encoding" in headers:
            # Nobody can tell where this body ends but the parser, which does not. Answered without it, it is the last.
            self._is_deaf = True
            self.cycle.keep_alive = False
        else:
            self._body_left = int(headers.get(b"content-length", 0))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._wait_for_head()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        self._check_head()
        super().on_headers_complete()
        self._is_in_body = True
        # uvicorn makes its own, which begins to run when this turn of the event loop is over.
        self.cycle.__class__ = Cycle
        self.cycle.transport = self._outlet  # type: ignore[assignment]
        if self.parser.should_upgrade():
            self._stay_with_this_protocol()
        # What follows are trailers, which must not pass for headers: the request keeps the list that it has.
        self.headers = []
        if self.server_state.stopping:
            # Whoever comes again opens a new connection, which the proxy leads to another process.
            self.cycle.keep_alive = False

    def _check_head(self) -> None:
        try:
            if self._is_unmeasured and self._measure_head() > HEAD_BYTES_MAX:
                raise MalformedRequest(pointer="")
            check_head(self.parser.get_http_version(), self.url, self.headers)
        except MalformedRequest as fault:
            self._fault = fault
            raise

    def _measure_head(self) -> int:
        """The bytes of a head that has been read, but for white space around values."""
        line = len(self.parser.get_method()) + len(self.url) + len("  HTTP/1.1\r\n")
        return line + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers) + len("\r\n")

    def on_message_complete(self) -> None:
        if self._body_left:
            return  # says the parser; the body of a request that asks for another protocol is still to come
        self._is_in_body = False
        self._was_in_body = True
        if not self.parser.should_keep_alive():
            self.cycle.keep_alive = False  # as a trailer may say
        super().on_message_complete()
        if self._is_rest:
            self._stop_waiting()
            self._be_idle()

    def on_response_complete(self) -> None:
        if self._is_ending:
            self.server_state.total_requests += 1
            return
        super().on_response_complete()
        if self.transport.is_closing():
            self._close_if_unread()
        elif self._is_answered():
            self.server_state.silent[self] = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._close_if_unread()

    def resume_writing(self) -> None:
        self._keep_open()
        if self._is_ending:
            self._close_soon()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        if self._is_ending or self._is_in_head():
            return  # a head is on its way: it is answered, and then the connection ends
        if self._is_in_hand():
            self.cycle.keep_alive = False
        else:
            # What has arrived already, or is about to, is read before this time is over.
            seconds = FIRST_REQUEST_SECONDS if self.cycle is None else GRACE_SECONDS
            self._keep_open()
            self._closing = self.loop.call_later(seconds, self._look_before_closing)

    def _look_before_closing(self) -> None:
        self._closing = self.loop.call_later(LOOK_SECONDS, self._close_if_idle)

    def _close_if_idle(self) -> None:
        if not self._is_in_hand() and not self._is_in_head():
            self._end()

    def _end(self) -> None:
        """Close. Where more may be on its way, first only half, for a moment in which it is read and passed over.

        What arrives at a closed connection resets it, and may take back what was written (RFC 9112, 9.6).
        """
        if self._is_left or not (self._is_deaf or self._is_in_body) or self.transport.is_closing():
            self.transport.close()
            return
        self._is_deaf = self._is_ending = True
        self._stop_waiting()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._close_soon()

    def _close_soon(self) -> None:
        self._keep_open()
        seconds = self.timeout_keep_alive if self.transport.get_write_buffer_size() else GRACE_SECONDS
        self._closing = self.loop.call_later(seconds, self.transport.abort)

    def _close_if_unread(self) -> None:
        """A client that does not read its answers would keep them, and the connection, for ever."""
        self._keep_open()
        self._closing = self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    def _keep_open(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None

    def _turn_away(self) -> None:
        """Say that there is no room, and leave a moment to read that: a plain close would take it back."""
        self._is_deaf = True
        if len(self.connections) > self.server_state.connections_max + TURNED_AWAY_MAX:
            self.transport.abort()
            return
        self.transport.write(full_house())
        self._end()

    def _is_in_hand(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _is_in_head(self) -> bool:
        return self._waiting is not None and not self._is_rest and bool(self._arrived or self._is_unmeasured)

    def _is_answered(self) -> bool:
        return self.cycle is not None and self.cycle.response_complete and not self.pipeline

    def _be_idle(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        self.server_state.silent[self] = None

    def _make_room(self) -> bool:
        """Close the connection that has been silent for longest; False if all have a request in hand."""
        silent = next(iter(self.server_state.silent), None)
        if silent is None:
            return False
        del self.server_state.silent[silent]
        silent.transport.abort()
        return True

    def _wait_for_head(self) -> None:
        self._arrived = 0
        self._head = None
        self._is_rest = self._is_unmeasured = False
        if not self._is_in_hand():
            self.server_state.silent.setdefault(self)
        if self._waiting is None:
            self._waiting = self.loop.call_later(HEAD_SECONDS_MAX, self._look_once_more)

    def _look_once_more(self) -> None:
        # If it is this process that was late, what it waits for has long arrived: it is read before this time is over.
        self._waiting = self.loop.call_later(GRACE_SECONDS, self._give_up_waiting)

    def _give_up_waiting(self) -> None:
        if self._is_in_hand():
            # A request before it is still to be answered, and meanwhile this one may not even be read.
            self._waiting = self.loop.call_later(HEAD_SECONDS_MAX, self._look_once_more)
        else:
            self.transport.close()

    def _stop_waiting(self) -> None:
        self._is_rest = False
        self.server_state.silent.pop(self, None)
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


class Server(uvicorn.Server):
    """Stops in steps, so that nobody who is in front of it, or in it, notices.

    The first signal: readiness falls, and who waits for an event is answered; for the drain time everything else goes
    on, so that a proxy can take the process out. Then the listener closes, and what was accepted is answered. What
    cannot be in time is answered with what is known of it. A second signal skips the drain, and leaves a few seconds.
    """

    config: "Config"
    server_state: State

    def __init__(self, config: "Config") -> None:
        super().__init__(config)
        self.server_state = State(config.settings.connections_max)
        self._drained = self._deadline = float("inf")
        self._released = False
        # The listening sockets once more, to take what waits there when everything else has stopped listening.
        self._backlogs: list[socket.socket] = []

    async def startup(self, sockets: list[Any] | None = None) -> None:
        self.server_state.connections_max = _get_descriptors(self.config.settings.connections_max)
        await super().startup(sockets)
        await self._accept_more_at_once()

    async def _accept_more_at_once(self) -> None:
        """Listen in several places on the same socket.

        The event loop takes one new connection in each of its turns from each. Under load a turn takes tens of
        milliseconds: from a single place, who comes then would wait for seconds to be told that there is no room.
        """
        loop = asyncio.get_running_loop()
        for listening in [each for server in self.servers for each in server.sockets]:
            self._backlogs.append(socket.socket(fileno=os.dup(listening.fileno())))
            for _ in range(LISTENERS - 1):
                again = socket.socket(fileno=os.dup(listening.fileno()))
                server = await loop.create_server(self._make_connection, sock=again, backlog=self.config.backlog)
                self.servers.append(server)

    def _make_connection(self) -> Connection:
        return Connection(self.config, server_state=self.server_state, app_state=self.lifespan.state)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._captured_signals.append(sig)
        now = time.monotonic()
        if not self.started:
            self.should_exit = True
        elif not self.server_state.stopping:
            self.server_state.stopping = True
            self._tell("announce")
            self._drained = now + self.config.settings.drain_s
            self._deadline = now + self.config.settings.shutdown_timeout_s
        else:
            self.should_exit = True
            self._deadline = min(self._deadline, now + QUICK_SECONDS)

    async def on_tick(self, counter: int) -> bool:
        if self.server_state.stopping and not self._released:
            self._released = True
            log.info("stopping", drain_s=self.config.settings.drain_s, connections=len(self.server_state.connections))
            self._tell("release")
        return await super().on_tick(counter) or time.monotonic() >= self._drained

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        self.server_state.stopping = True
        self._tell("announce")
        self._deadline = min(self._deadline, time.monotonic() + self.config.settings.shutdown_timeout_s)
        taken = self._close_listener(sockets or [])
        self._tell("close")
        loop = asyncio.get_running_loop()
        connecting = [loop.connect_accepted_socket(self._make_connection, each) for each in taken]
        await asyncio.gather(*connecting, return_exceptions=True)  # who has gone by now is not connected
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._settle(LAST_SECONDS)
        if self.server_state.tasks:
            log.warning("stop_out_of_time", requests=len(self.server_state.tasks))
            self._tell("give_up")
            await self._settle(LAST_SECONDS * 0.75)
            for task in list(self.server_state.tasks):
                task.cancel()
            await self._settle(LAST_SECONDS / 2)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        try:
            async with asyncio.timeout(max(self._deadline - time.monotonic(), LAST_SECONDS / 4)):
                await self.lifespan.shutdown()
        except TimeoutError:
            log.warning("stop_cut_short")
        log.info("stopped")

    def _close_listener(self, sockets: list[Any]) -> list[socket.socket]:
        """Stop listening; the connections that the kernel had made and the process had not accepted yet.

        Closing resets those. One that is made after the last look and before the close, some microseconds, still is:
        the kernel has no way to do both at once.
        """
        self.server_state.has_closed_listener = True
        for listener in [*self.servers, *sockets]:
            listener.close()
        taken: list[socket.socket] = []
        for backlog in self._backlogs:
            backlog.setblocking(False)
            with backlog:
                taken += _accept_all(backlog)
        if taken:
            log.info("taken_from_backlog", connections=len(taken))
        return taken

    async def _settle(self, seconds_left: float) -> None:
        """Wait until everything is answered, or until so little time is left."""
        while self.server_state.connections or self.server_state.tasks:
            if self._deadline - time.monotonic() <= seconds_left:
                return
            await asyncio.sleep(LOOK_SECONDS)

    def _tell(self, what: str) -> None:
        stopping = self.lifespan.state.get(STOPPING)
        if stopping is not None:
            getattr(stopping, what)()


def _accept_all(listening: socket.socket) -> list[socket.socket]:
    """Every connection that waits to be taken, for as long as there are descriptors."""
    taken: list[socket.socket] = []
    for _ in range(ACCEPTED_MAX):
        try:
            taken.append(listening.accept()[0])
        except BlockingIOError:
            break
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                log.warning("few_descriptors", taken=len(taken))
                break
            # Otherwise it is this one connection that has failed meanwhile (accept(2)).
    for connection in taken:
        connection.setblocking(False)
    return taken


class Config(uvicorn.Config):
    settings: Settings


def configure_server(app: Any, settings: Settings, **options: Any) -> Config:
    """How every server of ours runs the app."""
    config = Config(
        app,
        http=Connection,
        access_log=False,
        ws="none",
        log_config=None,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_s,
        # uvicorn by itself would believe whoever connects from this machine.
        proxy_headers=bool(settings.trusted_proxies.strip()),
        forwarded_allow_ips=settings.trusted_proxies,
        **options,
    )
    config.settings = settings
    return config


def closing_answer(refusal: Refusal, headers: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """An answer that belongs to no request, and is the last of its connection."""
    request_id = secrets.token_hex(16)
    said = problem_response(refusal, request_id, headers={"X-Request-Id": request_id, "Connection": "close"})
    lines = b"".join(b"%s: %s\r\n" % line for line in (*headers, *said.raw_headers, *GUARDS))
    return STATUS_LINE[said.status_code] + lines + b"\r\n" + bytes(said.body)


def full_house() -> bytes:
    """The answer to a connection for which there is no room."""
    return closing_answer(Overloaded())


def _get_descriptors(connections_max: int) -> int:
    """Let this process open as many files as it may need; how many connections there is room for."""
    wanted = connections_max + DESCRIPTORS_BESIDE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft < wanted:
        log.warning("few_descriptors", open_files_max=soft, connections_max=soft - DESCRIPTORS_BESIDE)
    return min(connections_max, soft - DESCRIPTORS_BESIDE)
