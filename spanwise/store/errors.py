"""What can go wrong with a store, in the words of whoever has to act on it."""

from __future__ import annotations

import re
from typing import Final

_CODE = re.compile(r"Code: (\d+)\.")
_NAME = re.compile(r"\(([A-Z][A-Z0-9_]{2,})\)")

PERMANENT: Final = frozenset(
    {
        6,  # CANNOT_PARSE_TEXT
        69,  # ARGUMENT_OUT_OF_BOUND
        70,  # CANNOT_CONVERT_TYPE
        72,  # CANNOT_PARSE_NUMBER
        117,  # INCORRECT_DATA
        128,  # TOO_LARGE_ARRAY_SIZE
        131,  # TOO_LARGE_STRING_SIZE
        321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
        349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        407,  # DECIMAL_OVERFLOW
        469,  # VIOLATED_CONSTRAINT
    }
)
"""ClickHouse error codes that are about a value in a row: the same row will fail again."""


class StoreError(Exception):
    """The store did not do what it was asked; it may do so later.

    `code` and `name` are ClickHouse's (0 and '' if it never answered). The text never holds stored values.
    """

    def __init__(self, doing: str, *, code: int = 0, name: str = "") -> None:
        super().__init__(f"{doing}: ClickHouse error {code} {name}".rstrip() if code else doing)
        self.code = code
        self.name = name

    @property
    def permanent(self) -> bool:
        """True if the same rows will fail again."""
        return self.code in PERMANENT


class StoreConfigError(Exception):
    """The store cannot be used as configured; the text says what to change."""


class QueryError(Exception):
    """A query cannot be answered; the text is for whoever wrote the query.

    `code` and `name` are ClickHouse's, for those who speak its protocol (0 and '' where none fits).
    """

    def __init__(self, text: str, *, code: int = 0, name: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.name = name


def code_of(error: BaseException) -> tuple[int, str]:
    """The ClickHouse error code and name in a driver's exception, (0, '') if there is none."""
    text = str(error)
    code = getattr(error, "code", None)
    match = _CODE.search(text)
    if not code and match:
        code = int(match.group(1))
    names = _NAME.findall(text)
    return (code or 0, names[-1] if code and names else "")
