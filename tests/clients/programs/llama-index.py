"""LlamaIndex: chats, streamed chats, completions, tools, structured answers."""

import os
from typing import Literal

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel


def llm(model: str, **options: object) -> OpenAILike:
    return OpenAILike(
        model=os.environ[model],
        api_base=os.environ["OPENAI_BASE_URL"],
        api_key=os.environ["OPENAI_API_KEY"],
        context_window=2048,
        **{"is_chat_model": True, "is_function_calling_model": True, **options},
    )


def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


class Mood(BaseModel):
    """How a text sounds."""

    mood: Literal["friendly", "unfriendly"]


hello = [ChatMessage(role="user", content="Hello")]
assert llm("MODEL").chat(hello).message.content
assert "".join(part.delta or "" for part in llm("MODEL").stream_chat(hello))
assert llm("MODEL", is_chat_model=False).complete("Hello").text
tool = FunctionTool.from_defaults(get_weather)
answer = llm("BASE").chat_with_tools([tool], user_msg="What is the weather in Paris?")
print("tools:", answer.message.additional_kwargs.get("tool_calls") or answer.message.content)
print(llm("MODEL").structured_predict(Mood, PromptTemplate("Hello")))
