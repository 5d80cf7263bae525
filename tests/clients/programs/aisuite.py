"""aisuite: chats, streams, a tool that it calls itself."""

import os

import aisuite

client = aisuite.Client({"openai": {"base_url": os.environ["OPENAI_BASE_URL"]}})
model, base = (f"openai:{os.environ[name]}" for name in ("MODEL", "BASE"))
messages = [{"role": "user", "content": "Hello"}]
print(client.chat.completions.create(model=model, messages=messages).choices[0].message.content)


def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


asked = [{"role": "user", "content": "What is the weather in Paris?"}]
answer = client.chat.completions.create(
    model=base, messages=asked, tools=[get_weather], max_turns=2
)
print(answer.choices[0].message.content)
