"""Mirascope: a call, a stream, a tool, a format."""

import os
from typing import Literal

from mirascope import llm
from pydantic import BaseModel


class Mood(BaseModel):
    mood: Literal["friendly", "unfriendly"]


@llm.tool
def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


model = f"openai/{os.environ['MODEL']}"


@llm.call(model)
def greet() -> str:
    return "Hello"


@llm.call(f"openai/{os.environ['BASE']}", tools=[get_weather])
def weather() -> str:
    return "What is the weather in Paris?"


@llm.call(model, format=Mood)
def mood() -> str:
    return "Hello"


print(greet().text())
print(weather().tool_calls)
print(mood().parse())
