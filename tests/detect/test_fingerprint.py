"""What the decoder sees of real spans: kinds, flags, error classes, hashes and sketches."""

from __future__ import annotations

import gzip
import json
import math
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.detect.steps import ErrorClass, Finish, Flag, Kind
from processors.normalise import plan_json
from spanwise import _native
from tests.detect.steps_of import (
    call,
    definition,
    exception,
    failed,
    model,
    read,
    result,
    step,
    text,
    tool,
)
from tests.normalise.spans import START, span
from tests.shared import SHARED

# ---------------------------------------------------------------------------------------------------- which and what


def test_a_span_without_genai_meaning_is_a_step_only_as_a_root() -> None:
    assert span({"http.route": "/"}, parent="3" * 16)["fingerprint"] == b""
    root = read(span({"http.route": "/"}, name="GET /")["fingerprint"])
    assert root is not None
    assert (root.kind, root.flags) == (Kind.OTHER, Flag(0))


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("chat", Kind.MODEL),
        ("generate_content", Kind.MODEL),
        ("execute_tool", Kind.TOOL),
        ("invoke_agent", Kind.AGENT),
        ("invoke_workflow", Kind.AGENT),
        ("embeddings", Kind.RETRIEVAL),
        ("retrieval", Kind.RETRIEVAL),
        ("create_agent", Kind.OTHER),
    ],
)
def test_the_kind_follows_the_operation(operation: str, kind: Kind) -> None:
    assert step({"gen_ai.operation.name": operation}, parent="3" * 16).kind == kind


def test_equal_names_of_agents_are_equal_hashes_wherever_they_stand() -> None:
    agent = step({"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "writer"})
    inside = model(more={"gen_ai.agent.name": "writer"})
    other = model(more={"gen_ai.agent.name": "reader"})
    assert agent.name == agent.agent == inside.agent != other.agent
    assert model().agent == 0


def test_the_output_limit_of_a_request_is_kept() -> None:
    assert model(more={"gen_ai.request.max_tokens": 512}).max_tokens == 512
    assert model().max_tokens == 0


# ---------------------------------------------------------------------------------------------- an oracle in Python


def canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def token_hash(token: str) -> int:
    data = token.encode()
    hash_ = 0x9E3779B97F4A7C15 ^ len(data)
    for at in range(0, max(len(data), 9), 8):
        product = (hash_ ^ int.from_bytes(data[at : at + 8], "little")) * 0xD6E8FEB86659FD93
        hash_ = (product & (2**64 - 1)) ^ (product >> 64)
    return ((hash_ ^ hash_ >> 32) & (2**32 - 1)) or 1


def words(texts: list[str]) -> list[str]:
    return [word for text in texts for word in re.findall(r"[^\W_]+", text.lower())]


def leaves(value: object) -> list[str]:
    match value:
        case dict():
            return [leaf for item in value.values() for leaf in leaves(item)]
        case list():
            return [leaf for item in value for leaf in leaves(item)]
        case str():
            return [value]
    return [json.dumps(value)]


LATIN = st.text('abcXYZ019 _-./éüßñΩж“”\n"\\', max_size=20)
ARGUMENTS = st.dictionaries(
    LATIN.filter(lambda key: key not in ("args", "kwargs", "input_str")),
    st.recursive(
        st.one_of(
            LATIN.filter(lambda text: text[:1] not in ("{", "[", '"')),
            st.integers(-(10**6), 10**6),
            st.booleans(),
            st.none(),
        ),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(LATIN, inner, max_size=3)),
        max_leaves=6,
    ),
    min_size=1,
    max_size=5,
)


def shuffled(value: Any) -> Any:
    match value:
        case dict():
            return {key: shuffled(value[key]) for key in reversed(value)}
        case list():
            return [shuffled(item) for item in value]
    return value


@settings(max_examples=300, deadline=None)
@given(ARGUMENTS)
def test_hash_and_words_of_arguments_are_those_of_the_oracle(arguments: dict[str, Any]) -> None:
    made = tool(arguments=json.dumps(arguments))
    assert made.input == xxhash.xxh3_64_intdigest(canonical(arguments).encode())
    assert made.input_sketch == set(sorted({token_hash(word) for word in words(leaves(arguments))})[:64])


@settings(max_examples=200, deadline=None)
@given(ARGUMENTS, st.sampled_from([None, 1, 4]), st.booleans())
def test_order_of_keys_and_white_space_do_not_matter(
    arguments: dict[str, Any], indent: int | None, ascii_: bool
) -> None:
    one = tool(arguments=json.dumps(arguments))
    other = tool(arguments=json.dumps(shuffled(arguments), indent=indent, ensure_ascii=ascii_))
    assert (one.input, one.input_sketch) == (other.input, other.input_sketch)


def test_numbers_are_hashed_as_they_are_written() -> None:
    assert tool(arguments='{"n": 1}').input != tool(arguments='{"n": 1.0}').input


def test_arguments_that_are_no_json_are_hashed_as_text() -> None:
    made = tool(arguments="  SELECT 1 ")
    assert made.input == xxhash.xxh3_64_intdigest(b"SELECT 1")
    assert made.input_sketch == {token_hash("select"), token_hash("1")}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("abcdefgh ,.é1", min_size=1, max_size=30), max_size=60))
def test_words_of_a_result_are_those_of_the_oracle(parts: list[str]) -> None:
    given_ = "\n".join(parts)[:500]
    hashes = sorted({token_hash(word) for word in words([given_])})
    assert tool(given_).output_sketch == set(hashes[:64])


def test_digits_are_masked_only_where_the_number_is_not_the_answer() -> None:
    page = "page 1 of 9, requested at 12:00:01 by session 77 of the importer, with everything else unchanged and long"
    assert tool(page).output_masked == tool(page.replace("1", "2")).output_masked
    assert tool(page).output != tool(page.replace("1", "2")).output
    assert tool("42 rows").output_masked != tool("43 rows").output_masked
    assert tool("42 rows").output == tool("42 rows").output_masked == xxhash.xxh3_128_intdigest(b"42 rows") % 2**64


# ------------------------------------------------------------------------------------------------- results of tools


@pytest.mark.parametrize(
    "wrapped",
    [
        json.dumps({"content": [{"type": "text", "text": "sunny"}], "isError": False}),
        json.dumps([{"type": "text", "text": "sunny"}]),
        json.dumps({"result": "sunny"}),
        json.dumps({"output": "sunny", "status": "success"}),
        json.dumps("sunny"),
        json.dumps(
            {
                "lc": 1,
                "type": "constructor",
                "id": ["langchain", "schema", "messages", "ToolMessage"],
                "kwargs": {"content": "sunny", "tool_call_id": "call_1", "status": "success", "type": "tool"},
            }
        ),
    ],
)
def test_the_envelope_of_a_result_does_not_matter(wrapped: str) -> None:
    plain, made = tool("sunny"), tool(wrapped)
    assert (made.output, made.output_bytes) == (plain.output, 5)
    assert made.flags == plain.flags == Flag.HAS_OUTPUT


@pytest.mark.parametrize(
    "answer",
    [
        '{"isError": true, "content": [{"type": "text", "text": "quota of the sheet is used up"}]}',
        '{"ok": false}',
        '{"success": false, "message": "no seat"}',
        '{"status": "failed", "id": 3}',
        '{"error": {"code": 17}}',
        '{"errors": ["a"]}',
        '{"result": "Error: no such order"}',
        "Error: user not found",
        "ERROR: relation users does not exist",
        "Traceback (most recent call last):\n  File \"x\", line 1\nKeyError: 'a'",
        "ValueError: could not convert string to float",
        "exitcode: 1 (execution failed)\nCode output: x",
        "Exit code 127\nsh: foo: not found",
        "<tool_use_error>File has not been read yet</tool_use_error>",
        "Failed to connect to host",
        "bash: foo: command not found",
    ],
)
def test_a_result_that_says_it_is_an_error(answer: str) -> None:
    made = tool(answer)
    assert made.flags & Flag.ERROR_RESULT
    assert not made.flags & Flag.EMPTY
    assert made.template != 0
    assert made.error != ErrorClass.NONE


@pytest.mark.parametrize(
    "answer",
    [
        "[]",
        "{}",
        "null",
        "None",
        "No results found.",
        "no results",
        "0 rows",
        '{"results": [], "total": 0}',
        '{"success": true, "data": []}',
        '{"content": [{"type": "text", "text": "No matches found"}], "isError": false}',
        "exitcode: 0 (execution succeeded)\nCode output: ",
        "Could not find [Guy Fawkes Nite]. Similar: ['Guy Fawkes Night', 'Guy Fawkes']",
        "   ",
    ],
)
def test_a_result_that_says_nothing(answer: str) -> None:
    made = tool(answer)
    assert made.flags & Flag.EMPTY
    assert not made.failed
    assert made.error == ErrorClass.NONE


@pytest.mark.parametrize(
    "answer",
    [
        "The article explains what an error: a mistake, is, and how a 429 comes about.",
        "Errors in the ledger were corrected in March.",
        "Error analysis of the model shows that most mistakes are small.",
        "The log says: maximum context length is 8192 tokens",
        '{"error": null, "items": [1]}',
        '{"errors": [], "data": {"id": 1}}',
        '{"error": false, "n": 1}',
        '{"status": "ok", "results": [], "answer": "see below", "items": [2]}',
        '{"count": 0}',
        "0",
        "false",
        "exitcode: 0 (execution succeeded)\nCode output: Error: the file says so\n",
        "Notably, no results found in 2020 were confirmed until 2021.",
        "[0]",
        "Transfer successful",
    ],
)
def test_a_result_that_only_speaks_of_errors_or_nothing(answer: str) -> None:
    made = tool(answer)
    assert not made.flags & (Flag.ERROR_RESULT | Flag.EMPTY)
    assert (made.error, made.template) == (ErrorClass.NONE, 0)


@pytest.mark.parametrize("documents", [[], "[]", " [ ] ", '{"documents": []}'], ids=str)
def test_a_retrieval_of_no_documents_is_empty(documents: object) -> None:
    attributes = {"gen_ai.operation.name": "retrieval", "gen_ai.retrieval.documents": documents}
    made = step(attributes, parent="3" * 16)
    assert made.flags & Flag.EMPTY
    assert made.output_bytes > 0


@pytest.mark.parametrize("documents", ['[{"id": "1", "content": "a cat"}]', '[{"id": "1"}]'])
def test_a_retrieval_of_documents_is_not_empty(documents: str) -> None:
    made = step({"gen_ai.operation.name": "retrieval", "gen_ai.retrieval.documents": documents}, parent="3" * 16)
    assert not made.flags & Flag.EMPTY
    assert made.output_bytes > 0


def test_silence_is_empty_and_zero_bytes_long() -> None:
    made = tool("")
    assert made.flags == Flag.HAS_OUTPUT | Flag.EMPTY
    assert made.output_bytes == 0
    assert not tool().flags & Flag.HAS_OUTPUT


def test_the_template_leaves_out_what_differs() -> None:
    one = tool('Error: order "A-17" of user 42 [eu] was not found today')
    other = tool('Error: order "B-9" of user 7 [us] was not found yesterday')
    assert one.template == tool("Error: order A- of user eu was never").template
    assert one.template != tool("Error: the database is locked").template
    assert other.template != 0
    trace = 'Traceback (most recent call last):\n  File "{0}", line {0}\n{1}: bad {0}'
    assert tool(trace.format(1, "KeyError")).template == tool(trace.format(22, "KeyError")).template
    assert tool(trace.format(1, "KeyError")).template != tool(trace.format(1, "ValueError")).template


def test_long_tokens_are_kept_of_results_that_failed_only() -> None:
    path = "/srv/app/releases/20260601/config.yaml"
    assert tool(f"Error: cannot parse {path}").long_tokens == {token_hash(path)}
    assert tool(f"parsed {path}").long_tokens == set()


# ----------------------------------------------------------------------------------------------------- model calls


def test_the_output_of_a_model_is_the_same_whatever_the_ids_of_its_calls() -> None:
    one = model(call("search", {"q": "a", "n": 1}, id="call_1"))
    other = model(call("search", {"n": 1, "q": "a"}, id="call_2"))
    assert one.output == other.output != 0
    assert one.flags & Flag.TOOL_CALLS
    assert model(call("search", {"q": "b"}, id="call_1")).output != one.output
    assert not model(text("assistant", "done")).flags & Flag.TOOL_CALLS


def test_the_input_of_a_model_is_its_newest_message() -> None:
    asked = [text("user", "hello")]
    later = [*asked, call("search", {}, id="x"), result("found", id="x")]
    assert model(history=asked).input_items == 1
    assert model(history=later).input_items == 3
    assert (
        model(history=later).input == model(history=[*asked, call("search", {}, id="y"), result("found", id="y")]).input
    )
    assert model(history=later).first_input == model(history=asked).first_input != 0
    assert model(history=[text("user", "other")]).first_input != model(history=asked).first_input


def test_the_size_of_the_input_of_a_model_is_all_that_was_recorded_of_it() -> None:
    short, long = text("user", "x" * 1_000), text("user", "x" * 16_000)
    sizes = [model(history=[long]).input_size, model(history=[short] * 16).input_size]
    sizes.append(model(history=[short], tools=[definition("search", text={"description": "x" * 15_000})]).input_size)
    assert all(abs(size - 8 * math.log2(16_000)) <= 2 for size in sizes)
    assert model(history=[short]).input_size == pytest.approx(8 * math.log2(1_060), abs=1)
    assert model().input_size == 0


@pytest.mark.parametrize(
    ("message", "empty"),
    [
        (text("assistant", ""), True),
        (text("assistant", " \n"), True),
        (text("assistant", "ok"), False),
        (call("search", {}), False),
        ({"role": "assistant", "parts": [{"type": "reasoning", "content": "hm"}]}, False),
    ],
)
def test_an_answer_without_text_call_or_reasoning_is_empty(message: dict[str, Any], empty: bool) -> None:
    assert bool(model(message).flags & Flag.EMPTY) == empty


def test_one_passage_over_and_over_is_chanting() -> None:
    chant = "I will now check the status of the deployment again and again. "
    varied = " ".join(
        f"Sentence {n} talks about item {n * 7919 % 1013} and its neighbour {n * 104729 % 2027}." for n in range(200)
    )
    assert model(text("assistant", chant * 120)).flags & Flag.CHANTING
    assert model(text("assistant", varied + chant * 120)).flags & Flag.CHANTING
    for healthy in (
        chant * 20,
        varied,
        "```\n" + "assert response.status_code == 200, response\n" * 200 + "```",
        "| order | open | 3 days | the customer was told by mail |\n" * 150,
        json.dumps([{"state": "open", "priority": "medium", "owner": None}] * 200),
        "-" * 9_000,
    ):
        assert not model(text("assistant", healthy)).flags & Flag.CHANTING


@pytest.mark.parametrize(
    ("reason", "bits"),
    [
        ("stop", Finish.STOP),
        ("end_turn", Finish.STOP),
        ("length", Finish.LENGTH),
        ("MAX_TOKENS", Finish.LENGTH),
        ("model_context_window_exceeded", Finish.LENGTH | Finish.CONTEXT_WINDOW),
        ("content_filter", Finish.CONTENT_FILTER),
        ("SAFETY", Finish.CONTENT_FILTER),
        ("tool_calls", Finish.TOOL_CALL),
        ("MALFORMED_FUNCTION_CALL", Finish.ERROR | Finish.MALFORMED),
        ("malformed_tool_use", Finish.MALFORMED),
        ("compaction", Finish.COMPACTION),
    ],
)
def test_finish_reasons(reason: str, bits: Finish) -> None:
    assert model(finish=[reason]).finish == bits


@pytest.mark.parametrize(
    "summary",
    [
        "This session is being continued from a previous conversation that ran out of context. The user ...",
        "Here is a summary of the conversation to date:\n\n- the user asked ...",
        "<state_snapshot>\n<overall_goal>ship it</overall_goal>",
    ],
)
def test_a_summary_of_earlier_history_is_a_compaction(summary: str) -> None:
    assert model(history=[text("user", summary), text("user", "go on")]).flags & Flag.COMPACTION
    assert (
        not model(history=[text("user", "Please write a summary of the conversation so far.")]).flags & Flag.COMPACTION
    )


SEARCH = definition("search", ["q"], q={"type": "string"}, n={"type": "integer"}, tags={"type": ["array", "null"]})


@pytest.mark.parametrize(
    ("made", "flag"),
    [
        (call("find", {"q": "a"}), Flag.UNKNOWN_TOOL),
        (call("search", {"n": 1}), Flag.SCHEMA_MISMATCH),
        (call("search", {"q": 1}), Flag.SCHEMA_MISMATCH),
        (call("search", {"q": "a", "n": 1.5}), Flag.SCHEMA_MISMATCH),
        (call("search", {"q": "a", "n": "1"}), Flag.SCHEMA_MISMATCH),
        (call("search", {}), Flag.SCHEMA_MISMATCH),
        (call("search", '{"q": "a"'), Flag.BAD_ARGUMENTS),
        (call("search", "look for a"), Flag.BAD_ARGUMENTS),
        (call("search", {"q": "a"}), Flag(0)),
        (call("search", {"q": "a", "n": 1, "tags": None}), Flag(0)),
        (call("search", {"q": "a", "n": None, "more": {}}), Flag(0)),
        (call("search", '{"q": "a"}'), Flag(0)),
    ],
)
def test_calls_are_held_against_the_definitions_on_the_span(made: dict[str, Any], flag: Flag) -> None:
    invalid = Flag.UNKNOWN_TOOL | Flag.BAD_ARGUMENTS | Flag.SCHEMA_MISMATCH
    assert model(made, tools=[SEARCH]).flags & invalid == flag


def test_without_definitions_a_call_is_not_judged() -> None:
    invalid = Flag.UNKNOWN_TOOL | Flag.SCHEMA_MISMATCH
    assert not model(call("anything", {"x": 1})).flags & invalid
    assert not model(call("anything", {"x": 1}), tools=[SEARCH, {"type": "web_search"}]).flags & invalid


def test_results_without_call_and_calls_with_one_id_are_seen_in_the_history() -> None:
    asked = call("search", {"q": "a"}, id="1")
    assert not model(history=[asked, result("x", id="1")]).flags & (Flag.ORPHAN_RESULT | Flag.DUPLICATE_CALL_ID)
    assert model(history=[asked, result("x", id="1"), result("y", id="2")]).flags & Flag.ORPHAN_RESULT
    again = call("search", {"q": "b"}, id="1")
    assert model(history=[asked, again]).flags & Flag.DUPLICATE_CALL_ID
    assert not model(history=[asked, asked]).flags & Flag.DUPLICATE_CALL_ID


def test_a_history_kept_by_the_provider_has_no_orphans() -> None:
    assert not model(history=[result("x", id="1")]).flags & Flag.ORPHAN_RESULT


# ---------------------------------------------------------------------------------------------------------- agents


def test_an_agent_has_words_of_what_it_was_asked_and_what_it_answered() -> None:
    made = step(
        {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": "writer",
            "gen_ai.input.messages": json.dumps([text("user", "Summarise ticket-1234567890-abcdefghij-x")]),
            "gen_ai.output.messages": json.dumps([text("assistant", "Done")]),
        }
    )
    assert made.input_sketch == {token_hash(word) for word in ("summarise", "ticket", "1234567890", "abcdefghij", "x")}
    assert made.output_sketch == {token_hash("done")}
    assert made.long_tokens == {token_hash("ticket-1234567890-abcdefghij-x")}
    assert made.flags == Flag.HAS_INPUT | Flag.HAS_OUTPUT


@pytest.mark.parametrize(
    "answer",
    ["Agent stopped due to iteration limit or time limit.", "Sorry, need more steps to process this request."],
)
def test_an_agent_that_was_stopped_says_so(answer: str) -> None:
    of = {"gen_ai.operation.name": "invoke_agent", "gen_ai.output.messages": json.dumps([text("assistant", answer)])}
    assert step(of).flags & Flag.RUN_LIMIT
    of["gen_ai.output.messages"] = json.dumps([text("assistant", f"I read that '{answer}' is a common message.")])
    assert not step(of).flags & Flag.RUN_LIMIT


# ---------------------------------------------------------------------------------------------------- error classes

ERRORS = tomllib.loads((Path(__file__).parent / "provider_errors.toml").read_text())["error"]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{error['of']}-{error['class']}")
def test_errors_of_providers_are_classed(error: dict[str, str]) -> None:
    type_, message, class_ = error["type"], error["message"], ErrorClass[error["class"].upper()]
    by_event = failed(type_, message)
    by_status = model(error=True, message=message, more={"error.type": type_.rpartition(".")[2]})
    for made in (by_event, by_status):
        assert made.error == class_
        assert made.flags & Flag.FAILED
        assert bool(made.flags & Flag.RUN_LIMIT) == (class_ == ErrorClass.RUN_LIMIT)


def test_the_status_of_the_response_decides_where_the_text_does_not() -> None:
    for status, class_ in ((429, ErrorClass.RATE_LIMIT), (503, ErrorClass.OVERLOADED), (404, ErrorClass.NOT_FOUND)):
        assert model(error=True, more={"http.response.status_code": status}).error == class_


def test_a_too_long_user_name_is_no_full_context() -> None:
    message = (
        "Error code: 400 - {'message': \"Invalid 'user': string too long. Expected a string with maximum length 64\"}"
    )
    assert failed("BadRequestError", message).error == ErrorClass.BAD_REQUEST


def test_an_agent_that_talks_about_limits_and_errors_has_no_error() -> None:
    talk = "The prompt is too long: 208310 tokens > 200000 maximum. Error code: 429, rate limit. Recursion limit of 25."
    made = model(text("assistant", talk), history=[text("user", talk)])
    assert (made.error, made.template) == (ErrorClass.NONE, 0)
    assert not made.flags & ~(Flag.HAS_INPUT | Flag.HAS_OUTPUT)
    assert tool(f"Wikipedia: {talk}").error == ErrorClass.NONE


def test_an_exception_that_was_handled_has_a_class_and_no_failure() -> None:
    made = model(text("assistant", "ok"), events=[exception("RateLimitError", "Error code: 429")])
    assert made.error == ErrorClass.RATE_LIMIT
    assert not made.flags & Flag.FAILED


# ----------------------------------------------------------------------------------------------------------- hostile


@pytest.mark.parametrize(
    "payload",
    [
        "[" * 100_000,
        '{"a":' * 5_000,
        '{"a":"' + "\\" * 9_999,
        '"' * 5_000,
        "\ud7ff\uffff" * 3_000,
        "{" + '"k":1,' * 50_000 + '"k":1}',
    ],
    ids=["deep list", "deep object", "escapes", "quotes", "rare characters", "one key often"],
)
def test_hostile_values_cost_no_more_than_their_length(payload: str) -> None:
    for made in (tool(payload, payload), model(text("assistant", payload), call("x", payload))):
        assert made.flags & Flag.HAS_OUTPUT
        assert len(made.output_sketch) <= 64
        assert len(made.long_tokens) <= 16


SCRAPS = st.sampled_from(
    [
        '{"role":"assistant","parts":[',
        '{"type":"tool_call","name":"a","id":"1","arguments":',
        '{"type":"tool_call_response","id":"2","response":',
        '{"type":"text","content":"',
        '{"isError":true,"content":[{"type":"text","text":"',
        "exitcode: ",
        "Traceback (most recent call last)",
        "Error: ",
        "é東\u0000",
        "\\\\u12",
        '"',
        "}",
        "]",
        ",",
        "1e999",
        "x" * 70,
        " * ",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(SCRAPS, st.text(max_size=6)), max_size=14).map("".join))
def test_any_text_in_any_place_gives_a_fingerprint_of_bounded_size(scrap: str) -> None:
    places = (
        "gen_ai.tool.call.result",
        "gen_ai.tool.call.arguments",
        "gen_ai.input.messages",
        "gen_ai.output.messages",
        "gen_ai.tool.definitions",
        "gen_ai.system_instructions",
        "error.type",
        "gen_ai.request.max_tokens",
    )
    for operation in ("execute_tool", "chat", "invoke_agent", "retrieval"):
        of = dict.fromkeys(places, scrap) | {"gen_ai.operation.name": operation}
        row = span(of, error=True, message=scrap, events=[exception(scrap, scrap)])
        assert read(row["fingerprint"]) is not None
        assert len(row["fingerprint"]) <= 64 + 4 * (64 + 64 + 16)


# ------------------------------------------------------------------------------------------------ labelled recordings

FAILURES = SHARED / "corpus-failures"


@pytest.mark.skipif(not FAILURES.exists(), reason="no labelled recordings beside the repository")
def test_errors_and_empty_results_of_recorded_tools_are_those_of_the_labels() -> None:
    labels = {
        label["trace_id"]: label for label in map(json.loads, (FAILURES / "labels.jsonl").read_text().splitlines())
    }
    decoder = _native.Decoder(plan_json())
    counts: Counter[tuple[str, str, bool, bool]] = Counter()
    for path in sorted(FAILURES.glob("*.jsonl.gz")):
        requests = [
            _native.json_to_protobuf("traces", line) for line in gzip.decompress(path.read_bytes()).splitlines()
        ]
        spans = decoder.decode([("t", START, "traces", request) for request in requests]).spans
        columns = [spans.column(name).to_pylist() for name in ("trace_id", "span_id", "fingerprint")]
        for trace_id, span_id, fingerprint in zip(*columns, strict=True):
            made = read(fingerprint)
            if made is None or made.kind != Kind.TOOL or trace_id not in labels:
                continue
            label = labels[trace_id]
            says_nothing = made.empty and not made.failed and made.output_bytes > 0
            for what, seen in (("tool_error", made.failed), ("empty_result", says_nothing)):
                counts[path.name, what, span_id in label.get(f"{what}_span_ids", ()), seen] += 1
    sources = {(source, what) for source, what, _, _ in counts}
    assert len(sources) >= 10
    for source, what in sorted(sources):
        right, missed, false = (counts[source, what, *key] for key in ((True, True), (True, False), (False, True)))
        print(f"{source} {what}: {right} right, {missed} missed, {false} false")
        assert right >= 0.95 * (right + missed)
        assert right >= 0.95 * (right + false)
