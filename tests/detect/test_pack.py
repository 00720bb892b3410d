"""Steps of stored rows are the steps the decoder saw."""

from __future__ import annotations

import struct

import numpy as np
import pyarrow as pa

from processors.detect.pack import pack
from processors.detect.steps import FINGERPRINT, Kind, Steps
from processors.reconcile import narrow
from tests.build import START, batch, llm, span, span_id, trace_id


def fingerprint(
    kind: Kind, *, version: int = 1, sketches: tuple[list[int], list[int], list[int]] = ([], [], [])
) -> bytes:
    head = np.zeros(1, FINGERPRINT)
    head["fingerprint_version"], head["kind"] = version, kind
    for name, tokens in zip(("input", "output", "long"), sketches, strict=True):
        head[f"{name}_tokens_count"] = len(tokens)
    flat = [token for tokens in sketches for token in tokens]
    return bytes(head.tobytes() + struct.pack(f"<{len(flat)}I", *flat))


def unknown(provider: str, model: str) -> int:
    return 0


def test_a_step_has_the_columns_of_its_row() -> None:
    call = llm(7, 3, trace=2, fingerprint=fingerprint(Kind.MODEL, sketches=([1, 2], [], [2**32 - 1])), version=99)
    packed = pack(
        narrow(batch([call])), lambda provider, model: {("openai", "gpt-4o"): 128_000}.get((provider, model), 0)
    )
    assert packed.traces == [("t", trace_id(2))]
    (step,) = Steps(packed.rows, packed.sketches, np.array([True])).trace(0).steps
    assert (step.kind, step.span_id, step.parent_id) == (Kind.MODEL, int(span_id(7), 16), 3)
    assert (step.start, step.end) == (START + 7_000_000, START + 8_000_000)
    assert (step.input_tokens, step.output_tokens, step.window) == (100, 10, 128_000)
    assert (step.input_sketch, step.output_sketch, step.long_tokens) == tuple(map(frozenset, ([1, 2], [], [2**32 - 1])))
    assert packed.rows["version"].tolist() == [99]


def test_spans_that_are_no_steps_or_that_this_program_cannot_read_are_left_out() -> None:
    whole = fingerprint(Kind.TOOL, sketches=([5], [6], [7]))
    rows = [
        span(1, fingerprint=b""),
        span(2, fingerprint=whole),
        span(3, fingerprint=fingerprint(Kind.TOOL, version=2, sketches=([1], [], []))),
        span(4, fingerprint=whole[:-4]),
        span(5, fingerprint=whole[:-1]),
        span(6, fingerprint=whole[:20]),
        span(7, trace=2, fingerprint=whole),
    ]
    packed = pack(narrow(batch(rows)), unknown)
    assert packed.spans.tolist() == [1, 6]
    assert packed.rows["span_id"].tolist() == [2, 7]
    assert packed.rows["trace"].tolist() == [0, 1]
    steps = Steps(packed.rows, packed.sketches, np.array([True, True]))
    for number in range(2):
        (step,) = steps.trace(number).steps
        assert (step.input_sketch, step.output_sketch, step.long_tokens) == tuple(map(frozenset, ([5], [6], [7])))


def test_a_part_of_a_batch_gives_the_steps_of_that_part() -> None:
    rows = batch([span(n, n - 1, fingerprint=fingerprint(Kind.TOOL, sketches=([n], [], []))) for n in range(1, 9)])
    packed = pack(narrow(rows).slice(3, 2), unknown)
    assert packed.rows["span_id"].tolist() == [4, 5]
    assert packed.rows["parent_id"].tolist() == [3, 4]
    assert packed.sketches[packed.rows["sketch"]].tolist() == [4, 5]
    nothing = pack(narrow(rows).slice(0, 0), unknown)
    assert (len(nothing.rows), nothing.traces) == (0, [])


def test_unknown_counts_are_minus_one_and_large_ones_saturate() -> None:
    rows = [
        span(1, fingerprint=fingerprint(Kind.MODEL)),
        span(2, fingerprint=fingerprint(Kind.MODEL), input_tokens=2**40, output_tokens=0, duration=2**64 - 1),
    ]
    packed = pack(narrow(batch(rows)), unknown)
    assert packed.rows["input_tokens"].tolist() == [-1, 2**31 - 1]
    assert packed.rows["output_tokens"].tolist() == [-1, 0]
    assert packed.rows["end"][1] == 2**63 - 1


def test_the_window_is_that_of_the_model_that_answered_else_of_the_one_asked() -> None:
    asked: list[tuple[str, str]] = []

    def windows(provider: str, model: str) -> int:
        asked.append((provider, model))
        return {"big": 1000, "small": 10}.get(model, 0)

    made = fingerprint(Kind.MODEL)
    calls = [llm(n, fingerprint=made, request_model="small", response_model="big") for n in range(1, 50)]
    calls.append(llm(50, fingerprint=made, request_model="small", response_model="unheard-of"))
    calls.append(span(51, fingerprint=fingerprint(Kind.AGENT), kind="agent", request_model="small"))
    packed = pack(narrow(batch(calls)), windows)
    assert packed.rows["window"].tolist() == [1000] * 49 + [10, 0]
    assert len(asked) < 6, "once for each model, not for each span"


def test_steps_read_back_from_a_column_of_the_store_are_the_same() -> None:
    rows = narrow(batch([span(n, fingerprint=fingerprint(Kind.TOOL, sketches=([n], [200], []))) for n in range(1, 5)]))
    read = pa.ipc.open_stream(_written(rows)).read_all().combine_chunks().to_batches()[0]
    one, other = pack(rows, unknown), pack(read, unknown)
    assert one.rows.tobytes() == other.rows.tobytes()
    assert one.sketches.tolist() == other.sketches.tolist()


def _written(rows: pa.RecordBatch) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return sink.getvalue()
