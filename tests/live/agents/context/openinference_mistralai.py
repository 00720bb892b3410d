from mistralai.client import Mistral
from openinference.instrumentation.mistralai import MistralAIInstrumentor
from play import SYSTEM, play, provider


def ask(url, model, history, tools, max_tokens):
    client = Mistral(api_key="none", server_url=url)
    messages = [{"role": "system", "content": SYSTEM}, *({"role": role, "content": text} for role, text in history)]
    return client.chat.complete(model=model, messages=messages, max_tokens=max_tokens).choices[0].message.content


made = provider()
MistralAIInstrumentor().instrument(tracer_provider=made)
play("mistral", ask, made)
