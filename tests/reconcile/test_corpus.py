"""What recorded traces of real instrumentations add up to, each figure counted by hand from the model server's script.

The script answers an OpenAI chat with 164, then 186 input tokens (153 and 175 without instructions) and 24 output, a
Responses call with 318 and 41, an Anthropic message with 1272 (37, 1024 read from and 211 written to the cache) and 29,
a Gemini call with 204 and 22 and 31 thoughts, an embedding with 16.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from processors.columns import together
from processors.log_join import assign, join
from processors.normalise import plan_json
from processors.price import Price
from processors.reconcile import NARROW, decide, latest, narrow, summarise
from spanwise.model import SPANS
from tests.shared import CORPUS

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"no recorded traces in {CORPUS}")


class Sum(NamedTuple):
    input: int
    output: int
    calls: int


CALL = Sum(1272, 29, 1)

EXPECTED = {
    # two Responses calls; invoke_agent repeats their sum, 636; a third call failed
    "gen_agent_framework": Sum(2 * 318, 2 * 41, 3),
    # three messages and a failed one, from the client library itself
    "gen_anthropic_sdk_native": Sum(3 * 1272, 3 * 29, 4),
    "gen_openinference_anthropic": Sum(3 * 1272, 3 * 29, 4),
    "gen_claude_code_content": Sum(2 * 1272, 2 * 29, 2),
    # one turn of two calls over 21 traces; session_task.turn repeats 636
    "gen_codex": Sum(2 * 318, 2 * 41, 2),
    # thoughts are in log records without ids only
    "gen_gemini_cli": Sum(2 * 204, 2 * (22 + 31), 2),
    "gen_google_adk_schema2": Sum(3 * 204, 3 * (22 + 31), 3),
    "gen_haystack_native": Sum(164 + 164 + 153, 3 * 24, 3),
    # streaming usage is on log-like spans of other traces only
    "gen_logfire_openai": Sum(164 + 186 + 2 * 164 + 3 * 318 + 16, 4 * 24 + 3 * 41, 10),
    "gen_otel_genai_openai": Sum(164 + 186 + 2 * 164 + 3 * 318 + 16, 4 * 24 + 3 * 41, 10),
    "gen_openinference_openai": Sum(164 + 186 + 2 * 164 + 3 * 318 + 16, 4 * 24 + 3 * 41, 10),
    "gen_otel_genai_langchain": Sum(164 + 164 + 186 + 153, 4 * 24, 5),
    "gen_openinference_langchain": Sum(164 + 164 + 186 + 153, 4 * 24, 5),
    # an LLM span around the LLM span with the usage
    "gen_openinference_llama_index": Sum(164, 24, 5),
    # AGENT spans repeat the run
    "gen_openinference_smolagents": Sum(164 + 186 + 208 + 164, 4 * 24, 4),
    # the client library's span is a child of the framework's
    "gen_pydantic_ai_v5": Sum(164 + 186 + 153 + 2 * 1272, 3 * 24 + 2 * 29, 6),
    # agents carry the total of their lifetime, model spans a child of the client library
    "gen_strands": Sum(164 + 186 + 153 + 175 + 2 * 1272, 4 * 24 + 2 * 29, 6),
    "gen_strands_latest": Sum(164 + 186 + 153 + 175 + 2 * 1272, 4 * 24 + 2 * 29, 6),
    # outer spans repeat the sum of their steps
    "gen_vercel_ai_v6": Sum(4035, 260, 11),
    "gen_vercel_ai_v7": Sum(4035, 260, 10),
    "gen_vercel_ai_v7_legacy": Sum(4035, 260, 10),
    # three Anthropic messages a second time, by the client library, in other traces
    "gen_openllmetry_v062": Sum(3 * 1272 + 4402 + 16, 3 * 29 + 599, 30),
    "openinference_halo_openai_agents": Sum(317 + 125_007, 20 + 110, 2),
    "lf_microsoft_agent_2025_10_14": Sum(631, 35, 2),
}


def sums(name: str) -> Sum:
    native = pytest.importorskip("spanwise._native")
    frames = []
    for signal, path in (("traces", CORPUS / f"{name}.jsonl"), ("logs", CORPUS / f"{name}.logs.jsonl")):
        if path.exists():
            for line in path.read_bytes().splitlines():
                frames.append(("t", 1_795_218_527_703_000_000, signal, native.json_to_protobuf(signal, line)))
    decoded = native.Decoder(plan_json()).decode(frames)
    rows: pa.RecordBatch = Price()(decoded.spans)
    of = assign(narrow(rows), decoded.log_events)
    joined, at = join(rows, decoded.log_events, of)
    kept = np.ones(rows.num_rows, dtype=np.bool_)
    kept[at] = False
    spans = latest(narrow(together([rows.filter(pa.array(kept)), joined], SPANS.arrow)))
    assert spans.schema == NARROW
    totals = summarise(spans, decide(spans)).to_pylist()
    return Sum(*(sum(trace[column] for trace in totals) for column in ("input_tokens", "output_tokens", "llm_calls")))


@pytest.mark.parametrize("name", EXPECTED)
def test_recorded_traces_add_up_to_what_the_model_server_answered(name: str) -> None:
    assert sums(name) == EXPECTED[name]


def test_what_claude_code_logs_it_paid_is_our_price_of_the_same_calls() -> None:
    native = pytest.importorskip("spanwise._native")
    path = CORPUS / "gen_claude_code_content.jsonl"
    logs = CORPUS / "gen_claude_code_content.logs.jsonl"
    frames = [
        ("t", 1_795_218_527_703_000_000, signal, native.json_to_protobuf(signal, line))
        for signal, file in (("traces", path), ("logs", logs))
        for line in file.read_bytes().splitlines()
    ]
    decoded = native.Decoder(plan_json()).decode(frames)
    rows: pa.RecordBatch = Price()(decoded.spans)
    joined, _ = join(rows, decoded.log_events, assign(narrow(rows), decoded.log_events))
    calls = [row for row in joined.to_pylist() if row["kind"] == "llm"]
    assert [row["reported_cost_usd"] for row in calls] == [row["cost_usd"] for row in calls]
    assert len(calls) == 2
