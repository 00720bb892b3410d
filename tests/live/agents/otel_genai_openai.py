import os

os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "SPAN_ONLY"

from common import openai_conversation, provider
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

made = provider()
OpenAIInstrumentor().instrument(tracer_provider=made)
openai_conversation()
made.shutdown()
