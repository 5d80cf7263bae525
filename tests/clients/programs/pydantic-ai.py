"""Pydantic AI: streams, a tool, output types by a tool and by the schema; Responses and chat."""

import asyncio
import os
from typing import Literal

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput


class Mood(BaseModel):
    mood: Literal["friendly", "unfriendly"]


async def main() -> None:
    for prefix in ("openai", "openai-chat"):
        model, base = (f"{prefix}:{os.environ[name]}" for name in ("MODEL", "BASE"))
        async with Agent(model).run_stream("Hello") as streamed:
            assert await streamed.get_output()
        agent = Agent(base)

        @agent.tool_plain
        def get_weather(city: str) -> str:
            """Tell the weather of a city."""
            return f"sunny in {city}"

        print(prefix, (await agent.run("What is the weather in Paris?")).output)
        print(prefix, (await Agent(model, output_type=Mood).run("Hello")).output)
        print(prefix, (await Agent(model, output_type=NativeOutput(Mood)).run("Hello")).output)


asyncio.run(main())
