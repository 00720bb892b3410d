"""Hold little memory that nothing uses: what Python, Arrow and the decoder freed stays with an allocator at first."""

from __future__ import annotations

import ctypes
import platform

import pyarrow as pa

_M_ARENA_MAX = -8
_ARENAS = 2
"""One for the thread that prepares rows and one for the thread that stores them; glibc's default is 8 a core."""


def share_heaps() -> None:
    """Let Arrow and all threads take memory from the same few heaps. Call it before there are threads.

    Heaps of their own keep what they once needed at their peak: about 100 MiB more under load, and no faster.
    """
    pa.set_memory_pool(pa.system_memory_pool())
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def return_freed_memory() -> None:
    """Return free pages of the heap to the system; does nothing where the C library is not glibc.

    After 300,000 spans this was 280 MiB. Having large buffers mapped one by one instead keeps the heap small under load
    too, and costs a quarter of the throughput of agent traces in page faults.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
