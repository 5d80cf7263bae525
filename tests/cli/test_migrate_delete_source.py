"""`migrate openai delete-source`: what was moved is deleted there, and its answers are kept as what they are."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.chaos.test_killed_migrations import Killer
from tests.cli.in_process import over_http
from tests.fakes import openai_source
from tests.fakes.cutting_proxy import CuttingProxy
from tests.fakes.openai_source import OpenAI, rate_limited
from tests.support import migrations, servers
from tests.support.migrations import BASE, FIRST, SECOND, Moving
from tests.support.servers import Server

from tunewarden.cli.exit_codes import ExitCode
from tunewarden.migration.source import Reply
from tunewarden.migration.source_deletion import NOTICE, Doomed, _told

STRIDE = 1 if os.environ.get("TUNEWARDEN_TORTURE") else 5


@pytest.fixture
def source() -> Iterator[OpenAI]:
    has = migrations.acme()
    has.may_delete = True
    with openai_source.serving(has):
        yield has


def _moved(source: OpenAI, server: Server, directory: Path) -> Moving:
    """Return a migration whose files are saved, and whose first model was made again."""
    directory.mkdir(exist_ok=True)
    moving = migrations.moving(directory, source.url, settings=over_http(server))
    for step in ("inventory", "download"):
        assert moving.run(step).returncode == 0
    job = next(one["id"] for one in source.jobs if one["fine_tuned_model"] == FIRST)
    migrations.note_made_again(moving, job, "ft:tiny-base:my-org::here")
    return moving


def _deleted(moving: Moving, *options: str) -> dict[str, Any]:
    ran = moving.run("delete-source", "--yes", "--json", *options)
    found = json.loads(ran.stdout)
    assert found["notice"] == NOTICE == "told by the source, not proven"
    answers = {one["id"]: one for one in found["answers"]}
    return {"answers": answers, "exit": ran.returncode, "said": ran.stderr}


def _asked(source: OpenAI) -> list[str]:
    return [one.path for one in source.asked if one.method == "DELETE"]


def _unexpired(source: OpenAI) -> list[str]:
    return [name for name, one in source.files.items() if one["expires_at"] is None]


def test_what_was_moved_is_deleted_there_and_the_rest_is_spared(
    source: OpenAI, server: Server, tmp_path: Path
) -> None:
    moving = _moved(source, server, tmp_path)
    unsaved = source.add_file(migrations.chats(1, first=77), filename="later.jsonl")
    assert moving.run("inventory").returncode == 0
    done = _deleted(moving)
    assert done["exit"] == 0, done["said"]
    assert FIRST not in source.models
    assert SECOND in source.models
    assert _unexpired(source) == [unsaved]
    assert f"Spared: {SECOND}: it was not made again here." in done["said"]
    assert f"Spared: {unsaved}: it is not saved here." in done["said"]
    model = done["answers"][FIRST]
    assert (model["outcome"], model["status"], model["notice"]) == ("deleted", 200, NOTICE)
    assert model["answer"] == {"id": FIRST, "object": "model", "deleted": True}
    assert model["headers"]["date"].endswith("GMT")
    # Unknown there, which is said.
    assert done["answers"][f"{FIRST}:ckpt-step-10"]["outcome"] == "gone"
    assert "4 deleted, 1 checkpoints gone with their models, 0 gone before" in done["said"]
    kept = moving.noted("deletions")["answers"]
    assert isinstance(kept, dict)
    assert kept[f"models/{FIRST}"]["notice"] == NOTICE
    asked = _asked(source)
    assert _deleted(moving)["answers"] == done["answers"]
    assert _asked(source) == asked, "nothing is asked twice"


def test_the_rest_is_deleted_on_request(source: OpenAI, server: Server, tmp_path: Path) -> None:
    moving = _moved(source, server, tmp_path)
    assert _deleted(moving, "--with-unsaved", "--only", "models")["exit"] == 0
    assert not {FIRST, SECOND} & set(source.models)
    assert BASE in source.models
    assert source.contents


def test_a_dry_run_asks_for_nothing(source: OpenAI, server: Server, tmp_path: Path) -> None:
    moving = _moved(source, server, tmp_path)
    ran = moving.run("delete-source", "--dry-run")
    assert ran.returncode == 0, ran.stderr
    assert ["models", FIRST] in migrations.lines(ran)
    assert "This was a dry run. Nothing was deleted." in ran.stderr
    assert _asked(source) == []


@pytest.mark.parametrize(("typed", "is_done"), [("4", False), ("5", True), ("", False)])
def test_the_number_is_typed(
    source: OpenAI, server: Server, tmp_path: Path, typed: str, is_done: bool
) -> None:
    moving = _moved(source, server, tmp_path)
    options = moving.options("delete-source")
    ran = servers.run_cli(*options, stdin=f"{typed}\n", settings=moving.settings)
    assert f"This deletes 2 models and 3 files at {source.url}." in ran.stderr
    assert (ran.returncode == 0) == is_done
    assert ("The number does not match." in ran.stderr) == (typed == "4")
    assert bool(_asked(source)) == is_done


def test_limits_are_waited_for_and_a_refusal_of_the_key_ends_it(
    source: OpenAI, server: Server, tmp_path: Path
) -> None:
    moving = _moved(source, server, tmp_path)
    forbidden = openai_source.Refusal(403, "You have insufficient permissions for this operation.")
    source.refusals.extend([rate_limited(retry_after="0.01"), None, forbidden])
    ran = moving.run("delete-source", "--yes")
    assert ran.returncode == ExitCode.REFUSED
    assert "does not allow this key to delete models" in ran.stderr
    assert _deleted(moving)["exit"] == 0
    assert FIRST not in source.models


def test_azure_is_asked_for_files_alone(source: OpenAI, server: Server, tmp_path: Path) -> None:
    moving = _moved(source, server, tmp_path)
    done = _deleted(moving, "--azure")
    assert all(path.startswith("/files/") for path in _asked(source))
    assert "Models of Azure are not deleted" in done["said"]
    ran = moving.run("delete-source", "--azure", "--only", "models", "--yes")
    assert ran.returncode == ExitCode.FAILED
    assert FIRST in source.models


def test_a_server_of_ours_refuses_what_is_protected_and_its_receipts_can_be_had(
    server: Server, tmp_path: Path
) -> None:
    data = tmp_path / "source" / "data"
    with servers.serving(data, local_base=True, kind=servers.WithoutTorch) as origin:
        free, held = (origin.make_model(suffix=one).id for one in ("free", "held"))
        origin.post(f"/v1/models/{held}", {"protected": True})
        moving = migrations.moving(
            tmp_path, origin.url, key=origin.owner_key, settings=over_http(server)
        )
        assert moving.run("inventory").returncode == 0
        done = _deleted(moving, "--with-unsaved")
        assert done["exit"] == ExitCode.CONFLICT
        assert "refused to delete 1" in done["said"]
        assert done["answers"][held]["outcome"] == "refused"
        assert done["answers"][held]["status"] == 409
        deletion = done["answers"][free]["headers"]["tunewarden-deletion"]
        shown = origin.get(f"/v1/deletions/{deletion}", key=origin.owner_key).json
        assert shown["model"] == free
        origin.post(f"/v1/models/{held}", {"protected": False})
        assert _deleted(moving, "--with-unsaved")["answers"][held]["outcome"] == "deleted"


def test_a_deletion_whose_answer_was_lost_is_no_less_told(server: Server, tmp_path: Path) -> None:
    data = tmp_path / "source" / "data"
    with servers.serving(data, local_base=True, kind=servers.WithoutTorch) as origin:
        model = origin.make_model(suffix="cut").id
        port = urlsplit(origin.url).port
        assert port is not None
        with CuttingProxy(("127.0.0.1", port)) as proxy:
            moving = migrations.moving(
                tmp_path, proxy.url, key=origin.owner_key, settings=over_http(server)
            )
            assert moving.run("inventory").returncode == 0
            proxy.lose_answer_to = b"DELETE "
            done = _deleted(moving, "--with-unsaved")
            assert not proxy.lose_answer_to
            assert proxy.lose == 0
        answer = done["answers"][model]
        assert (answer["outcome"], answer["status"]) == ("deleted", 200)
        assert answer["was_asked_before"] is True
        shown = origin.get(
            f"/v1/deletions/{answer['headers']['tunewarden-deletion']}", key=origin.owner_key
        )
        assert shown.json["model"] == model


def test_wherever_it_is_killed_all_is_gone_after_the_next_run(
    server: Server, tmp_path: Path
) -> None:
    kills = 0
    for at in range(1, 200, STRIDE):
        has = migrations.acme()
        has.may_delete = True
        with openai_source.serving(has):
            host, port = has.url.removeprefix("http://").removesuffix("/v1").split(":")
            killer = Killer(at)
            with CuttingProxy((host, int(port)), on_piece=killer.on_piece) as proxy:
                has.url = proxy.url
                moving = _moved(has, server, tmp_path / str(at))
                process = killer.process = moving.start("delete-source", "--yes")
                status = process.wait()
                killer.process = None
                assert process.stderr is not None
                process.stderr.close()
                done = _deleted(moving)
            assert done["exit"] == 0, done["said"]
            assert FIRST not in has.models
            assert SECOND in has.models
            assert _unexpired(has) == []
            assert {one["outcome"] for one in done["answers"].values()} <= {"deleted", "gone"}
        if not status:
            break
        kills += 1
    print(f"killed-source-deletions kills {kills} violations 0")
    assert kills >= 2


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, {"id": "file-a", "deleted": True}, "deleted"),
        (200, {"id": "file-a", "deleted": False}, "refused"),
        (200, {"id": "file-b", "deleted": True}, "refused"),
        (404, {"error": {"message": "No such File object: file-a"}}, "gone"),
        (404, {"error": {"message": "Invalid URL (DELETE /v2/files/file-a)"}}, "refused"),
        (404, {"detail": "Not Found"}, "refused"),
        (409, {"error": {"message": "in use", "code": "blocked"}}, "refused"),
    ],
)
def test_only_what_says_so_is_deleted_or_gone(
    status: int, body: dict[str, Any], outcome: str
) -> None:
    told = _told(Doomed("files", "file-a"), Reply(status, {}, json.dumps(body).encode()))
    assert told["outcome"] == outcome
    assert "message" not in json.dumps(told)


def test_a_deletion_whose_first_answer_was_cut_is_counted_apart(
    source: OpenAI, server: Server, tmp_path: Path
) -> None:
    moving = _moved(source, server, tmp_path)
    assert moving.run("delete-source", "--yes", "--only", "files").returncode == 0
    noted = moving.noted("deletions")
    answers = noted["answers"]
    assert isinstance(answers, dict)
    # As a command leaves it that is killed between the request and its answer.
    name = next(iter(answers))
    answers[name] = {"asked_at": answers[name]["asked_at"], "outcome": None, "notice": NOTICE}
    (moving.state / "deletions.json").write_text(json.dumps(noted))
    done = _deleted(moving, "--only", "files")
    assert done["answers"][name.partition("/")[2]]["was_asked_before"] is True
    assert "1 deleted by an earlier request whose answer was cut, 0 gone before" in done["said"]


def test_another_target_than_that_of_the_steps_before_is_refused(
    source: OpenAI, server: Server, tmp_path: Path
) -> None:
    moving = _moved(source, server, tmp_path)
    known = moving.noted("target")
    data = tmp_path / "other" / "data"
    servers.prepare_local_base(data)
    for step in ("download", "retrain", "compare", "switch", "rollback", "delete-source"):
        options = ["--dry-run"] if step not in {"download", "compare"} else []
        other = replace(moving, settings={"TUNEWARDEN_DATA": str(data)})
        refused = other.run(step, *options)
        assert refused.returncode == ExitCode.CONFLICT, (step, refused.stderr)
        assert str(known["log"]) in refused.stderr
        assert "another --state" in refused.stderr
    assert moving.noted("target") == known
    # A state from before targets were noted goes on, and a dry run notes none.
    (moving.state / "target.json").unlink()
    assert moving.run("delete-source", "--dry-run").returncode == 0
    assert not (moving.state / "target.json").exists()
    assert moving.run("download").returncode == 0
    assert moving.noted("target") == known
