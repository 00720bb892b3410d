from agents import Agent, Runner, function_tool, set_default_openai_client
from common import MODEL_URL, QUESTION, SYSTEM, get_weather, provider
from openai import AsyncOpenAI
from openinference.instrumentation.openai_agents import OpenAIAgentsInstrumentor

made = provider()
OpenAIAgentsInstrumentor().instrument(tracer_provider=made)
set_default_openai_client(AsyncOpenAI(base_url=MODEL_URL + "/v1", api_key="none"), use_for_tracing=False)
agent = Agent(name="weather", instructions=SYSTEM, tools=[function_tool(get_weather)], model="gpt-4o-mini")
Runner.run_sync(agent, QUESTION)
made.shutdown()
