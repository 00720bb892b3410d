from common import MODEL_URL, QUESTION, get_weather, provider
from langchain_openai import ChatOpenAI
from langgraph.prebuilt import create_react_agent
from openinference.instrumentation.langchain import LangChainInstrumentor

made = provider()
LangChainInstrumentor().instrument(tracer_provider=made)
model = ChatOpenAI(model="gpt-4o-mini", base_url=MODEL_URL + "/v1", api_key="none")
create_react_agent(model, [get_weather], name="weather").invoke({"messages": [("user", QUESTION)]})
made.shutdown()
