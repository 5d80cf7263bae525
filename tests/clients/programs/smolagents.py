"""smolagents: the model, streamed, and with a tool, which ToolCallingAgent sends always."""

import os

from smolagents import OpenAIModel, tool


@tool
def get_weather(city: str) -> str:
    """Tell the weather of a city.

    Args:
        city: its name
    """
    return f"sunny in {city}"


def model(name: str) -> OpenAIModel:
    return OpenAIModel(
        model_id=os.environ[name],
        api_base=os.environ["OPENAI_BASE_URL"],
        api_key=os.environ["OPENAI_API_KEY"],
    )


hello = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
print(model("MODEL").generate(hello).content)
print("".join(part.content or "" for part in model("MODEL").generate_stream(hello)))
answer = model("BASE").generate(hello, tools_to_call_from=[get_weather])
print(answer.tool_calls or answer.content)
