"""What a model is asked from a line of training data."""

import json

from tunewarden.migration import prompts

USER = {"role": "user", "content": "Why?"}
ANSWER = {"role": "assistant", "content": "Because."}


def _lines(*examples: object) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in examples)


def test_the_last_answer_of_the_data_is_not_asked() -> None:
    earlier = [USER, {**ANSWER, "weight": 0}, USER]
    (found,) = prompts.read(_lines({"messages": [*earlier, ANSWER]}), last=10)
    assert found.fields == {"messages": [USER, ANSWER, USER]}
    assert found.answer_bytes > 0


def test_a_pair_of_answers_is_asked_from_its_input() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    pair = {
        "input": {"messages": [USER], "tools": tools, "parallel_tool_calls": False},
        "preferred_output": [ANSWER],
        "non_preferred_output": [ANSWER],
    }
    (found,) = prompts.read(_lines(pair), last=10)
    assert found.fields == {"messages": [USER], "tools": tools, "parallel_tool_calls": False}


def test_lines_without_a_question_are_left_out_and_the_others_keep_their_numbers() -> None:
    odd = (
        b'\n{"prompt": "x"}\nnothing\n[1]\n{"messages": "x"}\n{"messages": [1]}\n{"messages": []}\n'
    )
    content = b"\xef\xbb\xbf" + _lines({"messages": [USER]}) + odd + _lines({"messages": [ANSWER]})
    content += _lines({"messages": [USER, ANSWER]}) + b"[" * 100_000
    found = prompts.read(content, last=10)
    assert [one.line for one in found] == [1, 10]
    assert [one.line for one in prompts.read(content, last=1)] == [10]


def test_tokens_are_estimated_from_bytes() -> None:
    prompt = prompts.Prompt(1, {}, bytes=400, answer_bytes=80)
    assert prompt.tokens(1000) == 120
    assert prompt.tokens(10) == 110
    assert prompts.Prompt(1, {}, bytes=400, answer_bytes=0).tokens(1000) == 600


def test_half_an_emoji_is_asked_as_it_stands() -> None:
    (found,) = prompts.read(b'{"messages": [{"role": "user", "content": "\\ud83d"}]}\n', last=1)
    assert found.fields == {"messages": [{"role": "user", "content": "\ud83d"}]}
    assert found.bytes > 0


def test_a_file_that_comes_in_pieces_is_the_same_file() -> None:
    content = b"\xef\xbb\xbf" + _lines(
        {"messages": [USER, ANSWER]}, {"no": "chat"}, {"messages": [USER]}
    )
    whole = prompts.read(content, last=5)
    assert [one.line for one in whole] == [1, 3]
    for size in (1, 7, 50):
        tail = prompts.Tail(5)
        for at in range(0, len(content), size):
            tail.feed(content[at : at + size])
        assert tail.end() == whole
