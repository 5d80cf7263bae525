"""The expected values of a configuration for promptfoo, which renders them as templates and runs files that they name."""

from typing import Any

import pytest

from tunewarden.migration import promptfoo


def _value(said: str) -> str:
    answer = {"response": {"choices": [{"message": {"content": said}}]}}
    line: dict[str, Any] = {"request": {"messages": []}, "there": answer}
    made = promptfoo.configuration("ft:x", "http://127.0.0.1:8800/v1", [line])
    value: str = made["tests"][0]["assert"][0]["value"]
    return value


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("We open at nine.", '{{ "We open at nine." }}'),
        # An answer is text of a model: nothing of it may be run.
        ("file://evil.js", '{{ "file://evil.js" }}'),
        ("{{ 7 * 7 }} {% raw %}", '{{ "{{ 7 * 7 }} {% raw %}" }}'),
        ('{"a": "\\n"}', '{{ "{\\"a\\": \\"\\\\n\\"}" }}'),
        ("one\ntwo\ttab", '{{ "one\\ntwo\\ttab" }}'),
    ],
)
def test_an_answer_is_a_string_of_the_template_whatever_it_says(said: str, value: str) -> None:
    assert _value(said) == value
