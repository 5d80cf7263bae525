"""Strands: an agent with a tool."""

import os

from strands import Agent, tool
from strands.models.openai import OpenAIModel


@tool
def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


def model(name: str) -> OpenAIModel:
    arguments = {"base_url": os.environ["OPENAI_BASE_URL"], "api_key": os.environ["OPENAI_API_KEY"]}
    return OpenAIModel(client_args=arguments, model_id=os.environ[name])


print(Agent(model=model("MODEL"))("Hello"))
print(Agent(model=model("BASE"), tools=[get_weather])("What is the weather in Paris?"))
