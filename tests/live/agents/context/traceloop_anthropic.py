from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor
from play import anthropic_ask, play, provider

made = provider()
AnthropicInstrumentor().instrument(tracer_provider=made)
play("anthropic", anthropic_ask(), made)
