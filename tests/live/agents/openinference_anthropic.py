from common import anthropic_conversation, provider
from openinference.instrumentation.anthropic import AnthropicInstrumentor

made = provider()
AnthropicInstrumentor().instrument(tracer_provider=made)
anthropic_conversation()
made.shutdown()
