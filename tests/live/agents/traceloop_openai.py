from common import openai_conversation, provider
from opentelemetry.instrumentation.openai import OpenAIInstrumentor

made = provider()
OpenAIInstrumentor().instrument(tracer_provider=made)
openai_conversation()
made.shutdown()
