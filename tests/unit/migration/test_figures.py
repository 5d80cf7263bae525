"""Figures of pairs that differ in known ways."""

import json
import math
from typing import Any

import pytest

from tunewarden.migration import figures

Object = dict[str, Any]


def _answer(content: str | None = None, **message: Any) -> Object:
    logprobs = message.pop("logprobs", None)
    choice = {"message": {"content": content, **message}, "logprobs": logprobs}
    return {"status": 200, "response": {"choices": [choice]}}


def _call(name: str, arguments: str) -> Object:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def _sure(**chances: float) -> Object:
    """Logprobs of a first token, the first of these, with its alternatives."""
    tokens = [{"token": name, "logprob": math.log(one)} for name, one in chances.items()]
    return {"content": [{**tokens[0], "top_logprobs": tokens}]}


def test_the_same_text_is_exact_but_for_spaces_at_its_ends() -> None:
    for after, is_exact in (("Yes.", True), (" Yes.\n", True), ("yes.", False)):
        assert figures.of_pair(_answer("Yes."), _answer(after))["exact"] is is_exact


@pytest.mark.parametrize(
    ("after", "is_json", "share"),
    [
        ('{"b": [1, 2], "a": {"x": "y"}}', True, 1.0),
        ('{"a": {"x": "y"}, "b": [1, 3]}', True, 2 / 3),
        ('{"a": {"x": "z"}}', True, 0.0),
        ('{"a": {"x": "y"}, "b": [true, 2], "c": 0}', True, 2 / 3),
        ('"y"', False, 0.0),
        ("Sorry", False, 0.0),
    ],
)
def test_fields_agree_where_the_same_value_stands_in_the_same_place(
    after: str, is_json: bool, share: float
) -> None:
    found = figures.of_pair(_answer('{"a": {"x": "y"}, "b": [1, 2]}'), _answer(after))
    assert found["json"] is is_json
    assert found["fields"] == pytest.approx(share)


@pytest.mark.parametrize("text", ["{}", "[]"])
def test_what_has_no_fields_agrees_with_itself_alone(text: str) -> None:
    assert figures.of_pair(_answer(text), _answer(text))["fields"] == 1.0
    assert figures.of_pair(_answer(text), _answer('{"a": 1}'))["fields"] == 0.0


def test_text_is_not_measured_as_json() -> None:
    assert "json" not in figures.of_pair(_answer("Yes."), _answer("{}"))


def test_calls_agree_in_name_and_arguments_however_these_are_written() -> None:
    before = _answer(tool_calls=[_call("find", '{"a": 1, "b": 2}')])
    for call, is_same in (
        (_call("find", '{"b":2,"a":1}'), True),
        (_call("find", '{"a": 1}'), False),
        (_call("seek", '{"a": 1, "b": 2}'), False),
    ):
        assert figures.of_pair(before, _answer(tool_calls=[call]))["tools"] is is_same
    assert figures.of_pair(before, _answer("1"))["tools"] is False


def test_a_label_is_compared_by_how_likely_it_was() -> None:
    before = _answer("positive", logprobs=_sure(positive=0.9, negative=0.1))
    # Another tokenizer, and another favourite.
    after = _answer("negative", logprobs=_sure(negative=0.6, pos=0.3, neutral=0.1))
    found = figures.of_pair(before, after)
    assert found["labels"] is False
    assert found["chance_there"] == pytest.approx(0.9)
    assert found["chance_here"] == pytest.approx(0.3)
    together = figures.together([found])
    assert together["chance_difference"] == pytest.approx(0.6)
    assert "labels" not in figures.of_pair(before, _answer("positive"))


def test_refusals_are_counted_on_each_side_and_measure_nothing_else() -> None:
    refused = {"status": 400, "error": {}}
    pairs = [
        figures.of_pair(refused, _answer("Yes.")),
        figures.of_pair(_answer("Yes."), {"status": "invalid", "error": {}}),
        figures.of_pair(_answer(None, refusal="No."), _answer(None, refusal="No.")),
    ]
    found = figures.together(pairs)
    assert (found["answers"], found["refused_there"], found["refused_here"]) == (3, 2, 2)
    assert found["exact"]["of"] == 1


def test_thresholds_fail_also_where_nothing_was_measured() -> None:
    found = figures.together([figures.of_pair(_answer("a"), _answer(one)) for one in ("a", "bbb")])
    assert found["exact"] == {"of": 2, "share": 0.5}
    assert found["length"] == 2.0
    assert figures.below(found, {"exact": 0.5}) == []
    assert figures.below(found, {"exact": 0.6, "tools": 0.1}) == ["exact", "tools"]


@pytest.mark.parametrize(
    "response",
    [None, [], {"choices": None}, {"choices": [1]}, {"choices": [{"message": 1}]}],
)
def test_what_is_no_answer_is_a_refusal(response: Any) -> None:
    found = figures.of_pair({"status": 200, "response": response}, _answer("a"))
    assert found == {"refused_there": True, "refused_here": False}
    assert json.dumps(found)
