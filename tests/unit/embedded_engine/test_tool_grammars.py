"""What answers a request with tools lets through: in each format, with marks that are special tokens and without."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from tests.support import demo_models
from tokenizers import AddedToken, Tokenizer

from tunewarden.embedded_engine.constraints import Compiler, Constraint
from tunewarden.embedded_engine.tool_grammars import is_special, tool_constraint
from tunewarden.embedded_engine.tools import Function, Tools
from tunewarden.errors import Error
from tunewarden.tool_formats import HERMES, LLAMA, MISTRAL_LIST, MISTRAL_NAMED, ToolFormat

END = 2
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}
HERMES_CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
OTHER_CALL = '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>'
LIST_CALLS = '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]'
NAMED_CALL = '[TOOL_CALLS]f[ARGS]{"a": 1}'
LLAMA_CALL = '{"name": "f", "parameters": {"a": 1}}'
MARKS = {
    "hermes": ("<tool_call>", "</tool_call>"),
    "mistral": ("[TOOL_CALLS]",),
    "mistral_named": ("[TOOL_CALLS]", "[ARGS]"),
    "llama": ("<|python_tag|>",),
}


# Each starts a process: one a vocabulary, as in the engine.
COMPILERS: dict[str, Compiler] = {}


@pytest.fixture(scope="module")
def written() -> Iterator[str]:
    yield Tokenizer.from_file(str(demo_models.base_dir() / "tokenizer.json")).to_str()
    for compiler in COMPILERS.values():
        compiler.close()


def tools(*, is_forced: bool, is_parallel: bool = True, is_strict: bool = False) -> Tools:
    functions = (Function("f", SCHEMA, is_strict), Function("g", {"type": "object"}, False))
    return Tools((), functions, is_forced, is_parallel)


def _compiler(tokenizer: Tokenizer) -> Compiler:
    written = tokenizer.to_str()
    if written not in COMPILERS:
        COMPILERS[written] = Compiler(tokenizer, tokenizer.get_vocab_size(), [END])
    return COMPILERS[written]


def takes(
    written: str,
    found: ToolFormat,
    asked: Tools,
    text: str,
    kind: str,
    *,
    answer: Constraint | None = None,
) -> bool:
    """Return whether a text is an answer to such a request, from begin to end."""
    tokenizer = Tokenizer.from_str(written)
    marks = () if kind == "text" else MARKS[found.name]
    if kind == "text":  # The demo's tokenizer has tokens for Hermes' own.
        text = text.replace("tool_call>", "action>")
        found = replace(
            found,
            begin=found.begin.replace("tool_call>", "action>"),
            opening=found.opening.replace("tool_call>", "action>"),
            closing=found.closing.replace("tool_call>", "action>"),
        )
    tokenizer.add_tokens([AddedToken(mark, special=kind == "special") for mark in marks])
    added = tokenizer.get_added_tokens_decoder()
    special = {token: one.content for token, one in added.items() if is_special(one)}
    constraint = tool_constraint(asked, found, special, answer)
    assert constraint is not None
    matcher = _compiler(tokenizer).compile(constraint)
    for token in [*tokenizer.encode(text, add_special_tokens=False).ids, END]:
        if matcher.is_complete:
            return token == END
        if not matcher.mask[token // 8] >> token % 8 & 1:
            return False
        matcher.take(token)
        assert matcher.problem is None
    return True


@pytest.mark.parametrize("kind", ["special", "added", "text"])
@pytest.mark.parametrize(
    ("found", "one", "several"),
    [
        (HERMES, HERMES_CALL, f"{HERMES_CALL}\n{OTHER_CALL}"),
        (MISTRAL_LIST, '[TOOL_CALLS] [{"name": "g", "arguments": {"b": 2}}]', LIST_CALLS),
        (MISTRAL_NAMED, NAMED_CALL, NAMED_CALL * 2),
        (LLAMA, LLAMA_CALL, None),
    ],
)
def test_a_forced_answer_is_calls(
    written: str, found: ToolFormat, one: str, several: str | None, kind: str
) -> None:
    def is_taken(text: str, *, is_parallel: bool = True) -> bool:
        asked = tools(is_forced=True, is_parallel=is_parallel)
        return takes(written, found, asked, text, kind)

    assert is_taken(one)
    assert is_taken(one, is_parallel=False)
    assert not is_taken("Hello")
    assert not is_taken("")
    assert not is_taken(one.replace('"f"', '"h"').replace('"g"', '"h"').replace("f[", "h["))
    assert not is_taken(f"{one} and text")
    if several is not None:
        assert is_taken(several)
        assert not is_taken(several, is_parallel=False)


@pytest.mark.parametrize("kind", ["special", "added", "text"])
@pytest.mark.parametrize(
    ("found", "call"),
    [
        (HERMES, HERMES_CALL),
        (MISTRAL_LIST, LIST_CALLS),
        (MISTRAL_NAMED, NAMED_CALL),
        (LLAMA, LLAMA_CALL),
    ],
)
def test_a_strict_functions_arguments_follow_their_schema_if_it_is_called(
    written: str, found: ToolFormat, call: str, kind: str
) -> None:
    def is_taken(text: str) -> bool:
        asked = tools(is_forced=False, is_strict=True)
        return takes(written, found, asked, text, kind)

    assert is_taken("Hello, <b> and [x] are text.\n")
    assert is_taken("")
    assert is_taken(call)
    assert not is_taken(call.replace("1", '"x"'))
    assert not is_taken(call.replace('"a"', '"b"'))
    if found is not LLAMA:
        assert is_taken(f"I look.\n{call}")
    if found is HERMES:
        assert is_taken(f"I look.\n{call}\n{OTHER_CALL} So.")


def test_nothing_is_demanded_of_other_answers() -> None:
    assert tool_constraint(tools(is_forced=False), HERMES, {}) is None
    assert tool_constraint(tools(is_forced=False, is_strict=True), None, {}) is None


def test_a_call_cannot_be_forced_without_a_format() -> None:
    with pytest.raises(Error) as caught:
        tool_constraint(tools(is_forced=True), None, {})
    assert (caught.value.param, caught.value.code) == ("tool_choice", "unsupported_value")


def test_arguments_are_an_object() -> None:
    asked = Tools((), (Function("f", {"type": "array"}, False),), True, False)
    with pytest.raises(Error, match="must be of 'type: \"object\"'"):
        tool_constraint(asked, HERMES, {})


def test_a_function_without_parameters_has_no_arguments(written: str) -> None:
    only = Tools((), (Function("f", {}, False),), True, False)
    bare = HERMES_CALL.replace('{"a": 1}', "{}")
    assert takes(written, HERMES, only, bare, "special")
    assert not takes(written, HERMES, only, HERMES_CALL, "special")


def test_a_refusal_shows_no_grammar(written: str) -> None:
    broken = Tools((), (Function("f", {"type": "object", "properties": 5}, False),), True, False)
    with pytest.raises(Error) as refused:
        takes(written, HERMES, broken, HERMES_CALL, "special")
    assert refused.value.message.endswith("properties must be an object.")
    assert "call" not in refused.value.message


@pytest.mark.parametrize("kind", ["special", "added", "text"])
@pytest.mark.parametrize("is_strict", [False, True])
@pytest.mark.parametrize(
    ("found", "call"),
    [
        (HERMES, HERMES_CALL),
        (MISTRAL_LIST, LIST_CALLS),
        (MISTRAL_NAMED, NAMED_CALL),
        (LLAMA, LLAMA_CALL),
    ],
)
def test_an_answer_is_calls_or_follows_what_it_is_held_to(
    written: str, found: ToolFormat, call: str, kind: str, *, is_strict: bool
) -> None:
    asked = tools(is_forced=False, is_strict=is_strict)
    whole = {"type": "object", "properties": {"b": SCHEMA}}
    for answer, good in (
        (Constraint.of_schema(whole, "p"), '{"b":{"a":1}}'),
        (Constraint.of_regex("x+", "p"), "xx"),
        (Constraint.of_choices(["yes", "no"], "p"), "no"),
    ):
        is_taken = partial(takes, written, found, asked, kind=kind, answer=answer)
        assert is_taken(text=call)
        assert is_taken(text=good)
        assert not is_taken(text="Hello")
        assert not is_taken(text=call + good)
        assert not is_taken(text=good + call)


def test_without_a_format_or_with_another_grammar_an_answer_is_no_call(written: str) -> None:
    asked = tools(is_forced=False)
    schema = Constraint.of_schema(SCHEMA, "p")
    assert tool_constraint(asked, None, {}, schema) is schema
    grammar = Constraint.of_grammar("start: /x/", "p")
    assert tool_constraint(asked, HERMES, {}, grammar) is grammar


def test_a_function_whose_arguments_have_no_end_is_refused() -> None:
    endless = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
    asked = Tools((), (Function("f", endless, is_strict=True),), is_forced=False, is_parallel=True)
    with pytest.raises(Error, match="function 'f': no finite JSON value") as caught:
        tool_constraint(asked, HERMES, {})
    assert caught.value.param == "tools"
