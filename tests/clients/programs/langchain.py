"""LangChain: batches, tools, structured output, completions."""

import os
from typing import Literal

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel

llm = ChatOpenAI(model=os.environ["MODEL"])
base = ChatOpenAI(model=os.environ["BASE"])
assert all(one.content for one in llm.batch(["Hello"] * 3))
assert len(OpenAI(model=os.environ["MODEL"], max_tokens=2).batch(["Hello"] * 20)) == 20


@tool
def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


answer = base.bind_tools([get_weather]).invoke("What is the weather in Paris?")
print("tools:", answer.tool_calls or answer.content)


class Mood(BaseModel):
    """How a text sounds."""

    mood: Literal["friendly", "unfriendly"]


for method in ("json_schema", "function_calling"):
    print(method, llm.with_structured_output(Mood, method=method).invoke("Hello"))
