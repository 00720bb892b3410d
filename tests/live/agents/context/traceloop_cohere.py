import cohere
from opentelemetry.instrumentation.cohere import CohereInstrumentor
from play import SYSTEM, play, provider


def ask(url, model, history, tools, max_tokens):
    client = cohere.ClientV2(api_key="none", base_url=url)
    messages = [{"role": "system", "content": SYSTEM}, *({"role": role, "content": text} for role, text in history)]
    options = {"max_tokens": max_tokens} if max_tokens else {}
    return client.chat(model=model, messages=messages, **options).message.content[0].text


made = provider()
CohereInstrumentor().instrument(tracer_provider=made)
play("cohere", ask, made)
