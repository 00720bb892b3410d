"""Agent traffic as real fleets send it, through the OpenTelemetry SDK and its OTLP exporters.

Four services in three instrumentation dialects (OpenTelemetry GenAI, OpenInference, OpenLLMetry), nested agents,
streaming and cached model calls, and three planted failures that all answer "success" at the root: a tool retry loop, a
context overflow and an ignored tool error. A seed makes the traffic repeatable; only ids and times differ.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

Attributes = Mapping[str, Any]
Transport = Literal["grpc", "http"]

_SECOND = 1_000_000_000
_OVERFLOW = "This model's maximum context length is 128000 tokens. However, your messages resulted in 131842 tokens."


@dataclass
class Timeline:
    """The simulated time of one trace, in nanoseconds since the epoch."""

    now: int
    rng: random.Random

    def pass_s(self, low: float, high: float) -> int:
        self.now += int(self.rng.uniform(low, high) * _SECOND)
        return self.now


@dataclass(frozen=True)
class Service:
    """A tracer with its resource, exporting over one transport."""

    name: str
    version: str
    scope: str
    transport: Transport
    provider: TracerProvider
    tracer: Tracer


@dataclass
class Chat:
    """One model call: what is asked for, what comes back, what it uses."""

    model: str
    provider: str
    messages: list[dict[str, Any]]
    reply: str = ""
    tool: tuple[str, dict[str, Any]] | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    streaming: bool = False
    error: str = ""
    call_id: str = ""


@dataclass
class Scene:
    """Writes the spans of one trace in the order a running agent would."""

    service: Service
    time: Timeline
    conversation: str
    stack: list[Span] = field(default_factory=list)
    calls: int = 0

    @contextmanager
    def span(self, name: str, attributes: Attributes, kind: SpanKind = SpanKind.INTERNAL) -> Iterator[Span]:
        context = set_span_in_context(self.stack[-1]) if self.stack else None
        span = self.service.tracer.start_span(
            name, context=context, kind=kind, attributes=dict(attributes), start_time=self.time.now
        )
        self.stack.append(span)
        try:
            yield span
        finally:
            self.stack.pop()
            span.end(self.time.pass_s(0.001, 0.004))

    def next_call_id(self) -> str:
        self.calls += 1
        return f"call_{self.time.rng.getrandbits(48):012x}"


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


# Dialects. Each writes agents, model calls and tool calls the way its instrumentation does.


class OtelGenAI:
    """OpenTelemetry GenAI conventions, messages as JSON strings on the span."""

    scope = "opentelemetry.instrumentation.genai.openai"

    @contextmanager
    def agent(self, scene: Scene, name: str, task: str) -> Iterator[Span]:
        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": name,
            "gen_ai.conversation.id": scene.conversation,
            "gen_ai.input.messages": _json([{"role": "user", "parts": [{"type": "text", "content": task}]}]),
        }
        with scene.span(f"invoke_agent {name}", attributes) as span:
            yield span

    def chat(self, scene: Scene, chat: Chat) -> None:
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": chat.provider,
            "gen_ai.request.model": chat.model,
            "gen_ai.conversation.id": scene.conversation,
            "gen_ai.input.messages": _json([_otel_message(message) for message in chat.messages]),
        }
        if chat.streaming:
            attributes["gen_ai.request.stream"] = True
        with scene.span(f"chat {chat.model}", attributes, SpanKind.CLIENT) as span:
            scene.time.pass_s(0.3, 1.8)
            if chat.error:
                _fail(scene, span, "openai.BadRequestError", chat.error)
                return
            parts: list[dict[str, Any]] = []
            if chat.reply:
                parts.append({"type": "text", "content": chat.reply})
            if chat.tool:
                name, arguments = chat.tool
                parts.append({"type": "tool_call", "id": chat.call_id, "name": name, "arguments": arguments})
            span.set_attributes(
                {
                    "gen_ai.response.model": chat.model,
                    "gen_ai.response.id": f"resp_{scene.time.rng.getrandbits(64):016x}",
                    "gen_ai.response.finish_reasons": ["tool_calls" if chat.tool else "stop"],
                    "gen_ai.usage.input_tokens": chat.input_tokens,
                    "gen_ai.usage.output_tokens": chat.output_tokens,
                    "gen_ai.usage.cache_read.input_tokens": chat.cache_read_tokens,
                    "gen_ai.output.messages": _json([{"role": "assistant", "parts": parts}]),
                }
            )
            if chat.streaming:
                span.set_attribute("gen_ai.response.time_to_first_chunk", scene.time.rng.uniform(0.15, 0.6))

    def tool(self, scene: Scene, name: str, call_id: str, arguments: Attributes, result: str, error: str = "") -> None:
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.call.id": call_id,
            "gen_ai.tool.call.arguments": _json(dict(arguments)),
        }
        with scene.span(f"execute_tool {name}", attributes) as span:
            scene.time.pass_s(0.05, 0.5)
            if error:
                _fail(scene, span, error, result)
            else:
                span.set_attribute("gen_ai.tool.call.result", result)


class OpenInference:
    """OpenInference: flattened messages, input.value and output.value."""

    scope = "openinference.instrumentation.langchain"

    @contextmanager
    def agent(self, scene: Scene, name: str, task: str) -> Iterator[Span]:
        attributes = {
            "openinference.span.kind": "AGENT",
            "agent.name": name,
            "session.id": scene.conversation,
            "input.value": task,
        }
        with scene.span(name, attributes) as span:
            yield span

    def chat(self, scene: Scene, chat: Chat) -> None:
        attributes: dict[str, Any] = {
            "openinference.span.kind": "LLM",
            "llm.provider": chat.provider,
            "llm.invocation_parameters": _json({"model": chat.model, "temperature": 0.2}),
            "session.id": scene.conversation,
        }
        for index, message in enumerate(chat.messages):
            attributes[f"llm.input_messages.{index}.message.role"] = message["role"]
            attributes[f"llm.input_messages.{index}.message.content"] = message["content"]
        with scene.span("ChatModel", attributes) as span:
            scene.time.pass_s(0.4, 2.5)
            span.set_attribute("llm.model_name", chat.model)
            if chat.error:
                _fail(scene, span, "openai.BadRequestError", chat.error)
                return
            output = "llm.output_messages.0.message"
            span.set_attributes(
                {
                    f"{output}.role": "assistant",
                    f"{output}.content": chat.reply,
                    "llm.token_count.prompt": chat.input_tokens,
                    "llm.token_count.completion": chat.output_tokens,
                    "llm.token_count.prompt_details.cache_read": chat.cache_read_tokens,
                    "llm.finish_reason": "tool_use" if chat.tool else "end_turn",
                }
            )
            if chat.tool:
                name, arguments = chat.tool
                call = f"{output}.tool_calls.0.tool_call"
                span.set_attributes(
                    {
                        f"{call}.id": chat.call_id,
                        f"{call}.function.name": name,
                        f"{call}.function.arguments": _json(arguments),
                    }
                )

    def tool(self, scene: Scene, name: str, call_id: str, arguments: Attributes, result: str, error: str = "") -> None:
        attributes = {
            "openinference.span.kind": "TOOL",
            "tool.name": name,
            "tool.id": call_id,
            "input.value": _json(dict(arguments)),
            "input.mime_type": "application/json",
        }
        with scene.span(name, attributes) as span:
            scene.time.pass_s(0.05, 0.8)
            if error:
                _fail(scene, span, error, result)
            else:
                span.set_attribute("output.value", result)


class OpenLLMetry:
    """OpenLLMetry before 0.5: indexed gen_ai.prompt.N attributes and decorator spans."""

    scope = "opentelemetry.instrumentation.openai.v1"

    @contextmanager
    def agent(self, scene: Scene, name: str, task: str) -> Iterator[Span]:
        attributes = {
            "traceloop.span.kind": "agent",
            "traceloop.entity.name": name,
            "traceloop.association.properties.session_id": scene.conversation,
            "traceloop.entity.input": _json({"args": [task], "kwargs": {}}),
        }
        with scene.span(f"{name}.agent", attributes) as span:
            yield span

    def chat(self, scene: Scene, chat: Chat) -> None:
        attributes: dict[str, Any] = {
            "llm.request.type": "chat",
            "gen_ai.system": "OpenAI",
            "gen_ai.request.model": chat.model,
            "traceloop.association.properties.session_id": scene.conversation,
        }
        for index, message in enumerate(chat.messages):
            attributes[f"gen_ai.prompt.{index}.role"] = message["role"]
            attributes[f"gen_ai.prompt.{index}.content"] = message["content"]
        with scene.span("openai.chat", attributes, SpanKind.CLIENT) as span:
            scene.time.pass_s(0.2, 1.2)
            span.set_attributes(
                {
                    "gen_ai.response.model": chat.model,
                    "gen_ai.response.id": f"chatcmpl-{scene.time.rng.getrandbits(64):016x}",
                    "gen_ai.completion.0.role": "assistant",
                    "gen_ai.completion.0.content": chat.reply,
                    "gen_ai.completion.0.finish_reason": "tool_calls" if chat.tool else "stop",
                    "gen_ai.usage.prompt_tokens": chat.input_tokens,
                    "gen_ai.usage.completion_tokens": chat.output_tokens,
                    "llm.usage.total_tokens": chat.input_tokens + chat.output_tokens,
                }
            )
            if chat.tool:
                name, arguments = chat.tool
                call = "gen_ai.completion.0.tool_calls.0"
                span.set_attributes(
                    {f"{call}.id": chat.call_id, f"{call}.name": name, f"{call}.arguments": _json(arguments)}
                )

    def tool(self, scene: Scene, name: str, call_id: str, arguments: Attributes, result: str, error: str = "") -> None:
        attributes = {
            "traceloop.span.kind": "tool",
            "traceloop.entity.name": name,
            "gen_ai.tool.call.id": call_id,
            "traceloop.entity.input": _json({"args": [], "kwargs": dict(arguments)}),
        }
        with scene.span(f"{name}.tool", attributes) as span:
            scene.time.pass_s(0.02, 0.3)
            if error:
                _fail(scene, span, error, result)
            else:
                span.set_attribute("traceloop.entity.output", _json(result))


Dialect = OtelGenAI | OpenInference | OpenLLMetry


def _otel_message(message: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": message["role"], "parts": [{"type": "text", "content": message["content"]}]}


def _fail(scene: Scene, span: Span, type_: str, message: str) -> None:
    span.set_status(Status(StatusCode.ERROR, message))
    span.add_event("exception", {"exception.type": type_, "exception.message": message}, timestamp=scene.time.now)
    span.set_attribute("error.type", type_)


# Scenes. Each is one trace.

_SUPPORT = "You are the support desk of an online shop. Use the tools. Never promise a refund before it is booked."
_RESEARCH = "You plan research, delegate to searchers and write a short report with sources."
_OPS = "You keep deployments healthy. Check before you act, and stop when something does not change."


@dataclass
class Turn:
    """A conversation with one model that grows the way an agent's history grows."""

    dialect: Dialect
    scene: Scene
    model: str
    provider: str
    messages: list[dict[str, Any]]
    used: int = 0

    def call(
        self, reply: str, tool: tuple[str, dict[str, Any]] | None = None, *, streaming: bool = False, error: str = ""
    ) -> str:
        tokens = sum(len(message["content"]) for message in self.messages) // 4 + 420
        call_id = self.scene.next_call_id() if tool else ""
        self.dialect.chat(
            self.scene,
            Chat(
                self.model,
                self.provider,
                list(self.messages),
                reply,
                tool,
                input_tokens=tokens,
                output_tokens=len(reply) // 4 + (24 if tool else 6),
                cache_read_tokens=min(self.used, tokens),
                streaming=streaming,
                error=error,
                call_id=call_id,
            ),
        )
        self.used = tokens
        self.messages.append({"role": "assistant", "content": reply or f"(calls {tool[0] if tool else ''})"})
        return call_id

    def tool(self, name: str, arguments: dict[str, Any], result: str, *, error: str = "", think: str = "") -> None:
        call_id = self.call(think, (name, arguments))
        self.dialect.tool(self.scene, name, call_id, arguments, result, error)
        self.messages.append({"role": "tool", "content": result})


def _turn(dialect: Dialect, scene: Scene, model: str, provider: str, system: str, task: str) -> Turn:
    return Turn(
        dialect,
        scene,
        model,
        provider,
        [{"role": "system", "content": system}, {"role": "user", "content": task}],
    )


def _order(rng: random.Random) -> str:
    return f"A-{rng.randrange(1000, 9999)}"


def support_refund(scene: Scene) -> None:
    """A triage agent hands a refund to a specialist; everything works."""
    dialect, order = OtelGenAI(), _order(scene.time.rng)
    task = f"Where is order {order}? If it is lost I want my money back."
    with dialect.agent(scene, "triage", task):
        triage = _turn(dialect, scene, "gpt-4o-mini", "openai", _SUPPORT, task)
        triage.tool("lookup_order", {"order_id": order}, _json({"order": order, "status": "lost", "total": 79.9}))
        with dialect.agent(scene, "refunds", f"Refund order {order}"):
            refunds = _turn(dialect, scene, "gpt-4o", "openai", _SUPPORT, f"Refund order {order}")
            refunds.tool("issue_refund", {"order_id": order, "amount": 79.9}, _json({"refund": "booked"}))
            refunds.call("The refund of 79.90 is booked.")
        triage.call(f"Order {order} was lost on its way. Your refund of 79.90 is booked.", streaming=True)


def support_ignored_error(scene: Scene) -> None:
    """Planted: the refund tool fails, the agent tells the customer that it worked."""
    dialect, order = OtelGenAI(), _order(scene.time.rng)
    task = f"Please refund order {order}."
    with dialect.agent(scene, "triage", task):
        triage = _turn(dialect, scene, "gpt-4o-mini", "openai", _SUPPORT, task)
        arguments = {"order_id": order, "amount": 120.0}
        triage.tool("issue_refund", arguments, "payment provider answered 503", error="PaymentUnavailable")
        triage.call("Good news, your refund of 120.00 is on its way.", streaming=True)


def research_report(scene: Scene) -> None:
    """A planner with nested searchers and a writer; everything works."""
    dialect = OpenInference()
    topic = scene.time.rng.choice(["heat pumps", "battery recycling", "night trains", "urban trees"])
    with dialect.agent(scene, "planner", f"Report on {topic}"):
        planner = _turn(dialect, scene, "claude-sonnet-4-5", "anthropic", _RESEARCH, f"Report on {topic}")
        planner.call(f"I will look at costs and at adoption of {topic}.")
        for aspect in ("costs", "adoption"):
            with dialect.agent(scene, "searcher", f"{topic}: {aspect}"):
                searcher = _turn(dialect, scene, "gemini-2.5-flash", "google", _RESEARCH, f"{topic}: {aspect}")
                hits = _json([{"title": f"{topic} and {aspect}", "text": "figures and sources " * 30}])
                searcher.tool("web_search", {"query": f"{topic} {aspect}"}, hits)
                searcher.call(f"Three sources agree on the {aspect} of {topic}.")
            planner.messages.append({"role": "user", "content": f"Findings on {aspect}: three sources agree."})
        with dialect.agent(scene, "writer", f"Write the report on {topic}"):
            writer = _turn(dialect, scene, "claude-sonnet-4-5", "anthropic", _RESEARCH, f"Write about {topic}")
            writer.call(f"Report on {topic}. " + "It is cheaper than it was, and more people choose it. " * 6)


def research_overflow(scene: Scene) -> None:
    """Planted: search results pile up until the model refuses the context; the planner answers anyway."""
    dialect = OpenInference()
    with dialect.agent(scene, "planner", "Compare all suppliers"):
        planner = _turn(dialect, scene, "gpt-4o", "openai", _RESEARCH, "Compare all suppliers")
        for page in range(6):
            dump = f"supplier table page {page}: " + "name, price, rating; " * 1500
            planner.tool("fetch_page", {"page": page}, dump)
        planner.call("", error=_OVERFLOW)
        planner.messages = planner.messages[:2]
        planner.call("I compared the suppliers; the first one is best.")


def ops_retry_loop(scene: Scene) -> None:
    """Planted: the same tool call again and again, always with the same answer."""
    dialect = OpenLLMetry()
    arguments = {"deployment": "checkout", "namespace": "prod"}
    with dialect.agent(scene, "deployer", "Roll out checkout v42"):
        deployer = _turn(dialect, scene, "gpt-4o-mini", "openai", _OPS, "Roll out checkout v42")
        for _ in range(9):
            deployer.tool("get_rollout_status", arguments, "0 of 3 replicas ready")
        deployer.call("The rollout is in progress.")


def ops_healthy(scene: Scene) -> None:
    """Checks and restarts one deployment; everything works."""
    dialect = OpenLLMetry()
    name = scene.time.rng.choice(["search", "basket", "catalog"])
    with dialect.agent(scene, "deployer", f"Is {name} healthy?"):
        deployer = _turn(dialect, scene, "gpt-4o-mini", "openai", _OPS, f"Is {name} healthy?")
        deployer.tool("get_rollout_status", {"deployment": name, "namespace": "prod"}, "3 of 3 replicas ready")
        deployer.call(f"{name} is healthy.")


@dataclass(frozen=True)
class Part:
    """How often a service plays a scene in one demo."""

    service: str
    scene: Callable[[Scene], None]
    times: int


PROGRAMME = (
    Part("support-desk", support_refund, 14),
    Part("support-desk", support_ignored_error, 1),
    Part("research-crew", research_report, 9),
    Part("research-crew", research_overflow, 1),
    Part("ops-copilot", ops_healthy, 12),
    Part("ops-copilot", ops_retry_loop, 1),
    Part("shop-assistant", support_refund, 6),
)

_SERVICES: tuple[tuple[str, str, str, Transport], ...] = (
    ("support-desk", "2.4.1", OtelGenAI.scope, "grpc"),
    ("research-crew", "0.9.0", OpenInference.scope, "http"),
    ("ops-copilot", "1.12.3", OpenLLMetry.scope, "grpc"),
    ("shop-assistant", "3.0.0", OtelGenAI.scope, "http"),
)


@dataclass(frozen=True)
class Sent:
    """What the demo exported."""

    traces: int
    spans: int
    services: int


class _CountingProcessor(BatchSpanProcessor):
    def __init__(self, exporter: SpanExporter) -> None:
        super().__init__(exporter, max_queue_size=20_000, schedule_delay_millis=200)
        self.ended = 0

    def on_end(self, span: Any) -> None:
        self.ended += 1
        super().on_end(span)


def send(
    *, grpc_endpoint: str, http_endpoint: str, now_unix_nano: int, seed: int = 7, progress: Callable[[int, int], None]
) -> Sent:
    """Play the whole programme against a running receiver; return after the exporters have flushed.

    `grpc_endpoint` is host:port, `http_endpoint` a base URL. `progress` gets (traces played, traces in all). Raises
    RuntimeError if an exporter could not deliver everything within 30 s.
    """
    services, counters = _services(grpc_endpoint, http_endpoint)
    plays = [part for part in PROGRAMME for _ in range(part.times)]
    rng = random.Random(seed)  # noqa: S311 - repeatable traffic, not secrets
    rng.shuffle(plays)
    for index, part in enumerate(plays):
        start = now_unix_nano - int((len(plays) - index) * 20 * _SECOND)
        conversation = f"conv-{rng.getrandbits(40):010x}"
        part.scene(Scene(services[part.service], Timeline(start, rng), conversation))
        progress(index + 1, len(plays))
    for service in services.values():
        if not service.provider.force_flush(30_000):
            raise RuntimeError(f"cannot deliver the demo's spans of service {service.name!r} within 30 s")
        service.provider.shutdown()
    return Sent(traces=len(plays), spans=sum(counter.ended for counter in counters), services=len(services))


def _services(grpc_endpoint: str, http_endpoint: str) -> tuple[dict[str, Service], list[_CountingProcessor]]:
    services: dict[str, Service] = {}
    counters = []
    for name, version, scope, transport in _SERVICES:
        exporter: SpanExporter = (
            GrpcExporter(endpoint=grpc_endpoint, insecure=True)
            if transport == "grpc"
            else HttpExporter(endpoint=f"{http_endpoint}/v1/traces")
        )
        counter = _CountingProcessor(exporter)
        resource = Resource.create({"service.name": name, "service.version": version})
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(counter)
        counters.append(counter)
        services[name] = Service(name, version, scope, transport, provider, provider.get_tracer(scope, version))
    return services, counters
