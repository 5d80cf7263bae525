"""What constraints let through, and what they refuse."""

import math
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.support import demo_models
from tokenizers import Tokenizer, decoders, models

from tunewarden.embedded_engine import constraints
from tunewarden.embedded_engine.constraints import Compiler, Constraint, Matcher
from tunewarden.embedded_engine.mask_time import BUDGET_SECONDS
from tunewarden.embedded_engine.masks import hold
from tunewarden.embedded_engine.sampling import LOGPROB_MIN, Chooser, Sampling, choose
from tunewarden.embedded_engine.trial import set_bit
from tunewarden.errors import Error

VOCABULARY, END = 1026, 2
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
ONE_OF: dict[str, Any] = {"oneOf": [{"type": "string"}, {"minLength": 2}]}
# What would change how the library reads a schema, if it took it from a client.
OPTIONS: dict[str, Any] = {
    name: {"coerce_one_of": True, "lenient": True} for name in ("x-guidance", "x-llg")
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return Tokenizer.from_file(str(demo_models.base_dir() / "tokenizer.json"))


@pytest.fixture(scope="module")
def compiler(tokenizer: Any) -> Iterator[Compiler]:
    with closing(Compiler(tokenizer, VOCABULARY, [END])) as one:
        yield one


def may_follow(matcher: Matcher, token: int) -> bool:
    return bool(matcher.mask[token // 8] >> token % 8 & 1)


def takes(compiler: Compiler, tokenizer: Any, constraint: Constraint, text: str) -> bool:
    """Return whether the text is what the constraint asks for, from begin to end."""
    matcher = compiler.compile(constraint)
    ids = [*tokenizer.encode(text, add_special_tokens=False).ids, END]
    for token in ids:
        if matcher.is_complete:
            return bool(token == END)
        if not may_follow(matcher, token):
            return False
        matcher.take(token)
    return True


@pytest.mark.parametrize(
    ("constraint", "good", "bad"),
    [
        (Constraint.of_schema(PERSON, "p"), '{"name": "é", "age": 4}', '{"name":"a"}'),
        (
            Constraint.of_schema(PERSON, "p"),
            '{\n  "name":"a",\n  "age":4\n}',
            '{"name":   "a","age":4}',
        ),
        (Constraint.of_schema({"type": "object"}, "p"), '{"a":[1,null]}', "[1]"),
        (Constraint.of_schema(True, "p"), "[1]", "hello"),
        (Constraint.of_regex("[a-c]{2,3}", "p"), "abc", "abca"),
        (Constraint.of_choices(["yes", 'no "é"\n\\'], "p"), 'no "é"\n\\', "maybe"),
        (
            Constraint.of_schema(PERSON, "p", compact=True),
            '{"name":"","age":4}',
            '{"name": "a","age":4}',
        ),
        (Constraint.of_grammar('root ::= "a" root | "b"', "p"), "aab", "aa"),
        (Constraint.of_grammar('start: "a"+', "p"), "aa", "b"),
        (Constraint.of_lark('start: "a" b\nb: "b" | "c"', "p"), "ac", "aa"),
    ],
)
def test_only_the_asked_form_gets_through(
    compiler: Compiler, tokenizer: Any, constraint: Constraint, good: str, bad: str
) -> None:
    assert takes(compiler, tokenizer, constraint, good)
    assert not takes(compiler, tokenizer, constraint, bad)


def test_a_grammar_embeds_schemas_and_special_tokens(compiler: Compiler, tokenizer: Any) -> None:
    text = f"start: <|user|> {constraints.json_rule(PERSON)} <|system|>"
    constraint = Constraint.of_lark(text, "tools")
    said = '<|user|>{"name":"a","age":4}<|system|>'
    assert takes(compiler, tokenizer, constraint, said)
    assert not takes(compiler, tokenizer, constraint, said[len("<|user|>") :])
    with pytest.raises(Error, match=r"Invalid 'tools'.*unknown special token") as caught:
        compiler.compile(Constraint.of_lark("start: <|no_such|>", "tools"))
    assert caught.value.param == "tools"


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"not": {}}, "Unimplemented keys"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"$ref": "http://127.0.0.1:9/a.json"}, "127.0.0.1:9"),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, "Unsatisfiable"),
        (False, "Unsatisfiable"),
        ({"type": "integer", "minimum": 1e30}, "bounds of a number"),
        (
            {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
            "no finite JSON value follows it",
        ),
        (
            ONE_OF,
            "^Invalid 'response_format': the branches of a 'oneOf' .* use 'anyOf' instead[.]$",
        ),
        ({**ONE_OF, **OPTIONS}, "the branches of a 'oneOf'"),
        ({"type": "object", "properties": {"a": {**ONE_OF, **OPTIONS}}}, "the branches of a"),
        ({"enum": ["x" * constraints.CONSTRAINT_CHARACTERS_MAX]}, "longer"),
    ],
)
def test_what_cannot_be_kept_is_refused(compiler: Compiler, schema: Any, reason: str) -> None:
    with pytest.raises(Error, match=reason) as caught:
        compiler.compile(Constraint.of_schema(schema, "response_format"))
    assert caught.value.param == "response_format"
    assert len(caught.value.message) < 400


def test_a_schema_that_is_not_strict_may_say_more_than_can_be_kept(
    compiler: Compiler, tokenizer: Any
) -> None:
    schema = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    loose = Constraint.of_schema(schema, "p", strict=False)
    assert takes(compiler, tokenizer, loose, "[1,1]")
    assert not takes(compiler, tokenizer, loose, '["a"]')
    with pytest.raises(Error, match="uniqueItems"):
        compiler.compile(Constraint.of_schema(schema, "p"))


def follow(matcher: Matcher, sampling: Sampling, ends: list[int], count: int) -> list[int]:
    """Choose tokens of even logits until the matcher is complete."""
    chooser = Chooser(sampling, 0, ends=ends, matcher=matcher)
    said: list[int] = []
    while len(said) < count and not matcher.is_complete and matcher.problem is None:
        said.append(choose(torch.zeros(1, VOCABULARY), [chooser])[0].token)
    return said


def test_every_kind_of_draw_keeps_to_the_form(compiler: Compiler, tokenizer: Any) -> None:
    matcher = compiler.compile(Constraint.of_choices(["yes", "no"], "p"))
    bias = ((tokenizer.encode("x", add_special_tokens=False).ids[0], 100.0),)
    for sampling in (
        Sampling(temperature=0, logit_bias=bias),
        Sampling(seed=1, logit_bias=bias, top_k=900, repetition_penalty=1.5),
        Sampling(seed=2, temperature=2, presence_penalty=1, top_p=0.99),
        Sampling(seed=3, min_tokens=9),
    ):
        said = follow(matcher.copy(), sampling, [END], 9)
        assert tokenizer.decode(said) in ("yes", "no")


def test_a_complete_text_ends_before_min_tokens(compiler: Compiler) -> None:
    # The empty text is complete, and only the end token says so.
    matcher = compiler.compile(Constraint.of_regex("", "p"))
    assert follow(matcher, Sampling(seed=1, min_tokens=5), [END], 3) == [END]


def test_logprobs_are_shared_among_what_may_follow(compiler: Compiler) -> None:
    matcher = compiler.compile(Constraint.of_choices(["a", "b"], "p"))
    chooser = Chooser(Sampling(seed=1, top_logprobs=3), 0, matcher=matcher)
    free = Chooser(Sampling(seed=1, top_logprobs=3), 0)
    choice, beside = choose(torch.zeros(2, VOCABULARY), [chooser, free])
    logprobs = [logprob for _, logprob in choice.top]
    assert logprobs[:2] == pytest.approx([-0.6931] * 2, abs=1e-3)
    assert logprobs[2] == LOGPROB_MIN
    assert beside.logprob == pytest.approx(-math.log(VOCABULARY), abs=1e-3)


def test_what_may_not_follow_is_taken_from_the_rows_that_are_held_alone(
    compiler: Compiler, tokenizer: Any
) -> None:
    """Of all rows, of some beside and between others, and of one; in a vocabulary smaller than the mask."""
    matchers = [compiler.compile(Constraint.of_schema(PERSON, "p")) for _ in range(4)]
    for count, matcher in enumerate(matchers):
        for token in tokenizer.encode('{"name": "é', add_special_tokens=False).ids[: 2 * count]:
            matcher.take(token)
    assert len({matcher.mask for matcher in matchers}) > 2
    before = torch.arange(6.0)[:, None] + torch.arange(VOCABULARY - 3)
    for rows in ([0, 1, 2, 3], [1, 2, 4, 5], [3]):
        logits, held = before.clone(), dict(zip(rows, matchers, strict=False))
        hold(logits, rows, list(held.values()))
        expected = before.clone()
        for row, matcher in held.items():
            for token in range(VOCABULARY - 3):
                if not may_follow(matcher, token):
                    expected[row, token] = -torch.inf
        assert torch.equal(logits, expected)


def test_a_trial_takes_no_longer_than_it_may_with_a_vocabulary_of_real_size() -> None:
    """Gemma's has 262,144 tokens; of a long string nearly all may follow."""
    letters = {chr(at): at - 32 for at in range(32, 127)}
    words = {f"w{at}": at for at in range(len(letters), 262_143)}
    tokenizer = Tokenizer(models.BPE(vocab=letters | words | {"<end>": 262_143}, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    with closing(Compiler(tokenizer, 262_144, [262_143])) as compiler:
        text = {"type": "string", "minLength": 500, "maxLength": 2000}
        matcher = compiler.compile(Constraint.of_schema(text, "p"))
    matcher.take(letters['"'])
    assert may_follow(matcher, words["w262000"])


@given(st.sets(st.integers(0, 300), min_size=1), st.data())
def test_a_set_bit_is_found_by_its_number(places: set[int], data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(places) - 1))
    assert set_bit(sum(1 << place for place in places), number) == sorted(places)[number]


def test_a_text_that_no_token_continues_says_so() -> None:
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0, "<end>": 1}, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    with closing(Compiler(tokenizer, 2, [1])) as compiler:
        matcher = compiler.compile(Constraint.of_regex("a{600}b", "p"))
        for _ in range(599):
            matcher.take(0)
        assert (matcher.problem, matcher.is_complete) == (None, False)
        matcher.take(0)
        assert matcher.problem is not None
        assert "no token of this model continues the text" in matcher.problem.message
        assert not matcher.is_complete
        # Of a row that may have no more tokens nobody asks what follows.
        last = compiler.compile(Constraint.of_regex("a{600}b", "p")).copy(600)
        for _ in range(600):
            before = last.mask
            last.take(0)
        assert last.mask is before
        assert (last.problem, last.is_complete) == (None, False)


def _chain(count: int) -> str:
    return (
        "start: R0\n" + "".join(f'R{at}: "a" R{at + 1}\n' for at in range(count)) + f'R{count}: "a"'
    )


HOSTILE = {
    "a stack too small": Constraint.of_lark(_chain(4000), "p"),
    "a chain of references": Constraint.of_schema(
        {
            "$ref": "#/$defs/r0",
            "$defs": {
                **{f"r{at}": {"$ref": f"#/$defs/r{at + 1}"} for at in range(3000)},
                "r3000": {},
            },
        },
        "p",
    ),
    "minutes of work": Constraint.of_lark(
        "start: R\nR: " + " & ".join(f"/(.*a.{{{at}}}.*)/" for at in range(60)), "p"
    ),
    "many names": Constraint.of_schema(
        {"type": "object", "patternProperties": {f"^a{at}.*b{at}$": {} for at in range(300)}}, "p"
    ),
    "a slow translation": Constraint.of_grammar("root ::= a" + "\n" * 100_000, "p"),
}


def test_what_would_crash_or_hold_the_engine_is_refused(compiler: Compiler, tokenizer: Any) -> None:
    for constraint in HOSTILE.values():
        with pytest.raises(Error, match="Invalid 'p'") as caught:
            compiler.compile(constraint)
        assert caught.value.param == "p"
    assert takes(compiler, tokenizer, Constraint.of_regex("a+", "p"), "aaa")


@pytest.mark.parametrize("kind", ["integer", "number"])
def test_numbers_may_have_bounds_that_are_far_out(
    compiler: Compiler, tokenizer: Any, kind: str
) -> None:
    schema = {"type": kind, "minimum": -1e30, "maximum": 1e30}
    constraint = Constraint.of_schema(schema, "p")
    assert takes(compiler, tokenizer, constraint, "-999999999999999999")
    assert not takes(compiler, tokenizer, constraint, "1" * 40)
    whole = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
    assert takes(compiler, tokenizer, Constraint.of_schema(whole, "p"), str(2**63 - 1))


def test_a_grammar_that_becomes_slow_ends_its_organizations_request(compiler: Compiler) -> None:
    """Each token of an ambiguous text takes longer; in all it may take little more than the budget."""
    # Its trial sees the begin only, which is quick on any machine; else a slow one refuses it there.
    constraint = Constraint.of_lark('start: /b{60}/ s\ns: s s | s s s | "a"', "p")
    begun = time.thread_time()
    for _ in range(20):
        matcher = compiler.compile(constraint, "ambiguous")
        follow(matcher, Sampling(seed=1, logit_bias=((END, -100.0),)), [], 400)
        assert matcher.problem is not None
        assert "take too long to find" in matcher.problem.message
    # Without a budget each takes 17 s.
    assert time.thread_time() - begun < 12 * BUDGET_SECONDS
    other = compiler.compile(constraint, "another")
    follow(other, Sampling(seed=1, logit_bias=((END, -100.0),)), [], 50)
    assert other.problem is None
