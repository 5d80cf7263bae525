"""LiteLLM as a client: asynchronous, batches, completions, tools, JSON, Responses, files."""

import asyncio
import os
from typing import Literal

import litellm
from pydantic import BaseModel

model, base = (f"openai/{os.environ[name]}" for name in ("MODEL", "BASE"))
messages = [{"role": "user", "content": "Hello"}]


class Mood(BaseModel):
    mood: Literal["friendly", "unfriendly"]


assert asyncio.run(litellm.acompletion(model=model, messages=messages)).choices[0].message.content
assert len(litellm.batch_completion(model=model, messages=[messages] * 2)) == 2
assert (
    litellm.text_completion(model=f"text-completion-{model}", prompt="Hello", max_tokens=4)
    .choices[0]
    .text
)
tool = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
asked = [{"role": "user", "content": "What is the weather in Paris?"}]
called = litellm.completion(model=base, messages=asked, tools=[tool]).choices[0].message
print("tools:", called.tool_calls or called.content)
print(
    litellm.completion(model=model, messages=messages, response_format=Mood)
    .choices[0]
    .message.content
)
print(litellm.responses(model=model, input="Hello").output[0].content[0].text)
