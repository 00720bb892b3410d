"""Whether the disk has room: the cap, the free-space floor and the ballast."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

_LOOK_EVERY_S: Final = 0.05
_CHUNK: Final = bytes(1 << 20)


class Space:
    """Free space of the directory's file system, looked up at most every 50 ms and counted down in between."""

    def __init__(
        self,
        directory: Path,
        *,
        free_bytes_min: int,
        free_fraction_min: float,
        ballast_bytes: int,
        monotonic: Callable[[], float],
    ) -> None:
        self._directory = directory
        self._free_bytes_min = free_bytes_min
        self._free_fraction_min = free_fraction_min
        self._ballast_bytes = ballast_bytes
        self._ballast = directory / "ballast"
        self._monotonic = monotonic
        self._looked_at = float("-inf")
        self._free = 0
        self._floor = 0

    def free_above_floor(self) -> int:
        """Bytes that may be written before the floor is reached; negative below it."""
        free, floor = self.free_and_floor()
        return free - floor

    def free_and_floor(self) -> tuple[int, int]:
        """Bytes that are free, and how many of them have to stay so."""
        now = self._monotonic()
        if now - self._looked_at >= _LOOK_EVERY_S:
            self._look(now)
        return self._free, self._floor

    def wrote(self, size: int) -> None:
        """Count bytes written since the last look, or 50 ms of a fast disk would go unseen."""
        self._free -= size

    def _look(self, now: float) -> None:
        self._looked_at = now
        try:
            found = os.statvfs(self._directory)
        except OSError:  # the directory is gone: no room
            self._free = 0
            return
        self._free = found.f_bavail * found.f_frsize
        self._floor = max(self._free_bytes_min, int(self._free_fraction_min * found.f_blocks * found.f_frsize))

    def keep_ballast(self) -> None:
        """Write the ballast anew once there is ample room for it, give it up when the disk is all but full."""
        above = self.free_above_floor()
        held = self._ballast.exists() and self._ballast.stat().st_size == self._ballast_bytes
        if held and self._free < self._ballast_bytes // 8:
            self.drop_ballast()
        elif not held and self._ballast_bytes and above >= 2 * self._ballast_bytes:
            try:
                with self._ballast.open("wb", buffering=0) as out:
                    if hasattr(os, "posix_fallocate"):
                        os.posix_fallocate(out.fileno(), 0, self._ballast_bytes)
                    else:  # macOS
                        for start in range(0, self._ballast_bytes, len(_CHUNK)):
                            out.write(_CHUNK[: self._ballast_bytes - start])
            except OSError:
                self.drop_ballast()
            self._looked_at = float("-inf")

    def drop_ballast(self) -> bool:
        """True if there was any to give up."""
        self._looked_at = float("-inf")
        with suppress(OSError):
            self._ballast.unlink()
            return True
        return False
