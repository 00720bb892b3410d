"""What the recorded agents share: the SDK with a real OTLP exporter, and the weather tool.

Environment: MODEL_URL is the scripted model server, OTLP_ENDPOINT and OTLP_TRANSPORT (grpc or http) the receiver.
"""

import contextlib
import os

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

MODEL_URL = os.environ["MODEL_URL"]
QUESTION = "What is the weather in Paris?"
SYSTEM = "You are a weather assistant."

OPENAI_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ANTHROPIC_TOOL = {
    "name": "get_weather",
    "description": "Current weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def get_weather(city: str) -> str:
    """Current weather of a city."""
    return f"18 degrees and sunny in {city}"


def provider() -> TracerProvider:
    if os.environ["OTLP_TRANSPORT"] == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        exporter = GrpcExporter(endpoint=os.environ["OTLP_ENDPOINT"], insecure=True)
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        exporter = HttpExporter(endpoint=os.environ["OTLP_ENDPOINT"] + "/v1/traces")
    # The default resource would carry the host and process of whoever records.
    made = TracerProvider(resource=Resource({"service.name": "weather-agent", "service.version": "1.0.0"}))
    made.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(made)
    return made


def openai_conversation() -> None:
    """One tool call by hand, a streamed answer, an embedding and a refused call."""
    import openai

    client = openai.OpenAI(base_url=MODEL_URL + "/v1", api_key="none", max_retries=0)
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
    first = client.chat.completions.create(model="gpt-4o-mini", messages=messages, tools=[OPENAI_TOOL])
    call = first.choices[0].message.tool_calls[0]
    messages += [
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": call.function.arguments},
                }
            ],
        },
        {"role": "tool", "tool_call_id": call.id, "content": get_weather("Paris")},
    ]
    client.chat.completions.create(model="gpt-4o-mini", messages=messages, tools=[OPENAI_TOOL])
    stream = client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": QUESTION}],
        stream=True,
        stream_options={"include_usage": True},
    )
    for _ in stream:
        pass
    client.embeddings.create(model="text-embedding-3-small", input="weather in Paris")
    with contextlib.suppress(openai.RateLimitError):
        client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "please fail"}])


def anthropic_conversation() -> None:
    """One tool call by hand and a refused call."""
    import anthropic

    client = anthropic.Anthropic(base_url=MODEL_URL, api_key="none", max_retries=0)
    messages = [{"role": "user", "content": QUESTION}]
    arguments = {"model": "claude-sonnet-4-5", "max_tokens": 300, "system": SYSTEM, "tools": [ANTHROPIC_TOOL]}
    first = client.messages.create(messages=messages, **arguments)
    call = first.content[1]
    messages += [
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": first.content[0].text},
                {"type": "tool_use", "id": call.id, "name": call.name, "input": call.input},
            ],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": call.id, "content": get_weather("Paris")}],
        },
    ]
    client.messages.create(messages=messages, **arguments)
    with contextlib.suppress(anthropic.RateLimitError):
        client.messages.create(
            model="claude-sonnet-4-5", max_tokens=300, messages=[{"role": "user", "content": "please fail"}]
        )
