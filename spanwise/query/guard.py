"""Which statements of users are answered: reads of the store, and nothing else.

`readonly` keeps a query from changing the store, but not from writing a file: `INTO OUTFILE` is carried out by the
client, and in embedded mode that is this process. Nor does it stop `SELECT file('...')`, which reads any file of the
machine, or `DESCRIBE url('...')`, which asks any address. A function need not be called to run: `arrayMap(file, [...])`
and `APPLY file` name it only. The store's own parser decides what is a keyword and what is a name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from spanwise.store import QueryError, load_sql

_READS: Final = re.compile(r"\(*(SELECT|WITH)\b")
# EXISTS only of our own tables, without a database.
_DESCRIBES: Final = re.compile(r"(SHOW|DESCRIBE|EXPLAIN)\b|EXISTS( TABLE| VIEW)? \w+$")
_CALLED: Final = re.compile(r"(\w+)\s*\(")
_NAMED: Final = re.compile(r"(?<![\w.])(?<! AS )(\w+)")
"""Names but for those that only give a name: `x AS file`, `t.file`."""
_FILES: Final = re.compile(r"\bdefault\.", re.IGNORECASE)
"""Anything of chDB's database `default`, which answers for any path of the machine."""
_PLACES: Final = re.compile(r"\{(\w+):([^}]+)\}")
_INSIDE: Final = frozenset(
    {"format", "generaterandom", "generateseries", "generate_series", "merge", "null", "numbers", "numbers_mt"}
    | {"primes", "values", "view", "zeros", "zeros_mt"}
)
"""Table functions, in lower case, that touch nothing but the store; all others are refused, also those to come."""
_OUTSIDE: Final = re.compile(
    r"file|hascolumnintable|reversednsquery|ai(classify|embed|extract|filter|generate|redact|"
    r"similarity|translate)"
)
"""Ordinary functions, in lower case, that read files or talk to other machines. `readonly` stops none of them."""
# What formatQuery quotes: strings and identifiers, with a backslash before any quote inside.
_QUOTED: Final = re.compile(r"""'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_OUTFILE: Final = re.compile(r"\bOUTFILE\b")
_FORMAT: Final = re.compile(r" FORMAT (\w+)(?= SETTINGS [^()]*$|$)")
"""The clause at the very end of a statement, where only SETTINGS may follow."""
_SETTING: Final = r"\w+ = (?:'[^']*'|[\w.+-]+)"
_SETTINGS: Final = re.compile(rf" SETTINGS ({_SETTING}(?:, {_SETTING})*)$")
"""At the very end too."""
_INNER_SETTINGS: Final = re.compile(r"\bSETTINGS\b")
"""The engine takes them from a subquery without a look at what may be set."""
_CHANGE: Final = re.compile(r"(\w+) = (?:'((?:[^'\\]|\\.)*)'|([\w.+-]+))", re.DOTALL)
Ask: TypeAlias = Callable[[str, Mapping[str, Any], str], bytes]
"""Answers (statement, parameters, format) with all bytes."""


class Checked(NamedTuple):
    statement: str
    """As the store's own parser writes it, without FORMAT and SETTINGS. This may run, not the text it was made from."""
    format: str
    """What the statement itself asks for, '' if it does not."""
    streams: bool
    """True for a SELECT, False for a statement that describes."""
    settings: Mapping[str, str]
    """What the statement itself wants to set: not checked."""
    parameters: frozenset[str]
    """Those that the statement has a place for."""


class Guard:
    """Checks statements with the parser of a store. May be used by several threads at once."""

    def __init__(self, *, embedded: bool) -> None:
        self._embedded = embedded
        self._table_functions: frozenset[str] | None = None

    def checked(self, statement: str, ask: Ask) -> Checked:
        """Raises QueryError for everything but reads."""
        asked = {"statement": statement.strip().rstrip(";")}
        canonical = ask(load_sql("spanwise.query", "canonical"), asked, "RawBLOB").decode()
        words = _QUOTED.sub(lambda quoted: "'" + " " * (len(quoted.group()) - 2) + "'", canonical)
        if _OUTFILE.search(words):
            raise _forbidden("INTO OUTFILE is not allowed: choose a format and save the answer where you ask")
        self._check_functions(words, ask)
        if self._embedded and _FILES.search(words):
            raise _forbidden("the database default is not allowed: it stands for the files of the machine")
        places = dict(_PLACES.findall(words))
        for name, type_ in places.items():
            if type_.strip().lower() == "identifier":
                raise _forbidden(f"the parameter {name} is a name: write names into the statement itself")
        reads = _READS.match(words) is not None
        if not reads and not _DESCRIBES.match(words):
            first = words.split(maxsplit=1)[0]
            raise QueryError(f"{first} is not allowed: only reads are answered here", code=164, name="READONLY")
        format_, settings = "", {}
        # quotes are blanked out and not removed, so that places are the same
        if found := _FORMAT.search(words):
            format_ = found.group(1)
            canonical, words = (text[: found.start()] + text[found.end() :] for text in (canonical, words))
        while found := _SETTINGS.search(words):
            for name, quoted, plain in _CHANGE.findall(canonical[found.start(1) :]):
                settings[name] = plain or quoted.replace("\\'", "'").replace("\\\\", "\\")
            canonical, words = (text[: found.start()] for text in (canonical, words))
        if reads and _INNER_SETTINGS.search(words):
            raise QueryError("SETTINGS are allowed at the end of a query only", code=164, name="READONLY")
        return Checked(canonical, format_, streams=reads, settings=settings, parameters=frozenset(places))

    def _check_functions(self, words: str, ask: Ask) -> None:
        called = _CALLED.findall(words)
        named = [name for name in (*called, *_NAMED.findall(words)) if _OUTSIDE.fullmatch(name.lower())]
        named += [name for name in called if name.lower() in self._refused_table_functions(ask)]
        if named:
            raise _forbidden(f"the function {named[0]} is not allowed: queries read the store and nothing else")

    def _refused_table_functions(self, ask: Ask) -> frozenset[str]:
        if self._table_functions is None:
            names = ask(load_sql("spanwise.query", "table_functions"), {}, "TabSeparated").decode().lower().split()
            self._table_functions = frozenset(names) - _INSIDE
        return self._table_functions


def _forbidden(text: str) -> QueryError:
    return QueryError(text, code=497, name="ACCESS_DENIED")
