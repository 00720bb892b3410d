import os

os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "SPAN_ONLY"

from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
from play import openai_ask, play, provider

made = provider()
OpenAIInstrumentor().instrument(tracer_provider=made)
play("openai", openai_ask(), made)
