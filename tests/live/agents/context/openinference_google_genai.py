from google import genai
from google.genai import types
from openinference.instrumentation.google_genai import GoogleGenAIInstrumentor
from play import SYSTEM, play, provider


def ask(url, model, history, tools, max_tokens):
    options = types.HttpOptions(base_url=url, retry_options=types.HttpRetryOptions(attempts=1))
    client = genai.Client(api_key="none", http_options=options)
    contents = [
        types.Content(role="model" if role == "assistant" else role, parts=[types.Part(text=text)])
        for role, text in history
    ]
    config = types.GenerateContentConfig(system_instruction=SYSTEM, max_output_tokens=max_tokens)
    return client.models.generate_content(model=model, contents=contents, config=config).text


made = provider()
GoogleGenAIInstrumentor().instrument(tracer_provider=made)
play("gemini", ask, made)
