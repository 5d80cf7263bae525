"""Whatever a model would like to say: what comes out follows the schema, or was cut."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import jsonschema
import msgspec
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support import demo_models
from tokenizers import Tokenizer

from tunewarden.embedded_engine.constraints import Compiler, Constraint
from tunewarden.embedded_engine.sampling import Chooser, Sampling, choose

VOCABULARY, END, TOKENS_MAX = 1026, 2, 120
NAMES = st.sampled_from(["a", "b", "é", 'quo"te', "long name"])
LEAVES: Any = st.one_of(
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": ["integer", "null"]}]),
    st.builds(
        lambda low, width: {"type": "integer", "minimum": low, "maximum": low + width},
        st.integers(-1000, 1000),
        st.integers(0, 500),
    ),
    st.builds(
        lambda least, more: {"type": "string", "minLength": least, "maxLength": least + more},
        st.integers(0, 4),
        st.integers(0, 4),
    ),
    st.sampled_from([{"type": "string", "pattern": "^[a-f]{1,3}[0-9]?$"}, {"const": "é\n"}]),
    st.builds(lambda values: {"enum": values}, st.lists(st.text(max_size=5), min_size=1)),
)


def _branches(inner: Any) -> Any:
    objects = st.builds(
        lambda properties, optional: {
            "type": "object",
            "properties": properties,
            "required": [name for name in properties if name not in optional],
            "additionalProperties": False,
        },
        st.dictionaries(NAMES, inner, max_size=3),
        st.sets(NAMES, max_size=2),
    )
    arrays = st.builds(
        lambda items, least: {
            "type": "array",
            "items": items,
            "minItems": least,
            "maxItems": least + 2,
        },
        inner,
        st.integers(0, 2),
    )
    return st.one_of(
        objects,
        arrays,
        st.builds(lambda some: {"anyOf": some}, st.lists(inner, min_size=1, max_size=3)),
    )


SCHEMAS: Any = st.recursive(LEAVES, _branches, max_leaves=6)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return Tokenizer.from_file(str(demo_models.base_dir() / "tokenizer.json"))


@pytest.fixture(scope="module")
def compiler(tokenizer: Any) -> Iterator[Compiler]:
    with closing(Compiler(tokenizer, VOCABULARY, [END])) as one:
        yield one


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)
@given(schema=SCHEMAS, seed=st.integers(0, 1000))
def test_what_random_logits_say_follows_the_schema(
    compiler: Compiler, tokenizer: Any, schema: Any, seed: int
) -> None:
    matcher = compiler.compile(Constraint.of_schema(schema, "response_format"))
    generator = torch.Generator().manual_seed(seed)
    chooser = Chooser(Sampling(seed=seed, temperature=1.5), 0, ends=[END], matcher=matcher)
    said: list[int] = []
    while len(said) < TOKENS_MAX and not matcher.is_complete and said[-1:] != [END]:
        logits = torch.randn(1, VOCABULARY, generator=generator) * 3
        said.append(choose(logits, [chooser])[0].token)
        assert matcher.problem is None
    if len(said) < TOKENS_MAX:
        text = tokenizer.decode(said, skip_special_tokens=True)
        jsonschema.validate(msgspec.json.decode(text), schema)
