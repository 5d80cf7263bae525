"""Inspect: a task of one sample, by its `openai/` provider, whose default is Responses for new models, and a tool."""

import os

import inspect_ai
from inspect_ai import Task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import tool


@tool
def get_weather():
    async def execute(city: str) -> str:
        """Tell the weather of a city.

        Args:
            city: its name
        """
        return f"sunny in {city}"

    return execute


tasks = {
    "MODEL": Task(dataset=[Sample("Hello", target="o")], solver=generate(), scorer=includes()),
    "BASE": Task(
        dataset=[Sample("What is the weather in Paris?", target="n")],
        solver=[use_tools(get_weather()), generate()],
        scorer=includes(),
    ),
}
for name, task in tasks.items():
    [log] = inspect_ai.eval(
        task, model=f"openai/{os.environ[name]}", display="none", log_dir="logs"
    )
    assert log.status == "success", log.error
    print(log.samples[0].output.completion)
