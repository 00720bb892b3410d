from common import anthropic_conversation, provider
from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor

made = provider()
AnthropicInstrumentor().instrument(tracer_provider=made)
anthropic_conversation()
made.shutdown()
