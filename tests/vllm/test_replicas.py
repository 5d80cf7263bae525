"""Two real vLLM with the plugin behind one gateway: requests pass through, deletions reach both, one dies and freezes."""

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from tests.support import demo_models, servers
from tests.support.pushed_models import ASKED, Pushed
from tests.support.servers import WithoutTorch, wait_until
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
    tools: Any = [{"type": "function", "function": COLOR}]
    choice: Any = {"type": "function", "function": {"name": "paint"}}
    answer = client.chat.completions.create(
        model=zebra, messages=ASKED, tools=tools, tool_choice=choice, max_tokens=60
    )
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "paint"
    json.loads(call.function.arguments)  # what is in it is vLLM's and the model's
    stream = client.chat.completions.create(
        model=zebra, messages=ASKED, tools=tools, tool_choice=choice, max_tokens=60, stream=True
    )
    assert {chunk.model for chunk in stream} == {zebra}


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
    pushed: Pushed, zebra: str, request: pytest.FixtureRequest
) -> None:
    deletes = max(3, int(request.config.getoption("--deletes")) // 2)
    quartz = demo_models.adapter_dir("quartz")
    models = [pushed.imported(quartz, "victim") for _ in range(deletes)]
    current, is_over = [models[0]], threading.Event()
    deleted: set[str] = set()
    counts = {"served": 0, "refused": 0, "late": 0, "others": 0}
    failed: list[str] = []
    lock = threading.Lock()

    def hammer(number: int) -> None:
        client = pushed.server.client(max_retries=0, timeout=300)
        while not is_over.is_set():
            model = zebra if number % 4 == 0 else current[0]
            was_deleted = model in deleted
            outcome = "served"
            try:
                answer = client.chat.completions.create(model=model, messages=ASKED, max_tokens=8)
                assert answer.model == model
            except openai.NotFoundError:
                outcome = "refused"
            except Exception as error:  # noqa: BLE001  reported below
                outcome = f"{error!r}"
            with lock:
                if outcome not in {"served", "refused"} or (model == zebra and outcome != "served"):
                    failed.append(f"{model}: {outcome}")
                else:
                    counts["others" if model == zebra else outcome] += 1
                    counts["late"] += was_deleted and outcome == "served"

    def has_moved(served: int) -> bool:
        return counts["served"] > served or bool(failed)

    threads = [threading.Thread(target=hammer, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        for model in models:
            served = counts["served"]
            current[0] = model
            wait_until(partial(has_moved, served), "it is served", seconds=300)
            found = pushed.deleted(model)
            deleted.add(model)
            assert sorted(one.engine for one in found) == NAMES
            assert {one.how for one in found} <= {"zeroed", "not_loaded"}
            assert "zeroed" in {one.how for one in found}
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    print(f"{deletes} deletions over two replicas: {counts}")
    assert failed == []
    assert counts["late"] == 0
    assert min(counts["served"], counts["others"]) > 0


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
