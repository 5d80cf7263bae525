"""openai for Python, of three major versions: models, files, completions, and what one does with chats."""

import asyncio
import io
import os
from typing import Literal

import openai
from pydantic import BaseModel

client = openai.OpenAI()
model, base = os.environ["MODEL"], os.environ["BASE"]
messages = [{"role": "user", "content": "Hello"}]
tool = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


class Mood(BaseModel):
    mood: Literal["friendly", "unfriendly"]
    sure: bool


assert {model, base} <= {one.id for one in client.models.list()}
assert client.models.retrieve(model).id == model
assert client.completions.create(
    model=model, prompt=["Hello"] * 20, max_tokens=2
).usage.completion_tokens

chat = client.chat.completions.create(
    model=model, messages=messages, n=2, logprobs=True, top_logprobs=2
)
assert len(chat.choices) == 2
assert chat.choices[0].logprobs.content[0].top_logprobs
counted = list(
    client.chat.completions.create(
        model=model, messages=messages, stream=True, stream_options={"include_usage": True}
    )
)
assert counted[-1].usage.total_tokens

file = client.files.create(
    file=("chats.jsonl", io.BytesIO(b'{"messages": []}\n')), purpose="fine-tune"
)
assert client.files.content(file.id).read() == b'{"messages": []}\n'
assert client.files.delete(file.id).deleted
assert client.fine_tuning.jobs.list().data is not None


async def ask() -> str | None:
    async with openai.AsyncOpenAI() as asynchronous:
        answer = await asynchronous.chat.completions.create(model=model, messages=messages)
        return answer.choices[0].message.content


assert asyncio.run(ask())

try:
    client.chat.completions.create(model="ft:of:nobody", messages=messages)
    raise AssertionError("a model that is not there answered")
except openai.NotFoundError as error:
    assert error.code == "model_not_found"

asked = [{"role": "user", "content": "What is the weather in Paris?"}]
called = (
    client.chat.completions.create(model=base, messages=asked, tools=[tool], temperature=0)
    .choices[0]
    .message
)
print("tools:", called.tool_calls or called.content)
if called.tool_calls:
    result = {
        "role": "tool",
        "tool_call_id": called.tool_calls[0].id,
        "content": "sunny, 20 degrees",
    }
    followed = client.chat.completions.create(
        model=base, messages=[*asked, called, result], tools=[tool], temperature=0
    )
    print("after the tool:", followed.choices[0].message.content)

parse = getattr(client.chat.completions, "parse", None) or client.beta.chat.completions.parse
print(
    "parsed:", parse(model=model, messages=messages, response_format=Mood).choices[0].message.parsed
)

print("responses:", client.responses.create(model=model, input="Hello").output_text)
kinds = [event.type for event in client.responses.create(model=model, input="Hello", stream=True)]
assert kinds[-1] == "response.completed", kinds
