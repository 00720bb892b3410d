"""Conversations that run out of context, healthy ones that look as if they did, and what servers answer to both.

A case is a play for two: `steps` for the agent (`agents/context/play.py` knows them), `answer` for the model server,
which counts tokens as a quarter of the characters it was sent. Errors have the status, the shape and the words with
which the servers of that provider refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

OVERFLOW: Final = "context_limit.overflow_error"
FULL: Final = "context_limit.window_reached"
PRESSURE: Final = "context_limit.pressure"
SILENT: Final = "context_limit.silent_truncation"
COMPACTION: Final = "context_limit.compaction"
CUT_OFF: Final = "output_truncated"
WATCHED: Final = (OVERFLOW, FULL, PRESSURE, SILENT, COMPACTION, CUT_OFF)


@dataclass(frozen=True)
class Request:
    """What a script needs to know of a request."""

    number: int
    """Requests of this case before it."""
    tokens: int
    messages: int


@dataclass(frozen=True)
class Reply:
    """An answer; `finish` in the words of the provider, '' for its usual end."""

    text: str
    input_tokens: int
    output_tokens: int = 40
    finish: str = ""
    cached_tokens: int = 0


@dataclass(frozen=True)
class Refusal:
    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


Answer: TypeAlias = Callable[[Request], Reply | Refusal]
Steps: TypeAlias = list[dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """`wants`: findings of the context signatures it must have, and no others of `WATCHED`; healthy if none."""

    name: str
    protocol: str
    model: str
    steps: Steps
    answer: Answer
    wants: frozenset[str] = frozenset()
    untold: tuple[str, ...] = ()
    """Instrumentations whose spans say nothing of it."""

    @property
    def healthy(self) -> bool:
        """Nothing to be told about; that history was summarised is information."""
        return not self.wants - {COMPACTION}


WORDS: Final = "the report lists what every region sold in that week and what it returned "
LONG: Final = WORDS * 14


def say(number: int, words: str = WORDS) -> dict[str, Any]:
    return {"say": f"{number}. {words}"}


def talk(turns: int, words: str = WORDS) -> Steps:
    return [say(number, words) for number in range(1, turns + 1)]


def plain(request: Request) -> Reply:
    return Reply(f"Noted, that was part {request.number + 1}.", request.tokens)


def wordy(request: Request) -> Reply:
    return Reply(f"Part {request.number + 1}: {LONG}", request.tokens, len(LONG) // 4)


def refusing(status: int, body: Mapping[str, Any], *, after: int = 2, **headers: str) -> Answer:
    """Plain answers, then this refusal for ever."""

    def answer(request: Request) -> Reply | Refusal:
        if request.number < after:
            return plain(request)
        return Refusal(status, body, {name.replace("_", "-"): value for name, value in headers.items()})

    return answer


def ending(finish: str, *, output_tokens: int = 40, after: int = 1) -> Answer:
    def answer(request: Request) -> Reply:
        reply = plain(request)
        if request.number < after:
            return reply
        return Reply(LONG, request.tokens, output_tokens, finish)

    return answer


def keeping(window: int) -> Answer:
    """As Ollama does: past the window the front is dropped until half of it is left, and nothing is said."""

    def answer(request: Request) -> Reply:
        tokens = request.tokens if request.tokens <= window else window // 2 + 2
        return Reply(f"Part {request.number + 1}: {LONG}", tokens, len(LONG) // 4)

    return answer


def sliding(window: int) -> Answer:
    """A server that keeps exactly what fits."""

    def answer(request: Request) -> Reply:
        return Reply(f"Part {request.number + 1}: {LONG}", min(request.tokens, window), len(LONG) // 4)

    return answer


def openai_error(message: str, code: str | int | None = None, type_: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": type_, "param": "messages", "code": code}}


def anthropic_error(message: str, type_: str = "invalid_request_error") -> dict[str, Any]:
    return {"type": "error", "error": {"type": type_, "message": message}, "request_id": "req_011"}


def gemini_error(code: int, message: str, status: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status}}


# ---- Refused: provider, status and body, as its servers write them. {model, words} of the OpenAI protocol unless said.

_OPENAI_OVERFLOWS: Final[Mapping[str, tuple[str, int, Mapping[str, Any]]]] = {
    "openai": (
        "gpt-4o",
        400,
        openai_error(
            "This model's maximum context length is 128000 tokens. However, your messages resulted in 130112 tokens. "
            "Please reduce the length of the messages.",
            "context_length_exceeded",
        ),
    ),
    "openai, newer": (
        "gpt-5",
        400,
        openai_error(
            "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 301233 tokens. Please "
            "reduce the length of the messages.",
            "context_length_exceeded",
        ),
    ),
    "vllm": (
        "meta-llama/Llama-3.1-8B-Instruct",
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens. "
            "Please reduce the length of the input messages.",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
    ),
    "openrouter": (
        "qwen/qwen3-coder",
        400,
        openai_error(
            "This endpoint's maximum context length is 131072 tokens. However, you requested about 150201 tokens (149201 "
            'of text input, 1000 in the output). Please reduce the length of either one, or use the "middle-out" '
            "transform to compress your prompt automatically.",
            400,
        ),
    ),
    "together": (
        "meta-llama/Llama-3.3-70B-Instruct-Turbo",
        422,
        openai_error(
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000 `inputs` tokens and "
            "500 `max_new_tokens`"
        ),
    ),
    "tgi": (
        "tgi",
        422,
        {
            "error": "Input validation error: `inputs` must have less than 4095 tokens. Given: 5021",
            "error_type": "validation",
        },
    ),
    "groq": (
        "llama-3.3-70b-versatile",
        400,
        openai_error("Please reduce the length of the messages or completion.", "context_length_exceeded"),
    ),
    "cerebras": (
        "llama3.1-8b",
        400,
        {
            "message": "Please reduce the length of the messages or completion. Current length is 9120 while limit is 8192",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "context_length_exceeded",
        },
    ),
    "xai": (
        "grok-3",
        400,
        {
            "code": "Client specified an invalid argument",
            "error": "This model's maximum prompt length is 131072 but the request contains 136973 tokens.",
        },
    ),
    "fireworks": (
        "accounts/fireworks/models/deepseek-v3",
        400,
        openai_error("The prompt is too long: 140213, model maximum context length: 131071"),
    ),
    "moonshot": (
        "kimi-k2-0905-preview",
        400,
        openai_error("Invalid request: Your request exceeded model token limit: 262144 (requested: 270120)"),
    ),
    "qwen": (
        "qwen-max",
        400,
        openai_error("<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]"),
    ),
    "minimax": ("MiniMax-M2", 400, openai_error("invalid params, context window exceeds limit (2013)")),
    "llama.cpp": (
        "local",
        400,
        {
            "error": {
                "code": 400,
                "message": "request (5021 tokens) exceeds the available context size (4096 tokens), try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 5021,
                "n_ctx": 4096,
            }
        },
    ),
    "lm studio": (
        "qwen2.5-coder-7b",
        400,
        {
            "error": "Trying to keep the first 10136 tokens when context the overflows. However, the model is loaded with "
            "context length of only 7866 tokens, which is not enough. Try to load the model with a larger context length, "
            "or provide a shorter input"
        },
    ),
    "sglang": (
        "qwen3-8b",
        400,
        openai_error(
            "Input length (5021 tokens) exceeds the maximum allowed length (4091 tokens). Use a shorter input or enable "
            "--allow-auto-truncate.",
            400,
            "BadRequestError",
        ),
    ),
    "copilot": (
        "gpt-4.1",
        400,
        openai_error("prompt token count of 130021 exceeds the limit of 128000", "model_max_prompt_tokens_exceeded"),
    ),
}

_OTHER_OVERFLOWS: Final[Mapping[str, tuple[str, str, Answer]]] = {
    "openai responses": (
        "responses",
        "gpt-5",
        refusing(
            400,
            {
                "error": {
                    "message": "Your input exceeds the context window of this model. Please adjust your input and try "
                    "again.",
                    "type": "invalid_request_error",
                    "param": "input",
                    "code": "context_length_exceeded",
                }
            },
        ),
    ),
    "anthropic": (
        "anthropic",
        "claude-sonnet-4-5",
        refusing(400, anthropic_error("prompt is too long: 208310 tokens > 200000 maximum")),
    ),
    "anthropic, with the answer": (
        "anthropic",
        "claude-sonnet-4-5",
        refusing(
            400,
            anthropic_error(
                "input length and `max_tokens` exceed context limit: 195021 + 8192 > 200000, decrease input length or "
                "`max_tokens` and try again"
            ),
        ),
    ),
    "anthropic, by size": (
        "anthropic",
        "claude-sonnet-4-5",
        refusing(413, anthropic_error("Request exceeds the maximum size", "request_too_large")),
    ),
    "bedrock": (
        "bedrock",
        "anthropic.claude-3-5-sonnet-20240620-v1:0",
        refusing(400, {"message": "Input is too long for requested model."}, x_amzn_ErrorType="ValidationException"),
    ),
    "bedrock, of the model": (
        "bedrock",
        "us.anthropic.claude-sonnet-4-20250514-v1:0",
        refusing(
            400,
            {"message": "The model returned the following errors: prompt is too long: 208310 tokens > 200000 maximum"},
            x_amzn_ErrorType="ValidationException",
        ),
    ),
    "bedrock nova": (
        "bedrock",
        "amazon.nova-pro-v1:0",
        refusing(
            400,
            {
                "message": "Input Tokens Exceeded: Number of input tokens exceeds maximum length. Please update the input "
                "to try again."
            },
            x_amzn_ErrorType="ValidationException",
        ),
    ),
    "gemini": (
        "gemini",
        "gemini-2.5-pro",
        refusing(
            400,
            gemini_error(
                400,
                "The input token count (1200293) exceeds the maximum number of tokens allowed (1048576).",
                "INVALID_ARGUMENT",
            ),
        ),
    ),
    "vertex": (
        "gemini",
        "gemini-1.0-pro",
        refusing(
            400,
            gemini_error(
                400,
                "Unable to submit request because the input token count is 40123 but model only supports up to 32768. "
                "Reduce the input token count and try again.",
                "INVALID_ARGUMENT",
            ),
        ),
    ),
    "mistral": (
        "mistral",
        "mistral-small-latest",
        refusing(
            400,
            {
                "object": "error",
                "message": "Prompt contains 40213 tokens and 0 draft tokens, too large for model with 32768 maximum context "
                "length",
                "type": "invalid_request_prompt",
                "param": None,
                "code": "3051",
            },
        ),
    ),
    "cohere": (
        "cohere",
        "command-r-plus",
        refusing(
            400,
            {
                "id": "5c1f",
                "message": "too many tokens: total number of tokens in the prompt cannot exceed 128000 - received 130112. "
                "Try using a shorter prompt, or enabling prompt truncating.",
            },
        ),
    ),
    "ollama": ("ollama", "llama3.1", refusing(400, {"error": "the input length exceeds the context length"})),
}


_OPENAI_CLIENTS: Final = ("openinference_openai", "otel_genai_openai", "traceloop_openai")
_DROPPED: Final = ("tgi", "xai", "lm studio")
"""Where `error` is a text and not an object, the client of OpenAI raises `Error code: 400` and drops the words."""


def _overflows() -> list[Case]:
    made = []
    for provider, (model, status, body) in _OPENAI_OVERFLOWS.items():
        made.append(("openai", provider, model, refusing(status, body)))
    for provider, (protocol, model, answer) in _OTHER_OVERFLOWS.items():
        made.append((protocol, provider, model, answer))
    cases = []
    for number, (protocol, provider, model, answer) in enumerate(made):
        # one run gives up at once, the next one tries the same again, a third one dies of it
        steps = [*talk(3), *([{"again": True}] if number % 3 == 1 else [])]
        if number % 3 == 2:
            steps[-1] |= {"dies": True}
        untold = _OPENAI_CLIENTS if provider in _DROPPED else ()
        cases.append(Case(f"overflow: {provider}", protocol, model, steps, answer, frozenset({OVERFLOW}), untold))
    return cases


# ---- Cut off, full, nearly full


def _finishes() -> list[Case]:
    cut = [
        ("openai", "openai", "gpt-4o", "length"),
        ("responses", "openai responses", "gpt-5", "max_output_tokens"),
        ("anthropic", "anthropic", "claude-sonnet-4-5", "max_tokens"),
        ("bedrock", "bedrock", "amazon.nova-pro-v1:0", "max_tokens"),
        ("gemini", "gemini", "gemini-2.5-pro", "MAX_TOKENS"),
        ("mistral", "mistral", "mistral-small-latest", "length"),
        ("cohere", "cohere", "command-r-plus", "MAX_TOKENS"),
        ("ollama", "ollama", "llama3.1", "length"),
    ]
    cases = [
        Case(
            f"cut off: {provider}",
            protocol,
            model,
            [{"max_tokens": 256}, *talk(3)],
            ending(finish, output_tokens=256),
            frozenset({CUT_OFF}),
            untold=("traceloop_ollama",),  # has no finish reasons
        )
        for protocol, provider, model, finish in cut
    ]
    full = [
        ("anthropic", "anthropic", "claude-sonnet-4-5"),
        ("bedrock", "bedrock", "us.anthropic.claude-sonnet-4-20250514-v1:0"),
    ]
    cases += [
        Case(
            f"window full: {provider}",
            protocol,
            model,
            talk(2),
            ending("model_context_window_exceeded"),
            frozenset({FULL}),
        )
        for protocol, provider, model in full
    ]

    def by_the_counts(request: Request) -> Reply:
        if request.number < 2:
            return Reply("Noted.", 2_000 + 1_000 * request.number)
        return Reply(LONG, 6_000, 8_192 - 6_000, "length")

    def filling(*tokens: int) -> Answer:
        return lambda request: Reply("Noted.", tokens[min(request.number, len(tokens) - 1)])

    return [
        *cases,
        Case("window full: by the counts", "openai", "gpt-4", talk(3), by_the_counts, frozenset({FULL})),
        Case("pressure: 85 %", "openai", "gpt-4o", talk(3), filling(60_000, 90_000, 109_000), frozenset({PRESSURE})),
        Case(
            "pressure: 97 %",
            "anthropic",
            "claude-3-5-sonnet-20241022",
            talk(3),
            filling(90_000, 150_000, 194_500),
            frozenset({PRESSURE}),
        ),
    ]


# ---- Silently truncated, compacted


def _truncations() -> list[Case]:
    return [
        Case("silent: ollama", "ollama", "llama3.1", talk(12, LONG), keeping(4_096), frozenset({SILENT})),
        Case(
            "silent: ollama behind the OpenAI API",
            "openai",
            "llama3.1",
            talk(12, LONG),
            keeping(4_096),
            frozenset({SILENT}),
        ),
        Case("silent: a large window", "ollama", "qwen3", talk(9, LONG * 16), keeping(32_768), frozenset({SILENT})),
        Case("silent: only what fits is kept", "openai", "local", talk(9, LONG), sliding(3_000), frozenset({SILENT})),
        Case(
            "silent: again after a summary",
            "openai",
            "llama3.1",
            [
                *talk(4, LONG),
                {"compact": "Here is a summary of the conversation to date:\n\nRegions and returns."},
                *talk(11, LONG),
            ],
            keeping(4_096),
            frozenset({SILENT, COMPACTION}),
        ),
    ]


_SUMMARIES: Final = {
    "openai": "Here is a summary of the conversation to date:\n\nThe regions were listed.",
    "anthropic": "This session is being continued from a previous conversation that ran out of context. The regions were "
    "listed.",
    "gemini": "<state_snapshot><overall_goal>List regions</overall_goal></state_snapshot>",
    "ollama": "Summary of the conversation so far: the regions were listed.",
}


def _compactions() -> list[Case]:
    models = {"openai": "gpt-4o", "anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-pro", "ollama": "llama3.1"}
    return [
        Case(
            f"compaction: {protocol}",
            protocol,
            models[protocol],
            [*talk(6, LONG), {"compact": summary}, *talk(4)],
            wordy,
            frozenset({COMPACTION}),
        )
        for protocol, summary in _SUMMARIES.items()
    ]


# ---- Healthy


_ABOUT_LIMITS: Final = (
    "Our agent died with Error code: 400 - {'error': {'message': \"This model's maximum context length is 8192 tokens. "
    "However, your messages resulted in 9001 tokens.\", 'code': 'context_length_exceeded'}}. Why is the prompt is too long?"
)


def _explaining(request: Request) -> Reply:
    return Reply(
        "The input exceeds the context window of the model: prompt is too long: 208310 tokens > 200000 maximum. The finish "
        "reason was model_context_window_exceeded, or length. Reduce the length of the messages.",
        request.tokens,
    )


def _caching(request: Request) -> Reply:
    """From the second call on nearly everything is read from the cache; Anthropic counts that apart."""
    cached = 0 if request.number == 0 else request.tokens - 50
    return Reply("Noted.", request.tokens, cached_tokens=cached)


_LIMITED: Final[list[tuple[str, str, str, Answer]]] = [
    (
        "openai",
        "openai",
        "gpt-4o",
        refusing(
            429,
            openai_error(
                "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 34021. The "
                "input or output tokens must be reduced in order to run successfully.",
                "rate_limit_exceeded",
                "tokens",
            ),
        ),
    ),
    (
        "groq",
        "openai",
        "llama-3.1-8b-instant",
        refusing(
            413,
            openai_error(
                "Request too large for model `llama-3.1-8b-instant` in organization `org_x` service tier `on_demand` on tokens "
                "per minute (TPM): Limit 6000, Requested 8021, please reduce your message size and try again.",
                "rate_limit_exceeded",
                "tokens",
            ),
        ),
    ),
    (
        "anthropic",
        "anthropic",
        "claude-sonnet-4-5",
        refusing(
            429,
            anthropic_error(
                "This request would exceed your organization's rate limit of 40,000 input tokens per minute. Please reduce the "
                "prompt length or the maximum tokens requested, or try again later.",
                "rate_limit_error",
            ),
        ),
    ),
    (
        "bedrock",
        "bedrock",
        "amazon.nova-pro-v1:0",
        refusing(
            429,
            {"message": "Too many tokens, please wait before trying again."},
            x_amzn_ErrorType="ThrottlingException",
        ),
    ),
    (
        "gemini",
        "gemini",
        "gemini-2.5-pro",
        refusing(
            429,
            gemini_error(
                429,
                "Quota exceeded for metric: generate_content_free_tier_input_token_count, limit: 250000. Please retry in 30s.",
                "RESOURCE_EXHAUSTED",
            ),
        ),
    ),
]
_BAD: Final[list[tuple[str, Mapping[str, Any]]]] = [
    (
        "a string too long",
        openai_error(
            "Invalid 'user': string too long. Expected a string with maximum length 64, but got a string with length 90 "
            "instead.",
            "string_above_max_length",
        ),
    ),
    (
        "an answer too long",
        openai_error(
            "max_tokens is too large: 100000. This model supports at most 16384 completion tokens, whereas you provided "
            "100000.",
            "invalid_value",
        ),
    ),
    (
        "an option",
        openai_error("Unsupported parameter: 'max_tokens' is not supported with this model.", "unsupported_parameter"),
    ),
]


def _healthy() -> list[Case]:
    limited = [
        Case(f"healthy: rate limit of {provider}", protocol, model, [*talk(3), {"again": True}], answer)
        for provider, protocol, model, answer in _LIMITED
    ]
    bad = [
        Case(f"healthy: refused for {what}", "openai", "gpt-4o", talk(3), refusing(400, body)) for what, body in _BAD
    ]
    long = [
        Case(f"healthy: long, {protocol}", protocol, model, talk(24), wordy)
        for protocol, model in (
            ("openai", "gpt-4o"),
            ("responses", "gpt-5"),
            ("anthropic", "claude-sonnet-4-5"),
            ("bedrock", "amazon.nova-pro-v1:0"),
            ("gemini", "gemini-2.5-pro"),
            ("mistral", "mistral-small-latest"),
            ("cohere", "command-r-plus"),
            ("ollama", "llama3.1"),
        )
    ]
    about = [
        Case(
            f"healthy: about limits, {protocol}",
            protocol,
            model,
            [{"say": _ABOUT_LIMITS}, *talk(2, _ABOUT_LIMITS)],
            _explaining,
        )
        for protocol, model in (("openai", "gpt-4o"), ("anthropic", "claude-sonnet-4-5"), ("ollama", "llama3.1"))
    ]
    tool = {"name": "read_log", "arguments": {"path": "agent.log"}}
    return [
        *long,
        *about,
        *limited,
        *bad,
        Case(
            "healthy: a log about limits",
            "openai",
            "gpt-4o",
            [say(1), {"tool": tool | {"result": _ABOUT_LIMITS}}, say(2)],
            plain,
        ),
        Case(
            "healthy: a tool refuses a long text",
            "openai",
            "gpt-4o",
            [
                say(1),
                {
                    "tool": tool
                    | {"name": "translate", "error": "ValueError: Input is too long, 5000 characters at most"}
                },
                say(2),
            ],
            plain,
        ),
        Case("healthy: the cache counts", "anthropic", "claude-sonnet-4-5", talk(6, LONG * 4), _caching),
        Case("healthy: starts over", "openai", "gpt-4o", [*talk(6, LONG), {"forget": True}, *talk(4)], wordy),
        Case(
            "healthy: drops the oldest",
            "openai",
            "gpt-4o",
            [*talk(6, LONG), {"drop": 6}, *talk(2, "more"), {"drop": 2}, say(9)],
            plain,
        ),
        Case("healthy: clears old results", "openai", "gpt-4o", [*talk(6, LONG * 2), {"clear": 8}, *talk(3)], plain),
        Case(
            "healthy: no tools for the last answer",
            "openai",
            "gpt-4o",
            [{"tools": 30}, *talk(4), {"tools": 0}, say(5)],
            plain,
        ),
        Case(
            "healthy: branches side by side",
            "openai",
            "gpt-4o",
            [say(1), {"branches": [[*talk(3, LONG * 4)], [*talk(5)]]}],
            plain,
        ),
        Case("healthy: short answers", "openai", "gpt-4o", talk(8, "go on"), plain),
    ]


CASES: Final[Mapping[str, Case]] = {
    case.name: case for case in (*_overflows(), *_finishes(), *_truncations(), *_compactions(), *_healthy())
}
