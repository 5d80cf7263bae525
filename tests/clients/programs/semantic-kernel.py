"""Semantic Kernel: an agent with a plugin, streamed; the kernel's own calls are functions."""

import asyncio
import os

from openai import AsyncOpenAI
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion
from semantic_kernel.functions import kernel_function


class Weather:
    @kernel_function
    def get_weather(self, city: str) -> str:
        """Tell the weather of a city."""
        return f"sunny in {city}"


async def main() -> None:
    def service(name: str) -> OpenAIChatCompletion:
        return OpenAIChatCompletion(ai_model_id=os.environ[name], async_client=AsyncOpenAI())

    agent = ChatCompletionAgent(service=service("MODEL"), name="Harbour")
    print(await agent.get_response("Hello"))
    async for part in agent.invoke_stream("Hello"):
        print(part, end="")
    able = ChatCompletionAgent(service=service("BASE"), name="Weather", plugins=[Weather()])
    print(await able.get_response("What is the weather in Paris?"))


asyncio.run(main())
