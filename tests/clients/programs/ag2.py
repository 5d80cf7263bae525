"""AG2: an agent that answers, and one with a tool."""

import asyncio
import os

from ag2 import Agent, tool
from ag2.config import OpenAIConfig


@tool
def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


def config(name: str) -> OpenAIConfig:
    return OpenAIConfig(model=os.environ[name], base_url=os.environ["OPENAI_BASE_URL"])


async def main() -> None:
    print((await Agent("harbour", config=config("MODEL")).ask("Hello")).body)
    able = Agent("weather", config=config("BASE"), tools=[get_weather])
    print((await able.ask("What is the weather in Paris?")).body)


asyncio.run(main())
