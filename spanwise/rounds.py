"""Work that comes round again, on a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Rounds:
    """Calls `work` after `first_s` seconds, and again after as many as it returns each time, until it is stopped.

    `work` raises nothing: what to do about a failure, and how soon, is its own decision.
    """

    def __init__(self, name: str, work: Callable[[], float], first_s: float) -> None:
        self._work = work
        self._first_s = first_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    @property
    def stopping(self) -> bool:
        """A long round looks at it now and then, and ends early."""
        return self._stop.is_set()

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Begin no other round and wait for the one that runs; True if it ended in time, or none was ever started."""
        self._stop.set()
        if self.running:
            self._thread.join(timeout_s)
        return not self.running

    def _run(self) -> None:
        pause_s = self._first_s
        while not self._stop.wait(pause_s):
            pause_s = self._work()
