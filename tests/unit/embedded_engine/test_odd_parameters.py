"""Whatever values a request's parameters have: another request of the same batch is answered as if it were alone."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.embedded_engine import BASE, EngineProcess, endless, question, running_engine

from tunewarden.embedded_engine.sampling import Sampling
from tunewarden.engine_protocol import paths

EXAMPLES = 25
AT_ONCE = 8
TOKENS = 30
ODD_INTEGERS = [0, 1, -1, 2, 20, 21, 128, 129, 1025, 1026, 2048, 2**31 - 1, 2**31, 2**32, 2**53 + 1]
LARGE_INTEGERS = [2**63 - 1, 2**63, -(2**63), 2**64, 10**30, -(10**30), 10**400]
SMALL_DECIMALS = [
    0.0,
    -0.0,
    5e-324,
    1e-320,
    9.9e-6,
    1e-5,
    1e-3,
    0.01,
    0.5,
    1 - 2**-53,
    1.0,
    1.5,
    2.0,
]
LARGE_DECIMALS = [-2.0, 100.0, -100.0, 1e19, 1e300, -1e300, float("inf"), float("nan")]
ODD_NUMBERS = [*ODD_INTEGERS, *LARGE_INTEGERS, *SMALL_DECIMALS, *LARGE_DECIMALS]
NUMBERS: Any = st.one_of(st.sampled_from(ODD_NUMBERS), st.floats(0, 2))
OTHERS: Any = st.sampled_from([None, True, False, "", "1", "\ud800", [], [[]], {}, {"": None}])
TEXTS: Any = st.sampled_from(["", "a", " ", "\x00", "é", "\U0001f600" * 300, "e" * 500, "e" * 501])
TOKEN_NAMES: Any = st.sampled_from(
    ["0", "1", "2", "1025", "1026", "-1", "01", "x", "9" * 9, "9" * 30]
)
SCHEMAS: Any = st.sampled_from(
    [
        {"type": "integer", "minimum": -1e30, "maximum": 1e30},
        {"type": "string", "minLength": 10**9},
        {"type": "array", "minItems": 10**12},
        {"$ref": "#"},
        {"enum": []},
        {"not": {}},
        {"pattern": "(((("},
        {"multipleOf": 5e-324},
        {"multipleOf": 0},
    ]
)
NUMERIC = [
    *[one.name for one in fields(Sampling) if one.name != "logit_bias"],
    *["n", "best_of", "max_tokens", "max_completion_tokens", "length_penalty"],
]
PARAMETERS: dict[str, Any] = {
    **dict.fromkeys(NUMERIC, NUMBERS),
    "logprobs": st.one_of(NUMBERS, st.booleans()),
    "logit_bias": st.dictionaries(TOKEN_NAMES, NUMBERS, max_size=4),
    "stop": st.one_of(TEXTS, st.lists(TEXTS, max_size=5)),
    "stop_token_ids": st.lists(NUMBERS, max_size=65),
    "ignore_eos": st.booleans(),
    "echo": st.booleans(),
    "stream_options": st.dictionaries(st.sampled_from(["include_usage", "x"]), st.booleans()),
    "response_format": st.builds(
        lambda schema: {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        SCHEMAS,
    ),
    "structured_outputs": st.one_of(
        st.builds(lambda schema: {"json": schema}, SCHEMAS),
        st.sampled_from(
            [{"regex": ""}, {"regex": "(a*)*"}, {"choice": [""]}, {"grammar": "start:"}]
        ),
    ),
    "chat_template_kwargs": st.dictionaries(TEXTS, NUMBERS, max_size=2),
}
ODD: Any = st.lists(
    st.sampled_from(sorted(PARAMETERS)), min_size=1, max_size=4, unique=True
).flatmap(
    lambda names: st.fixed_dictionaries(
        {name: st.one_of(PARAMETERS[name], PARAMETERS[name], OTHERS) for name in names}
    )
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with running_engine(tmp_path_factory.mktemp("engine")) as engine:
        yield engine


@pytest.fixture(scope="module")
def alone(engine: EngineProcess) -> str:
    return honest(engine.stream(BASE, "Who are you?", **endless(TOKENS)))


def honest(stream: Any) -> str:
    """Return the text of a stream that ends well."""
    text, finishes = "", []
    for event in stream:
        assert "error" not in event, event
        (choice,) = event["choices"]
        text += choice["delta"].get("content") or ""
        finishes.append(choice["finish_reason"])
    assert (stream.is_done, finishes[-1]) == (True, "length")
    return text


def answered_beside(engine: EngineProcess, alone: str, several: list[dict[str, Any]]) -> None:
    """Send odd requests while an honest one is answered."""

    def send(odd: dict[str, Any]) -> tuple[int, Any]:
        if "echo" in odd or odd.get("logprobs") not in (None, True, False):
            return engine.send("POST", paths.COMPLETIONS, {"model": BASE, "prompt": "Hello", **odd})
        asked = question(BASE, "Hello", max_tokens=TOKENS, temperature=1)
        if "top_logprobs" in odd:
            asked["logprobs"] = True
        return engine.send("POST", paths.CHAT_COMPLETIONS, asked | odd)

    with ThreadPoolExecutor(AT_ONCE) as threads:
        for at in range(0, len(several), AT_ONCE):
            stream = engine.stream(BASE, "Who are you?", **endless(TOKENS))
            for status, said in threads.map(send, several[at : at + AT_ONCE]):
                assert status in (HTTPStatus.OK, HTTPStatus.BAD_REQUEST), said
                assert status == HTTPStatus.OK or said["error"]["message"]
            assert honest(stream) == alone


@pytest.mark.parametrize("name", NUMERIC)
def test_an_odd_number_fails_no_other_request(engine: EngineProcess, alone: str, name: str) -> None:
    answered_beside(engine, alone, [{name: value} for value in ODD_NUMBERS])


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(several=st.lists(ODD, min_size=AT_ONCE, max_size=AT_ONCE))
def test_odd_parameters_fail_no_other_request(
    engine: EngineProcess, alone: str, several: list[dict[str, Any]]
) -> None:
    answered_beside(engine, alone, several)


def test_every_parameter_of_sampling_is_tried() -> None:
    assert {one.name for one in fields(Sampling)} <= PARAMETERS.keys()
