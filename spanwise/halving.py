"""Which of many things make an attempt at all of them fail: found by trying halves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def culprits(
    items: Iterable[Item],
    attempt: Callable[[Sequence[Item]], object],
    *,
    tries: int,
    is_of_items: Callable[[Exception], bool],
) -> tuple[dict[Item, Exception], list[Item]]:
    """Those of `items`, which failed together, that fail alone as well, and those that `tries` did not suffice for.

    All others were part of an attempt that did not raise. An error that is not of the items is raised.
    """
    blamed: dict[Item, Exception] = {}
    parts = _halves(list(items))
    while parts and tries > 0:
        tries -= 1
        part = parts.pop()
        try:
            attempt(part)
        except Exception as error:
            if not is_of_items(error):
                raise
            if len(part) == 1:
                blamed[part[0]] = error
            else:
                parts += _halves(part)
    return blamed, [item for part in parts for item in part]


def _halves(items: list[Item]) -> list[list[Item]]:
    middle = len(items) // 2
    return [half for half in (items[middle:], items[:middle]) if half]
