"""Files on the command line, and what goes with a model that is deleted."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from tests.cli import in_process, terminal
from tests.cli.in_process import over_http
from tests.support import fine_tuning_rows, servers
from tests.support.jobs import chats
from tests.support.servers import Server

from tunewarden.cli import forms, local_files
from tunewarden.cli.client import Client
from tunewarden.cli.exit_codes import ExitCode
from tunewarden.cli.transport import Http
from tunewarden.errors import Error

CLI = subprocess.CompletedProcess[str]


def _written(directory: Path, content: bytes, name: str = "chats.jsonl") -> str:
    path = directory / name
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize("by", ["directory", "address"])
def test_files_are_listed_and_deleted(server: Server, tmp_path: Path, by: str) -> None:
    where = {"TUNEWARDEN_DATA": str(server.data)} if by == "directory" else over_http(server)

    def cli(*arguments: str) -> CLI:
        return in_process.run_cli(*arguments, settings=where)

    def asked(file: str, typed: str) -> CLI:
        return servers.run_cli("files", "delete", file, stdin=f"{typed}\n", settings=where)

    path = _written(tmp_path, chats(1), 'a "quoted" näme.jsonl')
    file = cli("files", "upload", path).stdout.strip()
    first = cli("files", "list", "--limit", "1").stdout.splitlines()[0].split("\t")
    assert first[:3] == [file, "fine-tune", str(len(chats(1)))]
    assert first[4] == 'a "quoted" näme.jsonl'
    assert cli("files", "list", "--purpose", "vision").stdout == ""
    shown = cli("files", "show", file).stdout.splitlines()
    assert {f"id: {file}", 'filename: a "quoted" näme.jsonl', f"bytes: {len(chats(1))}"} < {*shown}
    assert json.loads(cli("files", "show", file, "--json").stdout)["purpose"] == "fine-tune"
    wrong = asked(file, "file-other")
    assert (wrong.returncode, wrong.stdout) == (ExitCode.FAILED, "")
    deleted = asked(file, file)
    assert deleted.stdout.startswith("del_"), deleted.stderr
    again = cli("files", "delete", file, "--yes")
    assert again.returncode == ExitCode.NOT_FOUND
    assert again.stderr == f"Error: No such File object: {file}\n"
    assert f"\t{file}\n" in cli("deletions", "list").stdout


def test_a_large_upload_shows_its_progress_on_a_terminal(server: Server, tmp_path: Path) -> None:
    path = _written(tmp_path, b"{}\n" * (12 * 1024 * 1024 // 3), "large.jsonl")
    with terminal.running("files", "upload", path, data=server.data, columns=120) as shown:
        assert shown.end() == 0
    assert "Uploading large.jsonl" in shown.shown
    assert re.search(r"file-\w+\s*$", shown.shown)
    in_process.on(server, "files", "delete", shown.shown.split()[-1], "--yes")


def test_a_refused_upload_says_why_and_not_that_nobody_answers(data: Path, tmp_path: Path) -> None:
    path = _written(tmp_path, b"{}\n" * (12 * 1024 * 1024 // 3), "large.jsonl")
    with servers.serving(data, settings={"file_bytes_max": 4096}) as server:
        refused = in_process.run_cli("files", "upload", path, settings=over_http(server))
        assert refused.returncode == 1
        assert refused.stderr == "Error: 'file' is too large.\n"
        reader = {**over_http(server), "OPENAI_API_KEY": server.make_key("reader")}
        forbidden = in_process.run_cli("files", "upload", path, settings=reader)
        assert forbidden.returncode == ExitCode.REFUSED


def test_a_file_too_large_for_one_request_is_sent_in_parts(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "SINGLE_BYTES_MAX", 1_000_000)
    monkeypatch.setattr(forms, "PART_BYTES", 1_100_000)
    client = Client(Http(server.url, server.owner_key))
    path = Path(_written(tmp_path, chats(30_000)))
    with local_files.opened(path) as file, file.shown("Uploading"):
        made = forms.upload(client, file, "fine-tune")
    assert server.client().files.content(made["id"]).read() == path.read_bytes()
    with local_files.opened(path) as file, file.shown("Uploading"):
        path.write_bytes(chats(15_000))
        with pytest.raises(Error, match="became shorter"):
            forms.upload(client, file, "fine-tune")
    left = server.app.database.peek("SELECT status FROM uploads ORDER BY n DESC LIMIT 1")
    assert left == ("cancelled",)


# What goes with a model


def test_deleting_names_the_checkpoints_that_go_too(server: Server) -> None:
    job = fine_tuning_rows.make_job(server.app, server.owner_key, status="succeeded")
    fine_tuning_rows.set_job(server.app, job, finished_at=1)
    model = fine_tuning_rows.make_model(server.app, server.owner_key, job_id=job)
    checkpoint = fine_tuning_rows.make_checkpoint(server.app, server.owner_key, job, 3, {})
    for settings in ({}, over_http(server)):
        arguments = ("models", "delete", model.id)
        refused = (
            servers.run_cli(*arguments, stdin="no\n", settings=settings)
            if settings
            else server.cli(*arguments, stdin="no\n")
        )
        assert refused.returncode == 1
        assert f"are deleted too:\n  {checkpoint.id}\n" in refused.stderr
    assert server.cli("models", "delete", model.id, stdin=f"{model.id}\n").returncode == 0
    assert server.get(f"/v1/models/{checkpoint.id}", key=server.owner_key).status == 404


def test_a_model_that_a_job_needs_is_not_asked_for(server: Server) -> None:
    model = fine_tuning_rows.make_model(server.app, server.owner_key)
    paused = {"start_n": model.n, "is_paused": 1, "status": "queued"}
    job = fine_tuning_rows.make_job(server.app, server.owner_key, **paused)
    refused = in_process.on(server, "models", "delete", model.id)
    assert (refused.returncode, refused.stdout) == (ExitCode.CONFLICT, "")
    assert "Type the model's id" not in refused.stderr
    assert job in refused.stderr
    assert (
        in_process.on(server, "models", "delete", model.id, "--yes").returncode == ExitCode.CONFLICT
    )
    fine_tuning_rows.set_job(server.app, job, status="cancelled", finished_at=1)


def test_a_refusal_names_the_option_of_the_command_that_overrides_it(server: Server) -> None:
    model = server.make_model().id
    server.post(f"/v1/models/{model}", {"protected": True})
    refused = in_process.on(server, "models", "delete", model, "--yes")
    assert "or delete with `--force`" in refused.stderr
    assert "force=true" not in refused.stderr
    assert in_process.on(server, "models", "delete", model, "--yes", "--force").returncode == 0
