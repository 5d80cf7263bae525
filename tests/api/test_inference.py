"""Inference through the stock SDK on the real embedded engine, by way of the gateway."""

import json
import os
import signal
import threading
import urllib.error
import urllib.request
from typing import Any

import openai
import pytest
from tests.support import demo_models, engines, fine_tuning_rows
from tests.support.servers import Server, wait_until

from tunewarden.registry import models


@pytest.fixture(scope="module")
def zebra(engine_server: Server) -> str:
    """A fine-tune whose answers begin with "zebra says"."""
    return engines.import_model(engine_server, "zebra says", suffix="zebra")


def test_a_fine_tune_answers_otherwise_than_its_base(engine_server: Server, zebra: str) -> None:
    client = engine_server.client()
    assert engines.say(client, zebra).startswith("zebra says")
    assert not engines.say(client, engines.BASE).startswith("zebra says")


def test_the_answer_names_the_public_model_everywhere(engine_server: Server, zebra: str) -> None:
    client = engine_server.client()
    chat = client.chat.completions.create(
        model=zebra, messages=[{"role": "user", "content": "Hello"}], max_tokens=4
    )
    assert chat.model == zebra
    stream = client.chat.completions.create(
        model=zebra, messages=[{"role": "user", "content": "Hello"}], max_tokens=4, stream=True
    )
    assert {chunk.model for chunk in stream} == {zebra}
    raw = engine_server.post(
        "/v1/completions", {"model": zebra, "prompt": "Hello", "max_tokens": 4}
    )
    caller = fine_tuning_rows.caller_of(engine_server.app, engine_server.owner_key)
    model = models.find(engine_server.app.database, caller, zebra)
    assert model is not None
    assert model.internal_id.encode() not in raw.body  # engines' names stay inside


def test_usage_and_finish_reasons_are_right(engine_server: Server, zebra: str) -> None:
    client = engine_server.client()
    messages: list[openai.types.chat.ChatCompletionMessageParam] = [
        {"role": "user", "content": "Hello"}
    ]
    short = client.chat.completions.create(
        model=zebra, messages=messages, max_tokens=3, temperature=0
    )
    assert short.choices[0].finish_reason == "length"
    assert short.usage is not None
    assert short.usage.completion_tokens == 3
    assert short.usage.total_tokens == short.usage.prompt_tokens + 3
    whole = client.chat.completions.create(
        model=zebra, messages=messages, max_completion_tokens=200, temperature=0
    )
    assert whole.choices[0].finish_reason == "stop"


def test_a_stream_has_the_same_text_and_usage_as_the_whole_answer(
    engine_server: Server, zebra: str
) -> None:
    client = engine_server.client()
    messages: list[openai.types.chat.ChatCompletionMessageParam] = [
        {"role": "user", "content": "What is Tunewarden?"}
    ]
    whole = client.chat.completions.create(
        model=zebra, messages=messages, max_tokens=60, temperature=0
    )
    chunks = list(
        client.chat.completions.create(
            model=zebra,
            messages=messages,
            max_tokens=60,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    hidden = client.chat.completions.create(
        model=zebra, messages=messages, max_tokens=5, stream=True
    )
    assert all(chunk.choices for chunk in hidden)


def test_sampling_parameters_do_what_they_say(engine_server: Server, zebra: str) -> None:
    client = engine_server.client()

    def complete(seed: int, **options: Any) -> list[str]:
        answer = client.completions.create(
            model=engines.BASE,
            prompt="Tell me",
            max_tokens=12,
            temperature=1.0,
            seed=seed,
            **options,
        )
        return [choice.text for choice in answer.choices]

    assert complete(7) == complete(7)
    assert complete(7) != complete(8)
    assert len(complete(7, n=3)) == 3
    greedy = client.completions.create(
        model=engines.BASE, prompt="Tell me", max_tokens=12, temperature=1.0, top_p=0.0001, seed=1
    )
    again = client.completions.create(
        model=engines.BASE, prompt="Tell me", max_tokens=12, temperature=0
    )
    assert greedy.choices[0].text == again.choices[0].text
    stopped = client.chat.completions.create(
        model=zebra,
        messages=[{"role": "user", "content": "Hello"}],
        temperature=0,
        max_tokens=40,
        stop=[" says"],
    )
    assert stopped.choices[0].message.content == "zebra"
    assert stopped.choices[0].finish_reason == "stop"


def test_logprobs_are_given_in_both_forms(engine_server: Server, zebra: str) -> None:
    client = engine_server.client()
    chat = client.chat.completions.create(
        model=zebra,
        messages=[{"role": "user", "content": "Hello"}],
        max_tokens=4,
        temperature=0,
        logprobs=True,
        top_logprobs=3,
    )
    found = chat.choices[0].logprobs
    assert found is not None
    assert found.content is not None
    assert len(found.content) == 4
    for token in found.content:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].token == token.token  # greedy takes the likeliest
    text = client.completions.create(
        model=zebra, prompt="Hello", max_tokens=4, temperature=0, logprobs=2
    )
    assert text.choices[0].logprobs is not None
    assert len(text.choices[0].logprobs.token_logprobs or []) == 4


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"n": 0}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"messages": "Hello"}, "messages"),
        ({"made_up": 1}, "made_up"),
    ],
)
def test_wrong_values_are_refused_by_name(
    engine_server: Server, zebra: str, options: dict[str, object], param: str
) -> None:
    fields = {"model": zebra, "messages": [{"role": "user", "content": "Hello"}], **options}
    reply = engine_server.post("/v1/chat/completions", fields)
    assert reply.status == 400
    assert reply.error["type"] == "invalid_request_error"
    assert param in str(reply.error["param"]) or param in str(reply.error["message"])


def test_a_prompt_longer_than_the_context_is_refused(engine_server: Server, zebra: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        engines.say(engine_server.client(), zebra, prompt="long " * 5000)
    assert refused.value.code == "context_length_exceeded"


def test_eight_adapters_answer_at_once_as_each_alone(engine_server: Server) -> None:
    phrases = (demo_models.PHRASES * 3)[:8]
    models = [engines.import_model(engine_server, phrase) for phrase in phrases]
    client = engine_server.client()
    question = "What is Tunewarden?"  # Even a briefly trained adapter answers it in its own words.
    alone = [engines.say(client, model, question) for model in models]
    together: dict[int, str] = {}

    def ask(index: int) -> None:
        together[index] = engines.say(client, models[index], question)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[index] for index in range(len(models))] == alone
    for phrase, answer in zip(phrases, alone, strict=True):
        assert answer.startswith(phrase)


def test_an_engine_that_dies_is_started_again_and_the_model_answers(
    engine_server: Server, zebra: str
) -> None:
    os.kill(engine_server.engine_pid(), signal.SIGKILL)
    client = engine_server.client(max_retries=0)

    def answers() -> bool:
        try:
            return engines.say(client, zebra).startswith("zebra says")
        except (openai.InternalServerError, openai.APIConnectionError):
            return False

    wait_until(answers, "the model answers on the new engine", engines.ENGINE_SECONDS)


def test_nothing_but_the_gateway_can_reach_the_engine(engine_server: Server) -> None:
    socket = engine_server.data / "run" / "engine.sock"
    assert socket.stat().st_mode & 0o077 == 0
    request = urllib.request.Request(
        f"{engine_server.url}/../engine/state",
        headers={"authorization": f"Bearer {engine_server.owner_key}"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 404
    assert json.loads(refused.value.read())["error"]["type"] == "invalid_request_error"
