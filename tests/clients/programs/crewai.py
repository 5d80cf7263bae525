"""CrewAI: the model, an agent, an agent with a tool, an output type."""

import os
from typing import Literal

from crewai import LLM, Agent
from crewai.tools import tool
from pydantic import BaseModel


class Mood(BaseModel):
    mood: Literal["friendly", "unfriendly"]


@tool
def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


def llm(name: str) -> LLM:
    return LLM(model=f"openai/{os.environ[name]}", base_url=os.environ["OPENAI_BASE_URL"])


print(llm("MODEL").call("Hello"))
about = {"role": "Forecaster", "goal": "Tell the weather.", "backstory": "Brief."}
print(Agent(**about, llm=llm("MODEL")).kickoff("Hello"))
able = Agent(**about, llm=llm("BASE"), tools=[get_weather], max_iter=2)
print(able.kickoff("What is the weather in Paris?"))
print(llm("MODEL").call("Hello", response_model=Mood))
