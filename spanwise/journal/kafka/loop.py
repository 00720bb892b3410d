"""An event loop on a thread of its own: the Kafka client lives there, so that nothing else delays its heartbeats."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar
from weakref import WeakSet

T = TypeVar("T")
_END_S: Final = 10.0


class _Loop(asyncio.SelectorEventLoop):
    """Knows its connections. The client waits for the end of most of them when it is closed, but not for that of the
    one it began with, which takes as long over TLS as the broker takes to answer the goodbye."""

    def __init__(self) -> None:
        super().__init__()
        self._connections: WeakSet[asyncio.Transport] = WeakSet()

    async def create_connection(self, *arguments: Any, **options: Any) -> Any:
        made = await super().create_connection(*arguments, **options)
        self._connections.add(made[0])
        return made

    async def drop_connections(self) -> None:
        for connection in self._connections:
            connection.abort()
        await asyncio.sleep(0)  # their sockets are closed in the next round


class LoopThread:
    """Runs coroutines for callers on other threads and loops."""

    def __init__(self, name: str) -> None:
        self._loop = _Loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float | None) -> T:
        """Wait for `work`. Raises TimeoutError, after which it goes on being cancelled."""
        running = self.submit(work)
        try:
            return running.result(timeout_s)
        except TimeoutError:
            running.cancel()
            raise

    def close(self) -> None:
        """Cancel what still runs, drop the connections that are left, and end the thread."""

        async def cancel() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._loop.drop_connections()

        self.run(cancel(), _END_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_END_S)
        if not self._thread.is_alive():
            self._loop.close()
