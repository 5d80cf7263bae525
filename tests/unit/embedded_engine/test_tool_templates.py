"""How a base's template writes calls is found by rendering one, and histories are rendered as templates want them."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support import demo_models

from tunewarden.artifacts.base_facts import base_facts
from tunewarden.chat_templates import render, tool_format
from tunewarden.embedded_engine.chat_messages import parse_messages
from tunewarden.tool_formats import HERMES, LLAMA, MISTRAL_LIST, MISTRAL_NAMED, ToolFormat
from tunewarden.trainer.base import load_tokenizer

TURNS = "{% for m in messages %}<|{{ m.role }}|>{% if m.tool_calls %}CALLS{% endif %}{{ m.content }}{% endfor %}"
NAME = '{"name": "{{ c.function.name }}", '
HERMES_STYLE = TURNS.replace(
    "CALLS",
    "{% for c in m.tool_calls %}<tool_call>\n"
    + NAME
    + '"arguments": {{ c.function.arguments | tojson }}}\n</tool_call>\n{% endfor %}',
)
CHECKS_IDS = (
    "{% for m in messages %}{% for c in m.tool_calls or [{'id': m.tool_call_id or '9 is right'[:9]}] %}"
    "{% if c.id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif %}"
    "{% endfor %}{% endfor %}"
)
MISTRAL_STYLE = CHECKS_IDS + TURNS.replace(
    "CALLS",
    "[TOOL_CALLS] [{% for c in m.tool_calls %}{{ (c.function | tojson)[:-1] }}"
    ', "id": "{{ c.id }}"}{{ ", " if not loop.last }}{% endfor %}]',
)
MISTRAL_NAMED_STYLE = TURNS.replace(
    "CALLS",
    "{% for c in m.tool_calls %}[TOOL_CALLS]{{ c.function.name }}[ARGS]"
    "{{ c.function.arguments | tojson }}{% endfor %}",
)
LLAMA_STYLE = (
    "{{ 'Environment: ipython' if tools }}{% for t in tools or [] %}{{ t | tojson }}{% endfor %}"
    "{% for m in messages if (m.tool_calls or []) | length > 1 %}{{ raise_exception('one!') }}{% endfor %}"
    + TURNS.replace(
        "CALLS",
        "{% for c in m.tool_calls %}"
        + NAME
        + '"parameters": {{ c.function.arguments | tojson }}}{% endfor %}',
    )
)
XML_STYLE = TURNS.replace(
    "CALLS",
    "{% for c in m.tool_calls %}<tool_call><function={{ c.function.name }}></tool_call>{% endfor %}",
)
CALL: dict[str, Any] = {
    "id": "call_3kTz7pQwXy12AbCdEfGh5678",
    "type": "function",
    "function": {"name": "f", "arguments": '{"a": 1}'},
}
HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": CALL["id"], "content": "2"},
]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(demo_models.base_dir())


@pytest.mark.parametrize(
    ("template", "found"),
    [
        (HERMES_STYLE, HERMES),
        (MISTRAL_STYLE, MISTRAL_LIST),
        (MISTRAL_NAMED_STYLE, MISTRAL_NAMED),
        (LLAMA_STYLE, LLAMA),
        (XML_STYLE, None),
        (TURNS.replace("CALLS", ""), None),
        ("{{ raise_exception('no') }}", None),
        (None, None),
    ],
)
def test_the_format_is_found_in_the_template(
    tokenizer: Any, tmp_path: Path, template: str | None, found: ToolFormat | None
) -> None:
    tokenizer.chat_template = template
    assert tool_format(tokenizer) == found
    # `models.list` tells it without rendering.
    (tmp_path / "config.json").write_text("{}", "utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    facts = base_facts(str(tmp_path))
    assert facts is not None
    assert ("tools" in facts.capabilities) is (found is not None)


def test_a_tag_of_another_name_is_the_marks(tokenizer: Any) -> None:
    tokenizer.chat_template = HERMES_STYLE.replace("tool_call>", "action>")
    found = tool_format(tokenizer)
    assert found is not None
    assert (found.name, found.begin, found.end) == ("hermes", "<action>", "</action>")


def test_of_several_templates_the_one_for_tools_is_asked(tokenizer: Any) -> None:
    tokenizer.chat_template = {"default": "{{ messages }}", "tool_use": HERMES_STYLE}
    assert tool_format(tokenizer) == HERMES


@pytest.mark.parametrize(
    ("template", "written"),
    [
        (HERMES_STYLE, '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'),
        (MISTRAL_STYLE, '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}, "id": "'),
        (LLAMA_STYLE, '{"name": "f", "parameters": {"a": 1}}'),
    ],
)
def test_a_history_with_calls_is_rendered(tokenizer: Any, template: str, written: str) -> None:
    tokenizer.chat_template = template
    text = render(tokenizer, parse_messages(HISTORY), None, tokenize=False)
    assert written in text
    assert text.endswith("<|tool|>2")


def test_a_call_and_its_result_keep_the_same_short_id(tokenizer: Any) -> None:
    tokenizer.chat_template = MISTRAL_STYLE.replace("{{ m.content }}", "{{ m.tool_call_id }}")
    text = render(tokenizer, parse_messages(HISTORY), None, tokenize=False)
    (short,) = {text.rpartition("|>")[2], text.partition('"id": "')[2][:9]}
    assert len(short) == 9
    nine = {**CALL, "id": "abcDEF123"}
    history = [HISTORY[0], {**HISTORY[1], "tool_calls": [nine]}]
    assert '"id": "abcDEF123"' in render(tokenizer, parse_messages(history), None, tokenize=False)
