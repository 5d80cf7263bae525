"""`migrate openai record`: every answer once, sealed, and nothing that was answered asked again."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli import terminal
from tests.cli.in_process import over_http
from tests.fakes import openai_source
from tests.fakes.openai_source import KEY, USED_UP, OpenAI, Refusal, rate_limited
from tests.support import migrations, servers
from tests.support.migrations import ANSWER_CANARY, FIRST, GONE, PROMPT_CANARY, SECOND, Moving
from tests.support.servers import Server

from tunewarden.cli.exit_codes import ExitCode
from tunewarden.errors import Error, Kind
from tunewarden.migration.asking import LOGPROBS, SEED
from tunewarden.migration.state import State


@pytest.fixture
def source() -> Iterator[OpenAI]:
    with openai_source.serving(migrations.acme()) as has:
        yield has


@pytest.fixture
def moving(source: OpenAI, server: Server, tmp_path: Path) -> Moving:
    found = migrations.moving(tmp_path, source.url, settings=over_http(server))
    for step in ("inventory", "download"):
        ran = found.run(step)
        assert ran.returncode == 0, ran.stderr
    return found


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _notes(moving: Moving) -> dict[str, dict[str, Any]]:
    return {one["model"]: one for one in migrations.answer_notes(moving)}


def test_without_yes_it_says_what_it_takes_and_asks_nothing(source: OpenAI, moving: Moving) -> None:
    ran = moving.run("record")
    assert ran.returncode == 0, ran.stderr
    assert "2 models, 15 requests, about " in ran.stderr
    assert "Nothing was asked. Add --yes to ask." in ran.stderr
    shown = json.loads(moving.run("record", "--json").stdout)
    assert (shown["models"], shown["requests"]) == ([SECOND, FIRST], 15)
    assert shown["tokens"] > 15
    assert source.chats() == []


def test_each_model_is_asked_from_its_validation_file_or_the_end_of_its_training_file(
    source: OpenAI, server: Server, moving: Moving
) -> None:
    ran = moving.run("record", "--yes", "--last", "5")
    assert ran.returncode == 0, ran.stderr
    assert migrations.pairs(ran) == {FIRST: "3", SECOND: "5"}
    found = {(one["model"], one["line"]): one for one in migrations.answers(server, moving)}
    assert sorted(found) == sorted(
        [(FIRST, line) for line in (1, 2, 3)] + [(SECOND, line) for line in range(8, 13)]
    )
    saved = moving.noted("downloads")["files"]
    assert isinstance(saved, dict)
    job = source.jobs[0]
    for (model, line), one in found.items():
        first, file = (100, "validation_file") if model == FIRST else (0, "training_file")
        question = f"{PROMPT_CANARY} {first + line - 1}"
        assert one["request"]["messages"][-1] == {"role": "user", "content": question}
        said = one["response"]["choices"][0]["message"]["content"]
        assert said == f"{model} answers {question}"
        assert one["prompts_file"] == saved[job[file]]["file"]
        # What the data answers is not part of the question.
        assert ANSWER_CANARY not in json.dumps(one["request"])


def test_a_question_has_no_randomness_and_what_stands_beside_it_in_the_data(
    source: OpenAI, server: Server, moving: Moving, tmp_path: Path
) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    beside = {
        "tools": tools,
        "response_format": {"type": "json_object"},
        "parallel_tool_calls": False,
    }
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Which?"},
        {"role": "assistant", "content": "This.", "weight": 0},
        {"role": "user", "content": "Why?"},
    ]
    answered = {"role": "assistant", "content": "Because."}
    chat = {"messages": [*messages, answered], **beside}
    pair = {
        "input": {"messages": messages, "tools": tools},
        "preferred_output": [answered],
        "non_preferred_output": [answered],
    }
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(f"{json.dumps(one)}\n" for one in (chat, pair, {"messages": messages})))
    ran = moving.run("record", "--yes", "--model", FIRST, "--prompts", str(path))
    assert ran.returncode == 0, ran.stderr
    asked = [{name: one[name] for name in ("role", "content")} for one in messages]
    fixed = {
        "model": FIRST,
        "messages": asked,
        "temperature": 0,
        "seed": SEED,
        "logprobs": True,
        "top_logprobs": LOGPROBS,
        "max_completion_tokens": 1024,
    }
    wanted = [{**fixed, **beside}, {**fixed, "tools": tools}, fixed]
    by_line = sorted(migrations.answers(server, moving), key=lambda one: int(one["line"]))
    assert [one["request"] for one in by_line] == wanted
    assert sorted(map(_text, source.chats())) == sorted(map(_text, wanted))
    # The questions became a sealed file, and the same ones are asked once.
    again = moving.run("record", "--yes", "--model", FIRST, "--prompts", str(path))
    assert "1 models, 0 requests" in again.stderr
    assert len(source.chats()) == 3


def test_a_parameter_that_a_model_does_not_take_is_left_out_from_then_on(
    source: OpenAI, server: Server, moving: Moving
) -> None:
    source.unsupported = {
        "logprobs": {FIRST},
        "temperature": {FIRST},
        "max_completion_tokens": {SECOND},
    }
    ran = moving.run("record", "--yes", "--last", "3", "--concurrency", "1")
    assert ran.returncode == 0, ran.stderr
    asked = {one["model"]: one["request"] for one in migrations.answers(server, moving)}
    assert not {"logprobs", "top_logprobs", "temperature"} & asked[FIRST].keys()
    assert asked[FIRST]["seed"] == SEED
    assert asked[SECOND]["max_tokens"] == 1024
    assert _notes(moving)[FIRST]["without"] == ["logprobs", "temperature", "top_logprobs"]
    # Refused twice, and once: a model is not asked with them again.
    assert len(source.chats()) == 6 + 3


def test_logprobs_that_an_organization_may_not_see_are_left_out(
    source: OpenAI, server: Server, moving: Moving
) -> None:
    source.refusals.append(Refusal(403, "You are not allowed to request logprobs from this model"))
    ran = moving.run("record", "--yes", "--model", FIRST, "--concurrency", "1")
    assert ran.returncode == 0, ran.stderr
    assert not any("logprobs" in one["request"] for one in migrations.answers(server, moving))
    assert len(source.chats()) == 4


def test_a_model_that_the_project_may_not_use_is_as_good_as_gone(
    source: OpenAI, moving: Moving
) -> None:
    # Of two that stop on one day it comes first.
    said = f"Project `proj_1` does not have access to model `{SECOND}`"
    source.refusals.append(Refusal(403, said, "model_not_found"))
    ran = moving.run("record", "--yes", "--concurrency", "1", "--json")
    assert json.loads(ran.stdout)["gone"] == [SECOND]
    assert {body["model"] for body in source.chats()} == {FIRST, SECOND}


def test_a_model_that_is_gone_is_said_and_the_others_go_on(
    source: OpenAI, server: Server, moving: Moving
) -> None:
    source.models.remove(FIRST)
    ran = moving.run("record", "--yes", "--json")
    assert ran.returncode == 0, ran.stderr
    shown = json.loads(ran.stdout)
    assert shown["gone"] == [FIRST]
    assert shown["answered"] == {FIRST: 0, SECOND: 12}
    assert f"{FIRST} is gone" in ran.stderr
    assert GONE not in {body["model"] for body in source.chats()}


def test_what_was_answered_is_not_asked_again(source: OpenAI, moving: Moving) -> None:
    assert moving.run("record", "--yes", "--last", "2").returncode == 0
    assert moving.run("record", "--yes", "--last", "4").returncode == 0
    assert set(source.answered.values()) == {1}
    assert len(source.answered) == 3 + 4
    assert "2 models, 0 requests" in moving.run("record", "--yes", "--last", "4").stderr


def test_a_question_that_is_refused_is_kept_with_its_reason(
    source: OpenAI, server: Server, moving: Moving
) -> None:
    said = "Invalid 'messages': the content was flagged."
    source.refusals.append(Refusal(400, said, "content_policy_violation", "messages"))
    ran = moving.run("record", "--yes", "--model", FIRST, "--concurrency", "1")
    assert migrations.lines(ran) == [[FIRST, "2", "1"]]
    assert _notes(moving)[FIRST]["refused"] == [1]
    (refused,) = [one for one in migrations.answers(server, moving) if one["status"] == 400]
    assert refused["error"]["message"] == said
    assert "1 models, 0 requests" in moving.run("record", "--model", FIRST).stderr


def test_limits_are_waited_for_and_concurrency_is_bounded(source: OpenAI, moving: Moving) -> None:
    source.chat_seconds = 0.02
    source.running_most = 0
    source.refusals.extend([rate_limited(retry_after="0.01"), rate_limited(retry_after_ms="5")])
    ran = moving.run("record", "--yes", "--concurrency", "3")
    assert ran.returncode == 0, ran.stderr
    assert 1 < source.running_most <= 3
    assert set(source.answered.values()) == {1}
    assert len(source.answered) == 15


def test_a_used_up_quota_ends_it_and_keeps_what_was_answered(
    source: OpenAI, server: Server, moving: Moving
) -> None:
    source.refusals.extend([None, None, USED_UP])
    ran = moving.run("record", "--yes", "--model", SECOND, "--concurrency", "1")
    assert ran.returncode == ExitCode.REFUSED
    assert "quota" in ran.stderr
    assert len(migrations.answers(server, moving)) == 2
    assert moving.run("record", "--yes", "--model", SECOND).returncode == 0
    assert set(source.answered.values()) == {1}
    assert len(migrations.answers(server, moving)) == 12


def test_a_kill_loses_what_is_in_flight_and_nothing_else(
    source: OpenAI, server: Server, moving: Moving
) -> None:
    source.chat_seconds = 0.15
    concurrency = 2

    def kept() -> int:
        return sum(len(one["done"]) + len(one["parts"]) for one in _notes(moving).values())

    asked_before = 0
    for wanted in (2, 5, 9):
        process = moving.start("record", "--yes", "--concurrency", str(concurrency))
        servers.wait_until(lambda: kept() >= wanted, "some are answered")  # noqa: B023  at once
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()
        assert asked_before <= kept() < 15
        asked_before = kept()
    source.chat_seconds = 0
    ran = moving.run("record", "--yes")
    assert ran.returncode == 0, ran.stderr
    lines = [(one["model"], one["line"]) for one in migrations.answers(server, moving)]
    assert len(lines) == len(set(lines)) == 15
    again = sum(source.answered.values()) - 15
    assert again <= 3 * concurrency


def test_ctrl_c_keeps_also_what_was_in_flight(
    source: OpenAI, server: Server, moving: Moving
) -> None:
    source.chat_seconds = 0.1
    command = moving.options("record", "--yes", "--model", SECOND)
    with terminal.running(*command, data=server.data) as shown:
        servers.wait_until(lambda: len(source.answered) >= 5, "some are answered")
        shown.interrupt()
        assert shown.end() == ExitCode.FAILED
    assert f"{SECOND}: 0 of 12" in shown.shown
    assert len(source.answered) < 12
    assert moving.run("record", "--yes", "--model", SECOND).returncode == 0
    assert set(source.answered.values()) == {1}
    assert len(migrations.answers(server, moving)) == 12


def test_answers_whose_upload_ended_unfinished_are_said_and_asked_again(
    source: OpenAI, server: Server, moving: Moving
) -> None:
    source.chat_seconds = 0.15
    process = moving.start("record", "--yes", "--model", SECOND, "--concurrency", "1")
    servers.wait_until(lambda: len(_parts(moving)) >= 3, "some are answered")
    process.kill()
    process.wait()
    assert process.stderr is not None
    process.stderr.close()
    source.chat_seconds = 0
    lost = len(_parts(moving))
    # As it would end by itself, an hour later.
    server.client().uploads.cancel(_notes(moving)[SECOND]["upload"])
    ran = moving.run("record", "--yes", "--model", SECOND, "--json")
    assert ran.returncode == 0, ran.stderr
    assert f"{lost} answers of {SECOND} have expired unfinished" in ran.stderr
    assert json.loads(ran.stdout)["lost"] == lost
    assert sorted(one["line"] for one in migrations.answers(server, moving)) == [*range(1, 13)]


def _parts(moving: Moving) -> list[object]:
    parts: list[object] = _notes(moving).get(SECOND, {}).get("parts", [])
    return parts


def test_deleting_the_prompts_finds_what_was_recorded_from_them(
    source: OpenAI, server: Server, moving: Moving
) -> None:
    moving.run("record", "--yes")
    saved = moving.noted("downloads")["files"]
    assert isinstance(saved, dict)
    training = saved[source.jobs[0]["training_file"]]["file"]
    (recorded,) = _notes(moving)[SECOND]["files"]
    plan: dict[str, Any] = server.get(
        f"/v1/files/{training}/deletion_plan", key=server.owner_key
    ).json
    assert recorded in plan["derived_files"]
    strict = server.client(_strict_response_validation=True)
    shown: dict[str, Any] = strict.files.retrieve(recorded).to_dict()
    assert shown["derived_from"] == [training]
    assert shown["source"] == f"{source.url} {SECOND}"
    dry = servers.run_cli("files", "delete", training, "--dry-run", settings=moving.settings)
    assert f"derived file that stays: {recorded}\n" in dry.stdout
    # Its questions are gone: what was recorded stays, and no more is asked from them.
    server.client().files.delete(training)
    asked = len(source.chats())
    ran = moving.run("record", "--yes", "--model", SECOND)
    assert f"{SECOND} has no saved validation or training file" in ran.stderr
    assert len(source.chats()) == asked


def test_no_question_or_answer_is_anywhere_but_sealed(
    source: OpenAI, data: Path, tmp_path: Path
) -> None:
    with servers.serving(data, local_base=True, kind=servers.WithoutTorch) as server:
        moving = migrations.moving(tmp_path, source.url, settings=over_http(server))
        for step in (["inventory"], ["download"], ["record", "--yes"]):
            ran = moving.run(*step)
            assert ran.returncode == 0, ran.stderr
            assert PROMPT_CANARY not in ran.stdout + ran.stderr
        assert len(migrations.answers(server, moving)) == 15
        places = (moving.state, server.data, server.tmp, server.scratch)
        assert (
            migrations.files_with([PROMPT_CANARY, ANSWER_CANARY, "answers canary"], *places) == []
        )
    assert KEY not in "".join(path.read_text() for path in moving.state.iterdir())
    assert PROMPT_CANARY not in server.log()


def test_azure_is_asked_at_its_deployments(source: OpenAI, server: Server, moving: Moving) -> None:
    root = source.url.removesuffix("/v1")
    azure = Moving(root, moving.key_file, moving.state / "azure", moving.settings)
    for step in ("inventory", "download"):
        assert azure.run(step, "--azure").returncode == 0
    source.models.append("support-deployment")
    named = ("--deployment", f"{FIRST}=support-deployment")
    ran = azure.run("record", "--azure", "--yes", "--model", FIRST, *named)
    assert ran.returncode == 0, ran.stderr
    assert source.count_of("POST", "/deployments/support-deployment/chat/completions") == 3


def test_questions_of_your_own_are_sealed_once_also_if_it_is_killed_at_the_worst_moment(
    source: OpenAI, server: Server, moving: Moving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "own-questions-of-a-killed-command.jsonl"
    path.write_bytes(migrations.chats(2))
    command = ("record", "--yes", "--model", FIRST, "--prompts", str(path))
    write = State.write

    def killed(self: State, name: str, content: dict[str, Any]) -> Path:
        if name == "prompts" and content["files"]:  # the file is there, and nobody has noted it
            raise Error(Kind.UNAVAILABLE, "killed")
        return write(self, name, content)

    with monkeypatch.context() as patched:
        patched.setattr(State, "write", killed)
        assert "killed" in moving.run(*command).stderr
    assert moving.run(*command).returncode == 0
    assert [one.filename for one in server.client().files.list()].count(path.name) == 1
    assert len(source.answered) == 2


def test_data_without_chats_is_named_and_the_other_models_are_asked(
    source: OpenAI, moving: Moving
) -> None:
    completions = source.add_file(b'{"prompt": "Why?", "completion": "So."}\n')
    name = "ft:davinci-002:acme::IjKl9012"
    source.models.append(name)
    source.add_job(name, "davinci-002", completions)
    for step in ("inventory", "download"):
        assert moving.run(step).returncode == 0
    ran = moving.run("record", "--yes")
    assert ran.returncode == 0, ran.stderr
    assert f"{name} is not asked: file-" in ran.stderr
    assert "has no chats." in ran.stderr
    assert len(source.answered) == 15
