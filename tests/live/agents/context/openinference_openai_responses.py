import openai
from openinference.instrumentation.openai import OpenAIInstrumentor
from play import SYSTEM, play, provider


def ask(url, model, history, tools, max_tokens):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    messages = [{"role": role, "content": text} for role, text in history]
    options = {"max_output_tokens": max_tokens} if max_tokens else {}
    return client.responses.create(model=model, instructions=SYSTEM, input=messages, **options).output_text


made = provider()
OpenAIInstrumentor().instrument(tracer_provider=made)
play("responses", ask, made)
