"""Training data: what is accepted, what is refused and in which words, and how much memory it takes."""

import copy
import json
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunewarden.finetuning import datasets
from tunewarden.finetuning.datasets import LINE_BYTES_MAX, Checked, InvalidDataset
from tunewarden.finetuning.hyperparameters import Method

Example = dict[str, Any]
HELLO: Example = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Good day"},
    ]
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
WITH_TOOLS: Example = {
    "messages": [
        {"role": "developer", "content": [{"type": "text", "text": "Use the tool."}]},
        {"role": "user", "content": "Where?", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Here"},
        {"role": "assistant", "content": "Not this", "weight": 0},
        {"role": "assistant", "content": "Here", "weight": 1, "refusal": None},
    ],
    "tools": [TOOL],
    "parallel_tool_calls": False,
}
OLDER: Example = {
    "messages": [
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "function_call": {"name": "look_up", "arguments": "{}"}},
        {"role": "function", "name": "look_up", "content": "Here"},
        {"role": "assistant", "content": "Here"},
    ],
    "functions": [{"name": "look_up", "description": "Where it is."}],
}
PAIR: Example = {
    "input": {"messages": [{"role": "user", "content": "Hello"}], "tools": [TOOL]},
    "preferred_output": [{"role": "assistant", "content": "Good day"}],
    "non_preferred_output": [{"role": "assistant", "content": "What?"}],
}


def _file(*examples: Example) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in examples)


def _check(data: bytes, method: Method = Method.SUPERVISED) -> Checked:
    return datasets.check([data], method)


def _refusal(*examples: Example, method: Method = Method.SUPERVISED) -> str:
    with pytest.raises(InvalidDataset) as caught:
        _check(_file(*examples), method)
    assert caught.value.code == "invalid_training_file"
    start = "The job failed due to an invalid training file. Invalid file format. "
    assert caught.value.message.startswith(start)
    return caught.value.message.removeprefix(start)


def _outcome(chunks: list[bytes], method: Method = Method.SUPERVISED) -> tuple[object, ...]:
    """How many examples there are, or the refusal's code, line and message."""
    try:
        return (datasets.check(chunks, method).examples,)
    except InvalidDataset as error:
        return error.code, error.line, error.message


def _changed(example: Example, path: str, value: object) -> Example:
    """The example with what stands at a path such as `messages.0.role` replaced."""
    changed = copy.deepcopy(example)
    *parents, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    found: Any = changed
    for step in parents:
        found = found[step]
    found[last] = value
    return changed


def test_the_chat_format_is_accepted_with_all_that_belongs_to_it() -> None:
    data = _file(*[HELLO] * 5, *[WITH_TOOLS] * 5, *[OLDER] * 5)
    characters = sum(map(len, ("Be brief.", "Hello", "Good day")))
    assert _check(_file(*[HELLO] * 10)) == Checked(10, len(_file(*[HELLO] * 10)), 10 * characters)
    assert _check(data).examples == 15


def test_the_preference_format_is_accepted() -> None:
    assert _check(_file(*[PAIR] * 10), Method.DPO).examples == 10


def test_files_are_as_editors_leave_them() -> None:
    line = json.dumps(HELLO, ensure_ascii=False).encode()
    marked = b"\xef\xbb\xbf" + b"\r\n".join([line, b"", b"  "] * 10)
    assert _check(marked).examples == 10
    assert _check(b"\n".join([line] * 10)).examples == 10, "the last line needs no end"


def test_a_bad_line_is_named_by_its_number_in_the_file_blank_lines_counted() -> None:
    wrong = json.dumps(_changed(HELLO, "messages.1.role", "human")).encode()
    with pytest.raises(InvalidDataset) as caught:
        _check(_file(HELLO) + b"\n" + wrong)
    assert caught.value.line == 3
    assert caught.value.message.endswith('Line 3, message 2, key "role": unrecognized value')


def test_the_first_five_bad_lines_are_named_and_that_there_are_more() -> None:
    wrong = _changed(HELLO, "messages.1.role", "human")
    told = _refusal(HELLO, wrong, wrong)
    assert told == (
        'Line 2, message 2, key "role": unrecognized value.'
        ' Line 3, message 2, key "role": unrecognized value'
    )
    told = _refusal(*[wrong] * 9)
    assert [f"Line {n}," in told for n in range(1, 8)] == [True] * 5 + [False] * 2
    assert told.endswith(". There are more, from line 6 on")


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("messages", [], ', key "messages": must be a list with at least one message'),
        ("messages", "Hello", ', key "messages": must be a list with at least one message'),
        ("messages.0", "Hello", ", message 1: must be an object"),
        ("messages.0", {"content": "Hello"}, ': key "role" is missing'),
        ("messages.0.role", 7, ', message 1, key "role": unrecognized value'),
        ("messages.0.weight", 1, ', key "weight": only assistant messages have a weight'),
        ("messages.2.weight", 2, ', message 3, key "weight": must be 0 or 1'),
        ("messages.2.weight", True, ', message 3, key "weight": must be 0 or 1'),
        ("messages.2.weight", 0, ": there is no assistant message to learn from"),
        ("messages.2.score", 1, ", message 3: key 3 of 3 is unrecognized; allowed: audio, content"),
        ("messages.2.refusal", "No.", ', message 3, key "refusal": refusals are not supported'),
        ("messages.1.content", None, ', message 2: key "content" is missing'),
        ("messages.2.content", None, ', message 3: key "content" is missing'),
        ("messages.1.content", 5, ', message 2, key "content": must be text'),
        ("messages.1.content", [], ', message 2, key "content": must be text'),
        ("messages.1.content", [{"type": "image_url"}], "images are not supported"),
        ("messages.1.content", [{"type": "text", "text": 5}], 'part 1, key "text": must be text'),
        ("messages.1.name", "two words", ', message 2, key "name": must be text'),
        ("messages.1", {"role": "tool", "content": "x"}, 'key "tool_call_id" is missing'),
        (
            "messages.1",
            {"role": "tool", "content": "x", "tool_call_id": "call_9"},
            "no earlier assistant message has a tool call with this id",
        ),
        ("messages.2.tool_calls", [], ', key "tool_calls": must be a list of 1 to 128 calls'),
        ("messages.2.tool_calls", [{"id": "a"}], ', tool call 1, key "type": must be "function"'),
        ("messages.2.function_call", {"name": "a b"}, 'key "name": must be 1 to 64 letters'),
        ("tools", [{"type": "web"}], ', tool 1, key "type": must be "function"'),
        ("functions", [{"name": "a", "parameters": 5}], ', function 1, key "parameters": must be'),
        ("parallel_tool_calls", 1, ', key "parallel_tool_calls": must be true or false'),
        ("weights", 1, ": key 2 of 2 is unrecognized; allowed: functions, messages"),
    ],
)
def test_what_is_wrong_with_a_message_is_told(path: str, value: object, told: str) -> None:
    message = _refusal(HELLO, _changed(HELLO, path, value))
    assert message.startswith("Line 2")
    assert told in message


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("input", [], ', key "input": must be an object'),
        ("input.messages", [], ', input, key "messages": must be a list'),
        ("input.extra", 1, ", input: key 3 of 3 is unrecognized; allowed: functions, messages"),
        ("preferred_output", [], ", preferred_output"),
        ("non_preferred_output", [{"role": "user", "content": "x"}], "one assistant message"),
        ("extra", 1, ": key 4 of 4 is unrecognized; allowed: input, non_preferred"),
    ],
)
def test_what_is_wrong_with_a_pair_is_told(path: str, value: object, told: str) -> None:
    assert told in _refusal(PAIR, _changed(PAIR, path, value), method=Method.DPO)


def test_the_format_of_another_method_is_named() -> None:
    assert "give method dpo" in _refusal(PAIR)
    assert "give method supervised" in _refusal(HELLO, method=Method.DPO)
    assert "prompt/completion" in _refusal({"prompt": "a", "completion": "b"})
    assert 'key "messages" is missing' in _refusal({})


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"[{}]", "Line 1: a JSON array; each line must be one JSON object"),
        (b"{\n", "each example must be a whole JSON object on one line"),
        (b"7", "Line 1: not a JSON object"),
        (b'{"a": NaN}', "Line 1: not valid JSON ("),
        (b'{"a": "\xff"}', "Line 1: not UTF-8 text at byte 8"),
        ("{}".encode("utf-16"), "Line 1: the file is UTF-16; save it as UTF-8"),
        (b"[" * 100_000, "Line 1: nested too deeply"),
        (b'{"a":[' + b"0," * 1_100_000 + b"0]}", "Line 1: holds more than 1000000 values"),
    ],
)
def test_what_is_no_json_line_is_told(data: bytes, told: str) -> None:
    with pytest.raises(InvalidDataset) as caught:
        _check(data)
    assert told in caught.value.message
    assert caught.value.line == 1


def test_a_line_is_bounded_and_refused_before_it_has_all_come() -> None:
    def endless() -> Iterator[bytes]:
        yield _file(HELLO)
        while True:
            yield b"x" * 1024 * 1024

    with pytest.raises(InvalidDataset) as caught:
        datasets.check(endless(), Method.SUPERVISED)
    assert caught.value.line == 2
    assert f"longer than {LINE_BYTES_MAX // 2**20} MiB" in caught.value.message


@pytest.mark.parametrize("count", [0, 3, 9])
def test_too_few_examples_are_counted(count: int) -> None:
    with pytest.raises(InvalidDataset) as caught:
        _check(_file(*[HELLO] * count))
    assert (caught.value.code, caught.value.line) == ("invalid_n_examples", None)
    message = f"Training file has {count} example(s), but must have at least 10 examples"
    assert caught.value.message == message


def test_a_validation_file_is_called_so_and_may_have_one_example() -> None:
    check = datasets.check
    assert check([_file(HELLO)], Method.SUPERVISED, file="validation").examples == 1
    with pytest.raises(InvalidDataset) as caught:
        check([b"{}"], Method.SUPERVISED, file="validation")
    assert caught.value.code == "invalid_validation_file"
    assert "an invalid validation file" in caught.value.message


@given(
    data=st.lists(
        st.sampled_from(
            [
                json.dumps(HELLO).encode(),
                json.dumps(WITH_TOOLS).encode(),
                json.dumps(_changed(HELLO, "messages.0.role", "human")).encode(),
                b"",
                b"\r",
                b"{",
                b"\xff",
            ]
        ),
        max_size=14,
    ).map(b"\n".join),
    cuts=st.lists(st.integers(0, 4000), max_size=20),
)
def test_how_a_file_is_cut_into_chunks_changes_nothing(data: bytes, cuts: list[int]) -> None:
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[start:end] for start, end in pairwise(bounds)]
    assert b"".join(chunks) == data
    assert _outcome(chunks) == _outcome([data])


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


def _paths(value: object, prefix: str = "") -> Iterator[str]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)  # type: ignore[arg-type]  # a list, if not a dict
    for key, inner in pairs:
        path = f"{prefix}{key}"
        yield path
        if isinstance(inner, dict | list):
            yield from _paths(inner, f"{path}.")


@given(data=st.data())
def test_a_mutated_line_is_refused_by_its_number_or_valid(data: st.DataObject) -> None:
    kinds: list[tuple[Method, Example]] = [
        (Method.SUPERVISED, HELLO),
        (Method.SUPERVISED, WITH_TOOLS),
        (Method.SUPERVISED, OLDER),
        (Method.DPO, PAIR),
    ]
    method, example = data.draw(st.sampled_from(kinds))
    good = HELLO if method is Method.SUPERVISED else PAIR
    path = data.draw(st.sampled_from(sorted(_paths(example))))
    mutated = _changed(example, path, data.draw(JSON_VALUES))
    found = _outcome([_file(*[good] * 9, mutated)], method)
    if found != (10,):
        assert found[:2] == ("invalid_training_file", 10)
        assert "Line 10" in str(found[2])


@given(data=st.data())
def test_a_line_with_other_bytes_in_it_is_refused_by_its_number_or_valid(
    data: st.DataObject,
) -> None:
    line = bytearray(json.dumps(WITH_TOOLS).encode())
    at = data.draw(st.integers(0, len(line) - 1))
    line[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    mutated = bytes(line).replace(b"\n", b" ")
    found = _outcome([_file(*[HELLO] * 9) + mutated])
    if found != (10,):
        assert found[:2] == ("invalid_training_file", 10)


def test_memory_does_not_grow_with_the_file() -> None:
    chunk = _file(*[_changed(HELLO, "messages.1.content", "Hello " * 2000)] * 16)
    count = 200 * 2**20 // len(chunk)
    tracemalloc.start()
    try:
        found = datasets.check((chunk for _ in range(count)), Method.SUPERVISED)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.bytes_ == count * len(chunk) > 199 * 2**20
    assert found.examples == count * 16
    assert peak < 2 * 2**20


CANARY = "Zq7"
FIXED = frozenset({"function", "text", "user", "assistant", "tool", "developer", "system"})


def _marked(value: Any) -> Any:
    """The same example with a canary in every text of it that the format leaves free."""
    if isinstance(value, dict):
        return {key: _marked(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_marked(inner) for inner in value]
    return f"{value}{CANARY}" if isinstance(value, str) and value not in FIXED else value


def _beside(path: str) -> str:
    """A new key in the object that a path's last key is in."""
    parent = path.rpartition(".")[0]
    return f"{parent}.{CANARY}" if parent else CANARY


@given(data=st.data())
def test_no_message_quotes_a_key_or_a_value_of_the_data(data: st.DataObject) -> None:
    method, example = data.draw(
        st.sampled_from(
            [(Method.SUPERVISED, WITH_TOOLS), (Method.SUPERVISED, OLDER), (Method.DPO, PAIR)]
        )
    )
    marked = _marked(example)
    path = data.draw(st.sampled_from(sorted(_paths(marked))))
    how = data.draw(st.sampled_from(["value", "object", "key", "cut", "byte"]))
    if how == "value":
        marked = _changed(marked, path, CANARY)
    elif how == "object":
        marked = _changed(marked, path, {CANARY: CANARY})
    elif how == "key":
        # Beside what is there, or in it.
        inside = _changed(marked, path, {CANARY: CANARY})
        marked = inside if path[-1].isdigit() else _changed(marked, _beside(path), CANARY)
    line = json.dumps(marked).encode()
    if how == "cut":
        line = line[: data.draw(st.integers(1, len(line) - 1))]
    elif how == "byte":
        at = data.draw(st.integers(0, len(line) - 1))
        line = (
            line[:at] + data.draw(st.binary(min_size=1, max_size=2)).replace(b"\n", b"") + line[at:]
        )
    good = HELLO if method is Method.SUPERVISED else PAIR
    found = _outcome([_file(*[good] * 9) + line], method)
    assert CANARY not in str(found)
