"""AutoGen: an assistant with a tool, streams, an output type."""

import asyncio
import os
from typing import Literal

from autogen_agentchat.agents import AssistantAgent
from autogen_core.models import UserMessage
from autogen_ext.models.openai import OpenAIChatCompletionClient
from pydantic import BaseModel


class Mood(BaseModel):
    mood: Literal["friendly", "unfriendly"]


async def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


def client(name: str) -> OpenAIChatCompletionClient:
    info = {
        "vision": False,
        "function_calling": True,
        "json_output": True,
        "family": "unknown",
        "structured_output": True,
    }
    return OpenAIChatCompletionClient(
        model=os.environ[name], base_url=os.environ["OPENAI_BASE_URL"], model_info=info
    )


async def main() -> None:
    hello = [UserMessage(content="Hello", source="user")]
    print((await client("MODEL").create(hello)).content)
    async for part in client("MODEL").create_stream(hello):
        last = part
    print(last.content)
    agent = AssistantAgent("weather", model_client=client("BASE"), tools=[get_weather])
    print((await agent.run(task="What is the weather in Paris?")).messages[-1])
    print((await client("MODEL").create(hello, json_output=Mood)).content)


asyncio.run(main())
