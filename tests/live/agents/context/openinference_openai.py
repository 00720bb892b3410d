from openinference.instrumentation.openai import OpenAIInstrumentor
from play import openai_ask, play, provider

made = provider()
OpenAIInstrumentor().instrument(tracer_provider=made)
play("openai", openai_ask(), made)
