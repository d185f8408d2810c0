"""Work that goes on beside the requests of a process."""

import asyncio
from contextvars import Context


class Background:
    """One task on the event loop of its process, from `start` until `close`."""

    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        # A context of its own: a task inherits its maker's.
        self._task = asyncio.create_task(self._run(), context=Context())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        """Goes on until it is cancelled."""
        raise NotImplementedError
