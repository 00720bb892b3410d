import ollama
from opentelemetry.instrumentation.ollama import OllamaInstrumentor
from play import SYSTEM, play, provider


def ask(url, model, history, tools, max_tokens):
    client = ollama.Client(host=url)
    messages = [{"role": "system", "content": SYSTEM}, *({"role": role, "content": text} for role, text in history)]
    options = {"num_predict": max_tokens} if max_tokens else {}
    return client.chat(model=model, messages=messages, options=options).message.content


made = provider()
OllamaInstrumentor().instrument(tracer_provider=made)
play("ollama", ask, made)
