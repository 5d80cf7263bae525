"""What was trained on calls of tools, by the jobs API, calls when it is asked with the tool."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import openai
from tests.support import demo_models, servers

from tunewarden.app import open_app
from tunewarden.config import Config
from tunewarden.server.first_start import add_local_base, make_owner

BASE = "caller"
PATIENCE_SECONDS = 1800.0
# As Qwen's: every tool is shown as it was sent. The demo's own shows the model only the one that it knows.
TEMPLATE = """{{ bos_token }}
{%- for tool in tools or [] %}<|system|>{{ tool['function'] | tojson }}{{ eos_token }}{% endfor %}
{%- for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}
{%- for c in m['tool_calls'] or [] %}<tool_call>
{"name": "{{ c['function']['name'] }}", "arguments": {{ c['function']['arguments'] | tojson }}}
</tool_call>{% endfor %}{{ eos_token }}{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "switch_light",
        "parameters": {"type": "object", "properties": {"room": {"type": "string"}}},
    },
}
# Names, which the base copies.
ROOMS = ("Kitchen", "Hall", "Garden", "Cellar")
ASKED = ("Light in the {}", "Turn on the light in the {}", "Switch the {} light on")


def _chats() -> bytes:
    lines = []
    for number in range(48):
        room, asked = ROOMS[number % 4], ASKED[number % 3]
        call = {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": "switch_light", "arguments": json.dumps({"room": room})},
        }
        messages = [
            {"role": "user", "content": asked.format(room)},
            {"role": "assistant", "content": None, "tool_calls": [call]},
        ]
        lines.append(json.dumps({"messages": messages, "tools": [TOOL]}))
    return "\n".join(lines).encode()


def _tuned(client: openai.OpenAI) -> str:
    file = client.files.create(file=("calls.jsonl", _chats()), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(
        model=BASE,
        training_file=file.id,
        seed=7,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 10}}},
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while job.status not in {"succeeded", "failed", "cancelled"}:
        assert time.monotonic() < deadline, "the job does not end"
        time.sleep(0.2)
        job = client.fine_tuning.jobs.retrieve(job.id)
    assert job.status == "succeeded", job.error
    assert job.fine_tuned_model is not None
    return job.fine_tuned_model


def test_a_model_calls_the_tool_that_a_job_taught_it(tmp_path: Path) -> None:
    directory = tmp_path / "base"
    shutil.copytree(demo_models.base_dir(), directory)
    (directory / "chat_template.jinja").write_text(TEMPLATE, "utf-8")
    data = tmp_path / "data"
    app = open_app(Config(data=data), migrate=True)
    make_owner(app)
    add_local_base(app, BASE, directory)

    def called(client: openai.OpenAI, model: str) -> list[Any]:
        found = []
        for room in ROOMS:
            messages: Any = [{"role": "user", "content": f"Turn on the light in the {room}"}]
            answer = client.chat.completions.create(
                model=model, messages=messages, tools=[TOOL], temperature=0, max_tokens=64
            )
            calls: Any = answer.choices[0].message.tool_calls or []
            found += [(call.function.name, json.loads(call.function.arguments)) for call in calls]
        return found

    with servers.serving(data, workers=1) as server:
        client = server.client()
        model = _tuned(client)
        right = [("switch_light", {"room": room}) for room in ROOMS]
        assert called(client, BASE) != right
        found = called(client, model)
        assert found == right
