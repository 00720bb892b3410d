"""Steps: what detectors see of a span, a few numbers instead of its text.

The native decoder writes a `fingerprint` for every span that detectors look at: GenAI spans of any kind, and roots.
It holds hashes, classes and token sketches of what went in and came out, never text. Together with a few columns of
`spans` it becomes one `STEP`, the only form in which open traces are kept in memory; read from the store it is equal.

`Steps` are many traces at once, so that a signature can rule out nearly all of them with a few operations on whole
columns. `Trace` is one of them, in order of start, for the few that remain.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

FINGERPRINT_VERSION: Final = 1
SKETCH_MAX: Final = 64
"""Token hashes kept of one text: the smallest ones."""


class Kind(enum.IntEnum):
    """Class of a step, from the column `kind`."""

    OTHER = 0
    TOOL = 1
    MODEL = 2
    AGENT = 3
    """agent, workflow and handoff spans."""
    RETRIEVAL = 4
    """retrieval, embedding and rerank spans."""


class Flag(enum.IntFlag):
    """What the decoder saw in the content of a span."""

    FAILED = 1
    """Span status error, an `error.type`, or a tool status of error."""
    ERROR_RESULT = 2
    """A tool result that says it is an error, whatever the span status."""
    EMPTY = 4
    """An output is there and says nothing: '', [], {}, null, "no results" ..."""
    HAS_INPUT = 8
    HAS_OUTPUT = 16
    TOOL_CALLS = 32
    """The output of a model asks for tool calls."""
    CHANTING = 64
    """One output repeats one passage over and over."""
    COMPACTION = 128
    """History was summarised on purpose: the finish reason says so, or a summary stands among the input messages, and
    then in every later call of that conversation too."""
    UNKNOWN_TOOL = 256
    """A model called a tool that is not among the definitions on the same span."""
    BAD_ARGUMENTS = 512
    """Arguments of a tool call are not JSON although they should be."""
    SCHEMA_MISMATCH = 1024
    """Arguments lack a required property of the definition, or have one of another type."""
    ORPHAN_RESULT = 2048
    """The input holds a tool result for a call that is not in the input."""
    DUPLICATE_CALL_ID = 4096
    """Two tool calls with one id and different arguments."""
    RUN_LIMIT = 8192
    """Output or error says that a limit of turns, steps, calls or budget stopped the run."""


class ErrorClass(enum.IntEnum):
    """Why a call failed, from error type, exception events, status message and error results."""

    NONE = 0
    CONTEXT = 1
    RATE_LIMIT = 2
    BILLING = 3
    OVERLOADED = 4
    AUTH = 5
    CONTENT_POLICY = 6
    MALFORMED_HISTORY = 7
    TIMEOUT = 8
    BAD_REQUEST = 9
    NOT_FOUND = 10
    SERVER = 11
    CONNECTION = 12
    RUN_LIMIT = 13
    OTHER = 14


class Finish(enum.IntFlag):
    """Finish reasons of a model call, canonical ones and two that only the raw value tells."""

    STOP = 1
    LENGTH = 2
    CONTENT_FILTER = 4
    TOOL_CALL = 8
    ERROR = 16
    COMPACTION = 32
    CONTEXT_WINDOW = 64
    MALFORMED = 128


FINGERPRINT: Final = np.dtype(
    [
        ("fingerprint_version", "u1"),
        ("kind", "u1"),
        ("error", "u1"),
        ("finish", "u1"),
        ("flags", "<u2"),
        ("input_items", "<u2"),
        ("name", "<u4"),
        ("agent", "<u4"),
        ("call_id", "<u4"),
        ("template", "<u4"),
        ("first_input", "<u4"),
        ("output_bytes", "<u4"),
        ("max_tokens", "<u4"),
        ("input", "<u8"),
        ("output", "<u8"),
        ("output_masked", "<u8"),
        ("input_tokens_count", "u1"),
        ("output_tokens_count", "u1"),
        ("long_tokens_count", "u1"),
        ("input_size", "u1"),
    ]
)
"""Head of a fingerprint; the three sketches follow it: sorted u32 token hashes of input, output, and long tokens.

`input_items`: messages of the input, saturating. `name`: hash of the tool, model or agent name, 0 = none. `agent`: hash
of the agent name on the span. `template`: hash of the error with numbers and quoted parts left out, 0 = no error.
`first_input`: hash of the first user message and the instructions, which tells conversations of one trace apart.
`input`: hash of canonical JSON arguments (tool), of the newest input message (model), of the input (agent); 0 = absent.
`output`: hash of result or output messages; `output_masked`: the same with digits masked if longer than 80 characters.
`max_tokens`: output limit of the request, 0 = unknown. `input_size`: recorded bytes of what a model was sent, messages,
instructions and tool definitions together, as eight times the binary logarithm, 0 = nothing recorded. Hashes are XXH3
cut to their width (`output` and `output_masked` the lower half of XXH3-128, which `content` has already), never 0 for
what is there; those of tokens are simpler. Sketches are taken of the first 2 kB of a value: at most 64 hashes of words
of input and output, 16 of tokens of 24 characters and more. Retrieval and other steps have none, model calls only the
last.
"""

STEP: Final = np.dtype(
    [
        ("trace", "<u4"),
        ("window", "<u4"),
        ("start", "<i8"),
        ("end", "<i8"),
        ("span_id", "<u8"),
        ("parent_id", "<u8"),
        ("version", "<u8"),
        ("input_tokens", "<i4"),
        ("output_tokens", "<i4"),
        *((name, FINGERPRINT[name]) for name in FINGERPRINT.names or ()),
        ("sketch", "<u4"),
    ]
)
"""One step in memory. `trace` numbers the traces at hand; `window` is the context window of the model in tokens, 0 =
unknown; times are Unix nanoseconds; token counts are -1 where unknown; `sketch` is where its sketches start."""

Rows: TypeAlias = npt.NDArray[Any]
"""Structured array of `STEP`."""
Tokens: TypeAlias = frozenset[int]

_ANCESTORS_MAX: Final = 64
"""Parents may form a circle: nothing stops a sender from that."""


@dataclass(frozen=True, eq=False)
class Step:
    """One step of one trace, for code that walks. Fields as in `STEP` and `FINGERPRINT`."""

    index: int
    """Position in the trace, in order of start."""
    kind: Kind
    flags: Flag
    error: ErrorClass
    finish: Finish
    start: int
    end: int
    span_id: int
    parent_id: int
    name: int
    agent: int
    call_id: int
    template: int
    first_input: int
    input: int
    output: int
    output_masked: int
    input_items: int
    input_tokens: int
    output_tokens: int
    output_bytes: int
    max_tokens: int
    input_size: int
    window: int
    sketches: Sequence[npt.NDArray[np.uint32]] = field(repr=False)
    """Of input, output and long tokens; the properties make sets of them for the few steps whose words matter."""

    @cached_property
    def input_sketch(self) -> Tokens:
        return frozenset(self.sketches[0].tolist())

    @cached_property
    def output_sketch(self) -> Tokens:
        return frozenset(self.sketches[1].tolist())

    @cached_property
    def long_tokens(self) -> Tokens:
        return frozenset(self.sketches[2].tolist())

    @property
    def failed(self) -> bool:
        """The call failed, or its result says so."""
        return bool(self.flags & (Flag.FAILED | Flag.ERROR_RESULT))

    @property
    def empty(self) -> bool:
        return bool(self.flags & Flag.EMPTY)


class Trace:
    """The known steps of one trace, in order of start and then span id, each span once."""

    def __init__(self, rows: Rows, sketches: npt.NDArray[np.uint32], *, ended: bool) -> None:
        self._rows = rows
        self._sketches = sketches
        self.ended = ended
        """Nothing more is expected: its root has ended, or it has been idle for long."""

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def steps(self) -> Sequence[Step]:
        # a column at a time: reading fields of a structured array one by one is ten times slower
        columns = {name: self._rows[name].tolist() for name in (*_PLAIN, *_CODED, "sketch", *_COUNTS)}
        hashes = self._sketches
        steps = []
        for index in range(len(self._rows)):
            start = columns["sketch"][index]
            ends = list(accumulate((columns[name][index] for name in _COUNTS), initial=start))
            steps.append(
                Step(
                    index=index,
                    kind=Kind(columns["kind"][index]),
                    flags=Flag(columns["flags"][index]),
                    error=ErrorClass(columns["error"][index]),
                    finish=Finish(columns["finish"][index]),
                    sketches=[hashes[low:high] for low, high in pairwise(ends)],
                    **{name: columns[name][index] for name in _PLAIN},
                )
            )
        return steps

    def of_kind(self, *kinds: Kind) -> list[Step]:
        return [step for step in self.steps if step.kind in kinds]

    @cached_property
    def by_span_id(self) -> dict[int, Step]:
        return {step.span_id: step for step in self.steps}

    def parent(self, step: Step) -> Step | None:
        """The step of the parent span, None where it is no step or has not arrived."""
        return self.by_span_id.get(step.parent_id) if step.parent_id else None

    def agent_of(self, step: Step) -> int:
        """Hash of the agent a step belongs to: its own, else that of the nearest ancestor known; 0 = unknown."""
        for _ in range(_ANCESTORS_MAX):
            if step.agent:
                return step.agent
            above = self.parent(step)
            if above is None:
                return 0
            step = above
        return 0


_COUNTS: Final = ("input_tokens_count", "output_tokens_count", "long_tokens_count")
_CODED: Final = ("kind", "flags", "error", "finish")
_PLAIN: Final = (
    "start",
    "end",
    "span_id",
    "parent_id",
    "name",
    "agent",
    "call_id",
    "template",
    "first_input",
    "input",
    "output",
    "output_masked",
    "input_items",
    "input_tokens",
    "output_tokens",
    "output_bytes",
    "max_tokens",
    "input_size",
    "window",
)


def share(left: Tokens, right: Tokens) -> float:
    """Containment: the part of the smaller text's words that the larger one has too, 0 to 1.

    A sketch holds the `SKETCH_MAX` smallest hashes of a text. Where it is full, only hashes up to the largest one that
    both sketches would hold can be compared.
    """
    limit = min((max(side) for side in (left, right) if len(side) >= SKETCH_MAX), default=None)
    if limit is not None:
        left, right = (frozenset(token for token in side if token <= limit) for side in (left, right))
    smaller = min(len(left), len(right))
    return len(left & right) / smaller if smaller else 0.0


def sketch_counts(rows: Rows) -> npt.NDArray[np.int64]:
    """How many token hashes stand behind each step."""
    counts = np.zeros(len(rows), dtype=np.int64)
    for name in _COUNTS:
        counts += rows[name]
    return counts


class Steps:
    """Steps of many traces: sorted by trace, start and span id, each span once in its newest version.

    `rows` is a structured array of `STEP` whose `trace` counts from 0 without gaps; `sketches` the token hashes they
    point to; `ended` a mask by trace.
    """

    def __init__(self, rows: Rows, sketches: npt.NDArray[np.uint32], ended: npt.NDArray[np.bool_]) -> None:
        newest = rows[np.lexsort((rows["version"], rows["span_id"], rows["trace"]))]
        last = np.ones(len(newest), dtype=np.bool_)
        last[:-1] = (np.diff(newest["trace"]) != 0) | (newest["span_id"][1:] != newest["span_id"][:-1])
        newest = newest[last]
        self.rows: Rows = newest[np.lexsort((newest["span_id"], newest["start"], newest["trace"]))]
        self.sketches = sketches
        self.ended = ended
        self._bounds = np.searchsorted(self.rows["trace"], np.arange(len(ended) + 1))

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """A column of all traces."""
        found: npt.NDArray[Any] = self.rows[name]
        return found

    def is_kind(self, *kinds: Kind) -> npt.NDArray[np.bool_]:
        """Steps of one of these kinds."""
        found: npt.NDArray[np.bool_] = np.isin(self.rows["kind"], [int(kind) for kind in kinds])
        return found

    def has(self, flags: Flag) -> npt.NDArray[np.bool_]:
        """Steps with any of the flags."""
        found: npt.NDArray[np.bool_] = (self.rows["flags"] & int(flags)) != 0
        return found

    def traces_with(self, candidates: npt.NDArray[np.bool_]) -> Iterator[int]:
        """Numbers of the traces with at least one such step."""
        yield from np.unique(self.rows["trace"][candidates]).tolist()

    def trace(self, number: int) -> Trace:
        low, high = self._bounds[number : number + 2]
        return Trace(self.rows[low:high], self.sketches, ended=bool(self.ended[number]))
