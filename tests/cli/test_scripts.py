"""What scripts rely on: the exit status, JSON, and that a dry run changes nothing (docs/reference/commands.md)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cli import in_process, terminal
from tests.cli.in_process import over_http
from tests.support import fine_tuning_rows, servers
from tests.support.servers import LOCAL_BASE, Server

from tunewarden import problems
from tunewarden.cli import exit_codes
from tunewarden.cli.exit_codes import ExitCode
from tunewarden.errors import Kind


def _json(server: Server, *arguments: str) -> Any:
    """Return what a command prints with --json, the same by address and by directory where it has an address."""
    ran = in_process.on(server, *arguments, "--json")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("\n") == 1
    return json.loads(ran.stdout)


def _api(server: Server, path: str) -> Any:
    return server.get(f"/v1/{path}", key=server.owner_key).json


# Exit status


def test_every_kind_of_error_has_a_status_other_than_done_and_usage() -> None:
    statuses = {kind: exit_codes.of(kind) for kind in Kind}
    assert set(statuses.values()).isdisjoint({ExitCode.DONE, ExitCode.USAGE, ExitCode.INTERRUPTED})
    # What a client may try again is unavailable, and nothing of what only the client can put right.
    again = {
        kind for kind, (status, _) in problems.WIRE.items() if status in {408, 429, 502, 503, 507}
    }
    unavailable = {kind for kind, status in statuses.items() if status is ExitCode.UNAVAILABLE}
    assert unavailable == again - {Kind.QUOTA_EXCEEDED}


def test_the_status_says_what_went_wrong(server: Server) -> None:
    model = fine_tuning_rows.make_model(server.app, server.owner_key)
    paused = {"start_n": model.n, "is_paused": 1, "status": "queued"}
    job = fine_tuning_rows.make_job(server.app, server.owner_key, **paused)
    reader = {**over_http(server), "OPENAI_API_KEY": server.make_key("reader")}
    nobody = {**over_http(server), "OPENAI_API_KEY": "sk-nobody"}
    gone = {**over_http(server), "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    delete = ("models", "delete", model.id, "--yes")
    found = {
        ExitCode.DONE: in_process.run_cli("models", "list", settings=reader),
        ExitCode.FAILED: in_process.on(server, "files", "list", "--purpose", "\0"),
        ExitCode.USAGE: in_process.run_cli("models", "delete"),
        ExitCode.NOT_FOUND: in_process.on(server, "deletions", "show", "del_nobody"),
        ExitCode.REFUSED: in_process.run_cli(*delete, settings=reader),
        ExitCode.CONFLICT: in_process.on(server, *delete),
        ExitCode.UNAVAILABLE: in_process.run_cli(*delete, settings=gone),
    }
    assert {status: ran.returncode for status, ran in found.items()} == {
        status: status for status in found
    }
    assert in_process.run_cli("models", "list", settings=nobody).returncode == ExitCode.REFUSED
    assert in_process.on(server, *delete[:-1]).returncode == ExitCode.CONFLICT, (
        "it is not asked for"
    )
    fine_tuning_rows.set_job(server.app, job, status="cancelled", finished_at=1)


def test_the_help_says_what_each_status_means_and_which_variables_count() -> None:
    said = in_process.run_cli("--help").stdout
    for one in ExitCode:
        assert one is ExitCode.INTERRUPTED or f"{one.value} " in said
    for name in ("TUNEWARDEN_URL", "TUNEWARDEN_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        assert name in said


# JSON


def test_json_is_what_the_api_answers(server: Server) -> None:
    model = server.make_model(suffix="json")
    file = server.client().files.create(file=b"{}", purpose="user_data").id
    job = fine_tuning_rows.make_job(server.app, server.owner_key, status="succeeded", finished_at=1)
    fine_tuning_rows.tell(server.app, job, "hello")
    gone = server.client().models.with_raw_response.delete(server.make_model().id)
    deletion = gone.headers["tunewarden-deletion"]
    commands = {
        ("models", "list"): "models",
        ("models", "delete", model.id, "--dry-run"): f"models/{model.id}/deletion_plan",
        ("files", "list"): "files?limit=10000",
        ("files", "delete", file, "--dry-run"): f"files/{file}/deletion_plan",
        ("fine-tunes", "list"): "fine_tuning/jobs?limit=20",
        ("fine-tunes", "cancel", job, "--dry-run"): f"fine_tuning/jobs/{job}",
        ("fine-tunes", "metrics", job, "--points", "9"): f"fine_tuning/jobs/{job}/metrics?points=9",
        ("deletions", "list"): "deletions?limit=1000",
        ("deletions", "show", deletion): f"deletions/{deletion}",
    }
    for command, path in commands.items():
        assert _json(server, *command) == _api(server, path), command
    shown = _json(server, "models", "show", model.id)
    assert shown.pop("engines") == _api(server, f"models/{model.id}/engines")["data"]
    assert shown == _api(server, f"models/{model.id}")
    shown = _json(server, "fine-tunes", "show", job)
    assert shown.pop("checkpoints") == _api(server, f"fine_tuning/jobs/{job}/checkpoints")
    assert shown == _api(server, f"fine_tuning/jobs/{job}")
    told = in_process.on(server, "fine-tunes", "events", job, "--json").stdout.splitlines()
    events = _api(server, f"fine_tuning/jobs/{job}/events")["data"]
    assert [json.loads(line) for line in told] == events[::-1]
    deleted = _json(server, "models", "delete", model.id, "--yes")
    assert deleted.pop("deletion").startswith("del_")
    assert deleted == {"id": model.id, "object": "model", "deleted": True}


def test_json_of_an_upload_and_an_import_is_what_was_made(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_bytes(b"{}")
    file = _json(server, "files", "upload", str(path), "--purpose", "user_data")
    assert file == _api(server, f"files/{file['id']}")


def test_json_of_what_only_the_operator_sees_is_a_list_too(server: Server) -> None:
    made = _json(server, "keys", "create", "--role", "reader", "--name", "ci")
    assert server.get("/v1/models", key=made.pop("value")).status == 200
    listed = _json(server, "keys", "list")
    assert (listed["object"], listed["has_more"]) == ("list", False)
    assert made in listed["data"]
    revoked = _json(server, "keys", "revoke", made["id"])
    assert revoked["revoked_at"] >= made["created_at"]
    [base] = [one for one in _json(server, "bases", "list")["data"] if one["id"] == LOCAL_BASE]
    assert base["kind"] == "local"
    assert base["object"] == "model"
    examined = in_process.on(
        server, "doctor", "--json", settings={"TUNEWARDEN_SCRATCH": str(server.scratch)}
    )
    findings = {one["what"]: one for one in json.loads(examined.stdout)["data"]}
    assert findings["server"] == {
        "object": "finding",
        "is_well": True,
        "what": "server",
        "found": "running",
        "is_pending": False,
    }
    assert _json(server, "expiry", "resume") == {"object": "expiry", "was_paused": False}


def test_json_is_indented_for_people_and_ascii_for_any_terminal(server: Server) -> None:
    file = server.client().files.create(file=("näme", b"{}"), purpose="user_data").id
    with terminal.running("files", "list", "--json", data=server.data) as shown:
        assert shown.end() == 0
    assert '\n  "data": [' in shown.shown.replace("\r", "")
    assert "n\\u00e4me" in shown.shown
    server.client().files.delete(file)


# Dry runs


def test_a_dry_run_shows_the_plan_and_deletes_nothing(server: Server) -> None:
    job = fine_tuning_rows.make_job(server.app, server.owner_key, status="succeeded")
    fine_tuning_rows.set_job(server.app, job, finished_at=1)
    model = fine_tuning_rows.make_model(server.app, server.owner_key, job_id=job)
    checkpoint = fine_tuning_rows.make_checkpoint(server.app, server.owner_key, job, 3, {})
    file = server.client().files.create(file=b"{}", purpose="user_data").id
    for what, wanted, kept in (
        ("models", model.id, f"checkpoint: {checkpoint.id}\n"),
        ("files", file, "blobs: 1\n"),
    ):
        for option in ((), ("--yes",)):
            plan = in_process.on(server, what, "delete", wanted, "--dry-run", *option)
            assert plan.returncode == 0, plan.stderr
            assert plan.stdout.startswith(f"{what[:-1]}: {wanted}\n")
            assert kept in plan.stdout
            assert plan.stderr == "This was a dry run. Nothing was deleted.\n"
        assert server.get(f"/v1/{what}/{wanted}", key=server.owner_key).status == 200
    missing = in_process.on(server, "files", "delete", "file-nobody", "--dry-run")
    assert missing.returncode == ExitCode.NOT_FOUND


def test_a_dry_run_names_what_would_forbid_the_deletion(server: Server) -> None:
    client = server.client()
    job = fine_tuning_rows.make_job(server.app, server.owner_key, is_paused=1, status="queued")
    file = client.fine_tuning.jobs.retrieve(job).training_file
    plan = in_process.on(server, "files", "delete", file, "--dry-run")
    assert f"blocker: fine_tuning.job {job}\n" in plan.stdout
    refused = in_process.on(server, "files", "delete", file)
    assert refused.returncode == ExitCode.CONFLICT
    assert job in refused.stderr
    cancelled = in_process.on(server, "fine-tunes", "cancel", job, "--dry-run")
    assert (cancelled.returncode, cancelled.stdout) == (0, "paused\n")
    assert cancelled.stderr == "This was a dry run. Nothing was cancelled.\n"
    assert client.fine_tuning.jobs.retrieve(job).status == "queued"
    fine_tuning_rows.set_job(server.app, job, status="cancelled", finished_at=1)


def test_a_dry_run_revokes_no_key_and_sweeps_nothing(server: Server) -> None:
    key = server.make_key("reader")
    key_id = f"key_{key.split('-')[2]}"
    shown = in_process.on(server, "keys", "revoke", key_id, "--dry-run")
    assert shown.stdout.startswith(f"{key_id}\t")
    assert shown.stdout.endswith("\tactive\n")
    assert server.get("/v1/models", key=key).status == 200
    missing = in_process.on(server, "keys", "revoke", "key_nobody", "--dry-run")
    assert missing.returncode == ExitCode.NOT_FOUND


def test_a_dry_sweep_names_the_remnants_and_leaves_them(data: Path) -> None:
    servers.prepare_local_base(data)
    remnant = data / "blobs" / f"mdl_{'x' * 24}"
    remnant.mkdir()
    (remnant / "weights").write_bytes(os.urandom(64))
    swept = in_process.run_cli("doctor", "--sweep", "--dry-run", "--data", str(data))
    assert "`tunewarden doctor --sweep` erases it" in swept.stdout
    assert remnant.exists()
    assert (
        in_process.run_cli("doctor", "--dry-run", "--data", str(data)).returncode == ExitCode.USAGE
    )
    in_process.run_cli("doctor", "--sweep", "--data", str(data))
    assert not (remnant / "weights").exists()


def test_adopting_a_keyring_dry_says_how_many_keys_and_erases_none(
    data: Path, tmp_path: Path
) -> None:
    with servers.serving(data, local_base=True, kind=servers.WithoutTorch) as server:
        model = server.make_model()
        shutil.copytree(data / "keyring", tmp_path / "old")
        server.client().models.delete(model.id)
    shutil.rmtree(data / "keyring")
    shutil.copytree(tmp_path / "old", data / "keyring")

    def adopted(*options: str) -> object:
        ran = in_process.run_cli("keyring", "adopt", *options, "--json", "--data", str(data))
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout)

    found = {"object": "keyring.adoption", "erased_again": 1}
    for _ in range(2):
        assert adopted("--dry-run") == {**found, "dry_run": True}
    assert adopted("--yes") == {**found, "dry_run": False}
    assert adopted("--dry-run") == {**found, "erased_again": 0, "dry_run": True}


@pytest.mark.parametrize("command", ["delete", "cancel"])
def test_a_dry_run_for_whom_it_may_not_concern_is_refused(server: Server, command: str) -> None:
    scope = {**over_http(server), "OPENAI_API_KEY": server.make_key("owner", "api.model.request")}
    group = "models" if command == "delete" else "fine-tunes"
    refused = in_process.run_cli(group, command, "x", "--dry-run", settings=scope)
    assert refused.returncode == ExitCode.REFUSED


def test_output_that_cannot_be_written_is_one_line_and_leaves_no_key(server: Server) -> None:
    command = [sys.executable, "-m", "tunewarden", "keys"]
    where = ["--data", str(server.data)]
    for asked in (["list"], ["create", "--role", "reader", "--name", "unseen"]):
        with Path("/dev/full").open("w") as full:
            ran = subprocess.run(
                [*command, *asked, *where],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert ran.returncode == ExitCode.FAILED
        assert ran.stderr.splitlines()[-1] == "Error: the output: No space left on device."
        assert "Traceback" not in ran.stderr
    keys = in_process.run_cli("keys", "list", *where).stdout
    assert ["revoked" in line for line in keys.splitlines() if "unseen" in line] == [True]


def test_a_backup_replaces_an_older_one_and_nothing_else(server: Server, tmp_path: Path) -> None:
    where = ["--data", str(server.data)]
    copy, text = tmp_path / "copy.sqlite", tmp_path / "notes.txt"
    text.write_text("These are notes.")
    for _ in range(2):
        assert in_process.run_cli("backup", "database", str(copy), *where).returncode == 0
    made = _json(server, "backup", "database", str(copy))
    assert made == {"object": "backup", "file": str(copy), "bytes": copy.stat().st_size}
    refused = {
        text: ExitCode.CONFLICT,
        tmp_path / "missing" / "copy.sqlite": ExitCode.UNAVAILABLE,
        server.data / "tunewarden.sqlite": ExitCode.FAILED,
    }
    for path, status in refused.items():
        ran = in_process.run_cli("backup", "database", str(path), *where)
        assert ran.returncode == status, ran.stderr
        assert ran.stderr.startswith("Error: ")
        assert ran.stderr.count("\n") == 1
    assert text.read_text() == "These are notes."
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.sqlite", "notes.txt"]
