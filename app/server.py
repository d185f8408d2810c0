"""The HTTP server: uvicorn, with what it leaves open at its head closed."""

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.settings import Settings

HEAD_BYTES_MAX = 64 * 1024
HEAD_SECONDS_MAX = 10
# The name in the lifespan's state of what the application wants called when the server begins to stop.
STOPPING = "stopping"


class Protocol(HttpToolsProtocol):
    """Bounds the head of a request in size and time, and keeps trailers out of it."""

    _waiting: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # As long as we wait for the end of a head, all that arrived belongs to it.
        if self._waiting is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
                self.send_400_response("The head of the request is too long.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._wait_for_head()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()
        # What follows are trailers, which must not pass for headers: the request keeps the list that it has.
        self.headers = []

    def shutdown(self) -> None:
        # The server calls this for every connection before it waits for the requests in flight: who waits for an
        # event has to be answered now, or the stop would wait for them too. A lifespan ends only after that.
        stopping = self.app_state.get(STOPPING)
        if stopping is not None:
            stopping()
        super().shutdown()

    def _wait_for_head(self) -> None:
        self._head_bytes = 0
        if self._waiting is None:
            self._waiting = self.loop.call_later(HEAD_SECONDS_MAX, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


def configure_server(app: Any, settings: Settings, **options: Any) -> uvicorn.Config:
    """How every server of ours runs the app."""
    return uvicorn.Config(
        app,
        http=Protocol,
        access_log=False,
        log_config=None,
        server_header=False,
        # uvicorn by itself would believe whoever connects from this machine.
        proxy_headers=bool(settings.trusted_proxies.strip()),
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_graceful_shutdown=settings.shutdown_timeout_s,
        **options,
    )
