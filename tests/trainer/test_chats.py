"""What of a chat is learned: the assistant's words and their end, whatever the template, and no more."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import demo_models

from tunewarden.trainer.base import load_tokenizer
from tunewarden.trainer.chats import BadExample, BadTemplate, Chats, Row

CHATML = (
    "{% for m in messages %}<|user|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}({{ c.function.arguments | tojson }})"
    "{% endfor %}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|user|>assistant\n{% endif %}"
)
# As Qwen 3: only the last turn is rendered with its (empty) thoughts.
FORGETS_THOUGHTS = (
    "{% for m in messages %}<|user|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|user|>assistant\n{% endif %}"
)
# As DeepSeek R1: the prompt begins a thought that the rendered answer does not have.
PROMPTS_A_THOUGHT = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
# As Mistral: no generation prompt at all, and roles must alternate.
ALTERNATES = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate!') }}{% endif %}"
    "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
LEAVES_CALLS_OUT = CHATML.replace("m.tool_calls or []", "[]")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(demo_models.base_dir())


def chats(tokenizer: Any, template: str | None = None) -> Chats:
    """Chats with another template on the demo's tokenizer."""
    other = load_tokenizer(demo_models.base_dir())
    other.chat_template = template or tokenizer.chat_template
    return Chats(other)


def learned(tokenizer: Any, row: Row) -> list[str]:
    """The texts of the learned spans."""
    return [tokenizer.decode(row.ids[start:end]) for start, end in row.spans]


def said(*turns: str) -> list[dict[str, Any]]:
    """Messages from `role: text`."""
    return [dict(zip(("role", "content"), turn.split(": ", 1), strict=True)) for turn in turns]


LONG = said("system: Be kind.", "user: Hi", "assistant: Hello!", "user: Bye", "assistant: Ciao.")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, [["Hello!<|end|>", "Ciao.<|end|>"]]),
        (CHATML, [["Hello!<|end|>", "Ciao.<|end|>"]]),
        (
            FORGETS_THOUGHTS,
            [["<think>\n\n</think>\n\nHello!<|end|>"], ["<think>\n\n</think>\n\nCiao.<|end|>"]],
        ),
    ],
)
def test_the_answers_and_their_ends_are_learned(
    tokenizer: Any, template: str | None, expected: list[list[str]]
) -> None:
    rows = chats(tokenizer, template).rows(LONG)
    assert [learned(tokenizer, row) for row in rows] == expected


def test_a_template_without_a_generation_prompt_is_understood(tokenizer: Any) -> None:
    (row,) = chats(tokenizer, ALTERNATES).rows(LONG[1:])
    assert learned(tokenizer, row) == [" Hello!<|end|>", " Ciao.<|end|>"]


def test_a_history_is_rendered_as_the_model_will_be_asked(tokenizer: Any) -> None:
    first, second = chats(tokenizer, FORGETS_THOUGHTS).rows(LONG)
    asked = tokenizer.decode(second.ids[: second.spans[0][0]])
    assert "<think>" not in asked
    assert asked.endswith("Hello!<|end|>\n<|user|>user\nBye<|end|>\n<|user|>assistant\n")
    assert len(first.ids) < len(second.ids)


@pytest.mark.parametrize("template", [None, CHATML, FORGETS_THOUGHTS])
def test_an_answer_of_weight_0_is_read_and_not_learned(
    tokenizer: Any, template: str | None
) -> None:
    messages = [*LONG[:2], {**LONG[2], "weight": 0}, *LONG[3:]]
    (row,) = chats(tokenizer, template).rows(messages)
    assert [text[-11:] for text in learned(tokenizer, row)] == ["Ciao.<|end|>"[-11:]]
    assert "Hello!" in tokenizer.decode(row.ids)
    assert "weight" not in tokenizer.decode(row.ids)


def test_what_follows_the_last_answer_is_left_out(tokenizer: Any) -> None:
    messages = [*LONG, *said("user: And this?")]
    (row,) = chats(tokenizer).rows(messages)
    assert tokenizer.decode(row.ids).endswith("Ciao.<|end|>")


def test_tools_calls_and_their_answers(tokenizer: Any) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "sum", "arguments": '{"a": 1}'}}
    older = {"name": "sum", "arguments": '{"a": 1}'}
    for calling in ({"tool_calls": [call]}, {"function_call": older}):
        messages = [
            *said("user: Add"),
            {"role": "assistant", "content": None, **calling},
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "2"}]},
            *said("assistant: Two."),
        ]
        (row,) = chats(tokenizer, CHATML).rows(messages)
        assert learned(tokenizer, row) == ['<call>sum({"a": 1})<|end|>', "Two.<|end|>"]
        with pytest.raises(BadTemplate, match="tool calls"):
            chats(tokenizer, LEAVES_CALLS_OUT).rows(messages)


def test_templates_that_cannot_be_trained_with_are_refused(tokenizer: Any) -> None:
    with pytest.raises(BadTemplate, match="continuation"):
        chats(tokenizer, PROMPTS_A_THOUGHT).rows(LONG)
    with pytest.raises(BadTemplate, match="no chat template"):
        Chats(SimpleNamespace(chat_template=None))


@pytest.mark.parametrize(
    "messages",
    [
        said("user: a", "user: b", "assistant: c"),
        said("user: a"),
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}],
        said("assistant: I begin"),
    ],
)
def test_examples_that_cannot_be_learned_from_are_refused(
    tokenizer: Any, messages: list[dict[str, Any]]
) -> None:
    with pytest.raises(BadExample):
        chats(tokenizer, ALTERNATES).rows(messages)


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(
    turns=st.lists(
        st.tuples(st.sampled_from(["user", "assistant", "system"]), texts), min_size=1, max_size=6
    )
)
@settings(max_examples=150)
def test_the_mask_is_the_one_that_the_template_itself_marks(
    tokenizer: Any, turns: list[tuple[str, str]]
) -> None:
    messages = [{"role": role, "content": text} for role, text in [("user", "q"), *turns]]
    messages.append({"role": "assistant", "content": "a"})
    encoded = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    (row,) = Chats(tokenizer).rows(messages)
    mask = [
        any(start <= at < end for start, end in row.spans)
        for at in range(len(encoded["input_ids"]))
    ]
    assert list(row.ids) == encoded["input_ids"]
    assert mask == [bool(mark) for mark in encoded["assistant_masks"]]


def test_a_row_is_cut_to_what_is_learned(tokenizer: Any) -> None:
    (row,) = Chats(tokenizer).rows(LONG)
    (first, second) = row.spans
    assert row.truncated(first[1] + 2) == Row(row.ids[: first[1]], (first,))
    assert row.truncated(first[0]).learned == 0
    assert row.truncated(second[1]) == row
