"""Haystack: chats, streams, tools."""

import os

from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import Tool

url = os.environ["OPENAI_BASE_URL"]
hello = [ChatMessage.from_user("Hello")]
print(
    OpenAIChatGenerator(model=os.environ["MODEL"], api_base_url=url).run(hello)["replies"][0].text
)
parts = []
OpenAIChatGenerator(
    model=os.environ["MODEL"],
    api_base_url=url,
    streaming_callback=lambda part: parts.append(part.content),
).run(hello)
assert "".join(parts)
tool = Tool(
    name="get_weather",
    description="Tell the weather of a city.",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    function=lambda city: f"sunny in {city}",
)
asked = [ChatMessage.from_user("What is the weather in Paris?")]
answer = OpenAIChatGenerator(model=os.environ["BASE"], api_base_url=url, tools=[tool]).run(asked)[
    "replies"
][0]
print(answer.tool_calls or answer.text)
