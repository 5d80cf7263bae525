"""agno: an agent, streamed, with a tool, with an output type."""

import os
from typing import Literal

from agno.agent import Agent
from agno.models.openai.like import OpenAILike
from pydantic import BaseModel


class Mood(BaseModel):
    mood: Literal["friendly", "unfriendly"]


def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


def model(name: str) -> OpenAILike:
    return OpenAILike(
        id=os.environ[name],
        base_url=os.environ["OPENAI_BASE_URL"],
        api_key=os.environ["OPENAI_API_KEY"],
    )


def said(run: object) -> object:
    # agno reports a refused request as the text of an answer.
    assert run.status == "COMPLETED", run
    return run.content


print(said(Agent(model=model("MODEL"), telemetry=False).run("Hello")))
print(
    [
        part.content
        for part in Agent(model=model("MODEL"), telemetry=False).run("Hello", stream=True)
    ]
)
able = Agent(model=model("BASE"), tools=[get_weather], telemetry=False)
print(said(able.run("What is the weather in Paris?")))
print(said(Agent(model=model("MODEL"), output_schema=Mood, telemetry=False).run("Hello")))
