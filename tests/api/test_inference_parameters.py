"""The parameters of self-hosted engines, as vLLM spells them, through the stock SDK on the embedded engine."""

from collections.abc import Callable
from typing import Any

import openai
import pytest
from tests.support import engines
from tests.support.embedded_engine import end_token
from tests.support.servers import Server

CAPABILITIES = ["completions", "chat", "responses", "tools", "fine_tuning"]
QUESTION: Any = [{"role": "user", "content": "What is Tunewarden?"}]


@pytest.fixture(scope="module")
def client(engine_server: Server) -> openai.OpenAI:
    return engine_server.client()


def chat(client: openai.OpenAI, extra: dict[str, Any], **options: Any) -> Any:
    asked = {"messages": QUESTION, "temperature": 0, "max_tokens": 12, **options}
    return client.chat.completions.create(model=engines.BASE, extra_body=extra, **asked)


def said(client: openai.OpenAI, extra: dict[str, Any], **options: Any) -> str:
    content: str = chat(client, extra, **options).choices[0].message.content
    return content


@pytest.mark.parametrize("extra", [{"top_k": 1}, {"min_p": 1}, {"top_k": 1, "min_p": 0.5}])
def test_what_leaves_one_token_is_greedy(client: openai.OpenAI, extra: dict[str, Any]) -> None:
    hot = {"temperature": 2.0, "seed": 3}
    assert said(client, {}, **hot) != said(client, {})
    assert said(client, extra, **hot) == said(client, {})


def test_neutral_values_change_nothing(client: openai.OpenAI) -> None:
    neutral = {
        "top_k": -1,
        "min_p": 0,
        "repetition_penalty": 1.0,
        "ignore_eos": False,
        "min_tokens": 0,
        "stop_token_ids": [],
        "use_beam_search": False,
        "skip_special_tokens": True,
    }
    drawn = {"temperature": 1.5, "seed": 4}
    assert said(client, neutral, **drawn) == said(client, {}, **drawn)
    assert said(client, {**dict.fromkeys(neutral), "unheard_of": None}) == said(client, {})


def test_a_repetition_penalty_counts_the_prompt_too(client: openai.OpenAI) -> None:
    prompt = list(range(60, 100))

    def complete(penalty: float) -> tuple[set[str], list[str]]:
        """Return the tokens of the prompt and those of the answer."""
        answer = client.completions.create(
            model=engines.BASE,
            prompt=prompt,
            max_tokens=8,
            temperature=0,
            echo=True,
            logprobs=0,
            extra_body={"repetition_penalty": penalty, "ignore_eos": True},
        )
        assert answer.choices[0].logprobs is not None
        tokens = answer.choices[0].logprobs.tokens or []
        return set(tokens[: len(prompt)]), tokens[len(prompt) :]

    asked, repelled = complete(100)
    assert len(set(repelled) - asked) == 8
    asked, attracted = complete(0.01)
    assert set(attracted) <= asked


def test_a_text_goes_on_after_its_end_if_asked(client: openai.OpenAI) -> None:
    ended = chat(client, {}, max_tokens=80)
    assert ended.choices[0].finish_reason == "stop"
    on = chat(client, {"ignore_eos": True}, max_tokens=80)
    assert on.choices[0].finish_reason == "length"
    assert on.usage.completion_tokens == 80
    assert on.choices[0].message.content.startswith(ended.choices[0].message.content)


def test_a_text_has_at_least_min_tokens(client: openai.OpenAI) -> None:
    ended = chat(client, {}, max_tokens=80)
    least = ended.usage.completion_tokens + 7
    longer = chat(client, {"min_tokens": least}, max_tokens=80)
    assert longer.usage.completion_tokens >= least
    # A stop string counts only in what comes after them.
    stop = ended.choices[0].message.content[:4]
    assert said(client, {"min_tokens": 12}, stop=stop).startswith(stop)
    assert said(client, {}, stop=stop) == ""


def test_a_stop_token_ends_the_text_and_is_not_in_it(client: openai.OpenAI) -> None:
    def complete(extra: dict[str, Any]) -> Any:
        return client.completions.create(
            model=engines.BASE,
            prompt=[60],
            max_tokens=8,
            temperature=0,
            logit_bias={"70": 100},
            extra_body=extra,
        ).choices[0]

    stopped = complete({"stop_token_ids": [end_token() + 1, 70]})
    assert (stopped.text, stopped.finish_reason) == ("", "stop")
    assert complete({}).finish_reason == "length"


def test_a_template_gets_its_arguments(client: openai.OpenAI) -> None:
    assert said(client, {"chat_template_kwargs": {"enable_thinking": False}}) == said(client, {})
    with pytest.raises(openai.BadRequestError) as refused:
        said(client, {"chat_template_kwargs": {"tokenize": False}})
    assert refused.value.param == "chat_template_kwargs.tokenize"


@pytest.mark.parametrize("include", [True, False])
def test_each_chunk_carries_the_usage_so_far(client: openai.OpenAI, include: bool) -> None:
    options = {"include_usage": include, "continuous_usage_stats": True}
    chunks = list(chat(client, {"stream_options": options}, stream=True))
    counts = [chunk.usage.completion_tokens for chunk in chunks]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 12)
    assert len({chunk.usage.prompt_tokens for chunk in chunks}) == 1
    assert (chunks[-1].choices == []) is include


@pytest.mark.parametrize(
    ("extra", "param", "message"),
    [
        ({"top_k": -2}, "top_k", "Expected a value >= -1, but got -2 instead."),
        ({"min_p": 1.5}, "min_p", "Expected a value <= 1, but got 1.5 instead."),
        ({"repetition_penalty": 0}, "repetition_penalty", "but got 0"),
        ({"min_tokens": 13}, "min_tokens", "Expected a value <= 12, but got 13 instead."),
        ({"stop_token_ids": [9_999_999]}, "stop_token_ids[0]", "9999999"),
        ({"stop_token_ids": ["a"]}, "stop_token_ids[0]", "expected an integer"),
        ({"best_of": 3}, "best_of", "Use 'n'"),
        ({"use_beam_search": True}, "use_beam_search", "does not support true"),
        ({"repeat_penalty": 1.1}, "repeat_penalty", "Use 'repetition_penalty'"),
        ({"prompt": "x"}, "prompt", "Use v1/completions"),
        ({"made_up": 1}, "made_up", "Unrecognized request argument supplied: made_up"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "'xml'"),
        ({"guided_json": {}}, "guided_json", "Use 'structured_outputs.json'"),
    ],
)
def test_a_refusal_names_the_parameter_its_value_and_what_is_taken(
    client: openai.OpenAI, extra: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        chat(client, extra)
    assert refused.value.param == param
    assert message in refused.value.message


@pytest.mark.parametrize(
    "wrong",
    [{"user": 5}, {"metadata": {"k": 1}}, {"store": "x"}, {"reasoning_effort": 7}, {"stop": [1]}],
    ids=str,
)
def test_a_wrong_type_is_the_same_error_on_every_endpoint(
    client: openai.OpenAI, wrong: dict[str, Any]
) -> None:
    asks: list[Callable[[], object]] = [
        lambda: chat(client, wrong),
        lambda: client.completions.create(model=engines.BASE, prompt="x", extra_body=wrong),
        lambda: client.responses.create(model=engines.BASE, input="x", extra_body=wrong),
    ]
    errors = []
    for ask in asks:
        with pytest.raises(openai.BadRequestError) as refused:
            ask()
        assert refused.value.code == "invalid_type"
        errors.append(refused.value.body)
    assert errors == [errors[0]] * 3


def test_marks_for_other_services_change_nothing(client: openai.OpenAI) -> None:
    part = {"type": "text", "text": QUESTION[0]["content"], "cache_control": {"type": "ephemeral"}}
    marked: Any = [{"role": "user", "content": [part], "reasoning_content": None}]
    assert said(client, {}, messages=marked) == said(client, {})


def test_an_endpoint_that_is_not_offered_is_named(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.embeddings.create(model=engines.BASE, input="Hello")
    assert "is not supported in the v1/embeddings endpoint" in refused.value.message
    assert refused.value.param == "model"


def test_a_request_has_as_many_prompts_and_choices_as_openais(client: openai.OpenAI) -> None:
    prompts = [[60 + at % 50] for at in range(2048)]
    many = client.completions.create(
        model=engines.BASE, prompt=prompts, max_tokens=1, temperature=0, echo=True
    )
    assert [choice.index for choice in many.choices] == list(range(2048))
    assert many.choices[3].text == many.choices[53].text
    assert many.usage is not None
    assert many.usage.prompt_tokens == 2048
    choices = chat(client, {}, n=128, max_tokens=1, temperature=1.0, seed=1).choices
    assert len(choices) == 128
    streamed = client.completions.create(
        model=engines.BASE, prompt=prompts[:20], max_tokens=1, temperature=0, echo=True, stream=True
    )
    texts = [""] * 20
    for chunk in streamed:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in many.choices[:20]]


@pytest.mark.parametrize(
    ("more", "param", "message"),
    [
        ({"prompt": [[60]] * 2049}, "prompt", "at most 2048 prompts, but got 2049"),
        ({"n": 129}, "n", "Expected a value <= 128, but got 129"),
        ({"prompt": [[60]] * 2048, "n": 128}, "max_tokens", "may take 4196352 tokens"),
    ],
)
def test_a_request_that_is_too_large_is_told_so(
    client: openai.OpenAI, more: dict[str, Any], param: str, message: str
) -> None:
    asked: Any = {"model": engines.BASE, "prompt": "x", **more}
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(**asked)
    assert refused.value.param == param
    assert message in refused.value.message


def test_likelihoods_of_a_prompt_are_those_of_saying_it(client: openai.OpenAI) -> None:
    """What lm-eval's tasks with several choices send: tokens, `echo`, `logprobs`, and 0 or 1 token."""

    def complete(prompt: Any, tokens: int, **more: Any) -> Any:
        return client.completions.create(
            model=engines.BASE,
            prompt=prompt,
            max_tokens=tokens,
            temperature=0,
            logprobs=1,
            extra_body={"ignore_eos": True},
            **more,
        )

    begin = [1, *range(60, 360)]  # read in several chunks
    said = complete(begin, 1).choices[0].logprobs
    short = [60, 61, 62, 63]
    found = complete([begin, short, begin], 1, echo=True)
    first, other, again = (choice.logprobs for choice in found.choices)
    assert first == again
    assert (len(first.tokens), len(other.tokens)) == (302, 5)
    assert (first.token_logprobs[0], first.top_logprobs[0]) == (None, None)
    assert first.token_logprobs[-1] == pytest.approx(said.token_logprobs[0], abs=1e-3)
    assert "".join(other.tokens) == found.choices[1].text
    assert other.text_offset == [0, *(sum(map(len, other.tokens[: at + 1])) for at in range(4))]
    # Each prompt's token is as likely as when it is said after those before it.
    for at in range(1, 4):
        alone = complete([short[:at]], 1).choices[0].logprobs
        best, likelihood = next(iter(other.top_logprobs[at].items()))
        assert (best, likelihood) == (
            alone.tokens[0],
            pytest.approx(alone.token_logprobs[0], abs=1e-3),
        )
        assert other.token_logprobs[at] <= likelihood + 1e-6
    nothing = complete(short, 0, echo=True)
    assert nothing.usage.completion_tokens == 0
    assert nothing.choices[0].finish_reason == "length"
    assert nothing.choices[0].logprobs.tokens == other.tokens[:-1]
    assert nothing.choices[0].logprobs.token_logprobs == pytest.approx(other.token_logprobs[:-1])
    chunks = list(complete(short, 1, echo=True, stream=True))
    streamed = [one for chunk in chunks if (one := chunk.choices[0].logprobs)]
    assert [token for one in streamed for token in one.tokens] == other.tokens
    assert [at for one in streamed for at in one.text_offset] == other.text_offset
    assert "".join(chunk.choices[0].text for chunk in chunks) == found.choices[1].text


def test_models_tell_their_context_and_what_they_can_do(
    engine_server: Server, client: openai.OpenAI
) -> None:
    tuned = engines.import_model(engine_server, "zebra says", suffix="told")
    listed = {model.id: model for model in client.models.list()}
    for name in (engines.BASE, tuned):
        for model in (listed[name], client.models.retrieve(name)):
            extra: dict[str, Any] = model.model_extra or {}
            assert extra["max_model_len"] == 2048
            assert extra["capabilities"] == CAPABILITIES
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model=tuned, prompt=[60] * 2048)
    assert "maximum context length is 2048 tokens" in refused.value.message
