from common import MODEL_URL, QUESTION, SYSTEM, get_weather, provider
from pydantic_ai import Agent
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

made = provider()
model = OpenAIChatModel("gpt-4o-mini", provider=OpenAIProvider(base_url=MODEL_URL + "/v1", api_key="none"))
agent = Agent(model, name="weather", system_prompt=SYSTEM, tools=[get_weather])
agent.instrument = InstrumentationSettings(tracer_provider=made)
agent.run_sync(QUESTION)
made.shutdown()
