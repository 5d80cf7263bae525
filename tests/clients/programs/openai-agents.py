"""OpenAI's Agents SDK: an agent with a tool, streamed, with an output type; the default is Responses."""

import asyncio
import os
from typing import Literal

from agents import Agent, Runner, function_tool, set_tracing_disabled
from pydantic import BaseModel

set_tracing_disabled(disabled=True)


@function_tool
def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


class Mood(BaseModel):
    mood: Literal["friendly", "unfriendly"]


async def main() -> None:
    agent = Agent(name="Weather", model=os.environ["BASE"], tools=[get_weather])
    run = Runner.run_streamed(agent, "What is the weather in Paris?")
    kinds = {event.type async for event in run.stream_events()}
    assert "raw_response_event" in kinds
    print(run.final_output)
    moody = Agent(name="Mood", model=os.environ["MODEL"], output_type=Mood)
    print((await Runner.run(moody, "Hello")).final_output)


asyncio.run(main())
