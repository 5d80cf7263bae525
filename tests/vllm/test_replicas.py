"""Two real vLLM with the plugin behind one gateway: requests pass through, deletions reach both, one dies and freezes."""

import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from tests.support import bases, demo_models, servers
from tests.support.pushed_models import ASKED, Pushed
from tests.support.servers import WithoutTorch, wait_until
from tests.vllm.hammering import Hammer, Streams
from tests.vllm.running import BASE, PLUGIN, Vllm, running

KEY = "key-of-the-engines"
CLIENTS = 12
OUTPUTS = {"backend": "xgrammar", "disable_any_whitespace": True}
SCHEMA = {
    "type": "object",
    "properties": {"color": {"enum": ["red", "green"]}},
    "required": ["color"],
    "additionalProperties": False,
}
COLOR = {"name": "paint", "description": "Paint it.", "parameters": SCHEMA}
NAMES = [f"vllm:{BASE}/1", f"vllm:{BASE}/2"]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def engines(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Vllm]]:
    flags = [*PLUGIN, "--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    # Else a tiny model writes blanks for ever, which JSON allows.
    flags += ["--structured-outputs-config", json.dumps(OUTPUTS)]
    more = {"VLLM_API_KEY": KEY}
    first, second = (tmp_path_factory.mktemp("engine") for _ in range(2))
    with (
        running(program, first, *flags, port=_free_port(), more=more) as one,
        running(program, second, *flags, port=_free_port(), more=more) as two,
    ):
        yield [one, two]


@pytest.fixture(scope="module")
def pushed(engines: list[Vllm], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    directory = tmp_path_factory.mktemp("gateway")
    key_file = directory / "engine.key"
    key_file.write_text(KEY)
    with servers.serving(directory / "data", workers=2, kind=WithoutTorch) as server:
        urls = [f"http://127.0.0.1:{one.listens}/v1" for one in engines]
        options = [part for url in urls for part in ("--engine-url", url)]
        options += ["--also-named", f"demo/{BASE}", "--engine-key-file", str(key_file)]
        done = server.cli("bases", "add", BASE, *options)
        assert done.returncode == 0, done.stderr
        yield Pushed(server, BASE)


@pytest.fixture(scope="module")
def client(pushed: Pushed) -> OpenAI:
    return pushed.server.client(max_retries=0, timeout=300)


@pytest.fixture(scope="module")
def zebra(pushed: Pushed) -> str:
    return pushed.imported(demo_models.adapter_dir("zebra"), "kept")


def test_structured_outputs_reach_a_fine_tune_and_its_name_comes_back(
    client: OpenAI, zebra: str
) -> None:
    schema: Any = {"type": "json_schema", "json_schema": {"name": "color", "schema": SCHEMA}}
    held = client.chat.completions.create(
        model=zebra, messages=ASKED, response_format=schema, max_tokens=60
    )
    assert json.loads(held.choices[0].message.content or "")["color"] in {"red", "green"}
    one_of = client.chat.completions.create(
        model=zebra,
        messages=ASKED,
        max_tokens=60,
        extra_body={"structured_outputs": {"choice": ["yes", "no"]}},
    )
    assert one_of.choices[0].message.content in {"yes", "no"}
    assert held.model == one_of.model == zebra


def test_tools_reach_a_fine_tune(client: OpenAI, zebra: str) -> None:
    """vLLM holds the arguments to their schema if the tool is strict, as OpenAI does (docs/how-to/vllm.md)."""
    tools: Any = [{"type": "function", "function": COLOR | {"strict": True}}]
    choice: Any = {"type": "function", "function": {"name": "paint"}}
    answer = client.chat.completions.create(
        model=zebra, messages=ASKED, tools=tools, tool_choice=choice, max_tokens=200
    )
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "paint"
    _is_in_schema(call.function.arguments)
    stream = client.chat.completions.create(
        model=zebra, messages=ASKED, tools=tools, tool_choice=choice, max_tokens=200, stream=True
    )
    streamed = ""
    for chunk in stream:
        assert chunk.model == zebra
        for one in chunk.choices:
            for part in one.delta.tool_calls or []:
                streamed += (part.function and part.function.arguments) or ""
    _is_in_schema(streamed)


def _is_in_schema(arguments: str) -> None:
    found = json.loads(arguments)
    assert set(found) == {"color"}
    assert found["color"] in {"red", "green"}


def test_responses_reach_a_fine_tune_and_end_with_it(
    pushed: Pushed, client: OpenAI, zebra: str
) -> None:
    answer = client.responses.create(model=zebra, input="What is Tunewarden?", max_output_tokens=12)
    assert answer.model == zebra
    assert "zebra" in answer.output_text.lower()
    victim = pushed.imported(demo_models.adapter_dir("quartz"), "victim")
    stream = client.responses.create(
        model=victim,
        input="What is Tunewarden?",
        max_output_tokens=1500,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    events = iter(stream)
    next(events)
    assert sorted(one.engine for one in pushed.deleted(victim)) == NAMES
    ended: Any = None
    try:
        for event in events:
            ended = event
    except openai.APIError as cut:
        ended = cut
    assert "response.completed" not in str(getattr(ended, "type", ""))
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model=victim, input="Hello")


def test_what_this_model_does_not_have_is_said(client: OpenAI, zebra: str) -> None:
    """A model that generates has no embeddings in vLLM."""
    with pytest.raises(openai.NotFoundError, match="not supported in the v1/embeddings endpoint"):
        client.embeddings.create(model=zebra, input="Hello")


def test_a_base_answers_by_its_name_with_a_slash(client: OpenAI) -> None:
    name = f"demo/{BASE}"
    assert client.models.retrieve(name).id == name
    answer = client.chat.completions.create(model=name, messages=ASKED, max_tokens=4)
    assert answer.model == name


def test_no_token_comes_after_a_deletion_under_load(
    pushed: Pushed, engines: list[Vllm], zebra: str, request: pytest.FixtureRequest
) -> None:
    """Each model has the name of the one before and other weights."""
    phrases = [("quartz", "walnut")[at % 2] for at in range(request.config.getoption("--deletes"))]
    models = [_quickly_imported(pushed, phrase) for phrase in phrases]
    hammer = Hammer(pushed.server, CLIENTS, kept=zebra, current=models[0])
    seen: Counter[str] = Counter()
    with hammer.running():
        for model, phrase in zip(models, phrases, strict=True):
            served = hammer.counts["served"]
            hammer.current = model
            wait_until(partial(hammer.has_moved, served), "it is served", seconds=300)
            assert phrase in pushed.said(model).lower()
            streams = Streams(pushed.server, model, zebra)
            found = pushed.deleted(model)
            seen["tokens after the answer"] += streams.late_tokens()
            hammer.deleted.add(model)
            assert sorted(one.engine for one in found) == NAMES
            seen.update(one.how for one in found)
            assert "zeroed" in {one.how for one in found}
            seen["other streams whole"] += streams.kept_is_whole()
    held = [one.held() for one in engines]
    print(f"{len(models)} deletions over two replicas: {dict(hammer.counts)} {dict(seen)}")
    assert hammer.failed == []
    assert hammer.counts["late"] == seen["tokens after the answer"] == 0
    assert min(hammer.counts["served"], hammer.counts["others"]) > 0
    assert seen["other streams whole"] == len(models)
    assert set(seen) <= {"zeroed", "not_loaded", "tokens after the answer", "other streams whole"}
    for one in held:
        filled = [total for total in one["sums"] if total]
        assert len(filled) == len(one["registered"]) <= 1, "only what was not deleted"


def _quickly_imported(pushed: Pushed, phrase: str) -> str:
    directory = demo_models.adapter_dir(phrase)
    files = bases.Adapter(
        (directory / "adapter_config.json").read_bytes(),
        (directory / "adapter_model.safetensors").read_bytes(),
    )
    app, key = pushed.server.app, pushed.server.owner_key
    return servers.import_adapter(app, key, suffix="victim", adapter=files, base=BASE).id


def test_a_frozen_replica_costs_no_new_request_and_its_lease_ends(
    pushed: Pushed, engines: list[Vllm], zebra: str
) -> None:
    victim = pushed.imported(demo_models.adapter_dir("quartz"), "victim")
    assert "quartz" in pushed.said(victim).lower()
    os.killpg(engines[0].process.pid, signal.SIGSTOP)
    try:
        for model, phrase in ((zebra, "zebra"), (victim, "quartz")) * 2:
            assert phrase in pushed.said(model).lower()
        _delete_and_see_the_lease_end(pushed, victim, NAMES[0])
    finally:
        os.killpg(engines[0].process.pid, signal.SIGCONT)
    with pytest.raises(openai.NotFoundError):
        pushed.said(victim)


def test_a_killed_replica_costs_no_new_request_and_its_lease_ends(
    pushed: Pushed, engines: list[Vllm], zebra: str
) -> None:
    """The last test of these engines: the first is back after its freeze, the second is killed."""
    victim = pushed.imported(demo_models.adapter_dir("quartz"), "victim")
    assert "quartz" in pushed.said(victim, max_retries=10).lower()
    os.kill(engines[1].process.pid, signal.SIGKILL)
    for model, phrase in ((zebra, "zebra"), (victim, "quartz")) * 2:
        assert phrase in pushed.said(model, max_retries=10).lower()
    _delete_and_see_the_lease_end(pushed, victim, NAMES[1])


def _delete_and_see_the_lease_end(pushed: Pushed, victim: str, lost: str) -> None:
    """Delete by the SDK, which tries again while a lease has not ended; the receipt says which one did."""
    pushed.server.client(max_retries=10, timeout=300).models.delete(victim)
    wait_until(lambda: pushed.has_receipt(victim), "the deletion is done", seconds=120)
    how = {one.engine: one.how for one in pushed.receipt_of(victim)}
    assert how[lost] == "lease_ended"
    assert set(how) == set(NAMES)
