"""`migrate openai download`: whole files, sealed, whatever breaks on the way."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli import terminal
from tests.cli.in_process import over_http
from tests.fakes import openai_source
from tests.fakes.cutting_proxy import CuttingProxy
from tests.fakes.openai_source import OpenAI, rate_limited
from tests.support import migrations, servers
from tests.support.migrations import ANSWER_CANARY, PROMPT_CANARY, Moving, chats
from tests.support.servers import Server

from tunewarden.cli.exit_codes import ExitCode
from tunewarden.migration import download
from tunewarden.migration.state import State


@pytest.fixture
def source() -> Iterator[OpenAI]:
    with openai_source.serving(migrations.acme()) as has:
        yield has


@pytest.fixture
def moving(source: OpenAI, server: Server, tmp_path: Path) -> Moving:
    found = migrations.moving(tmp_path, source.url, settings=over_http(server))
    assert found.run("inventory").returncode == 0
    return found


def _saved(moving: Moving) -> dict[str, Any]:
    files = moving.noted("downloads")["files"]
    assert isinstance(files, dict)
    return files


def _large(source: OpenAI, moving: Moving) -> str:
    """Give the source one file of three parts, which the inventory has."""
    lines = chats(1) * (2 * download.PART_BYTES // len(chats(1)) + 3)
    name = source.add_file(lines, filename="large.jsonl")
    assert moving.run("inventory").returncode == 0
    return name


def _check_content(source: OpenAI, server: Server, moving: Moving, name: str) -> None:
    here = _saved(moving)[name]["file"]
    assert server.client().files.content(here).read() == source.contents[name]


def test_every_file_becomes_a_sealed_file_with_its_digest(
    source: OpenAI, server: Server, moving: Moving
) -> None:
    ran = moving.run("download")
    assert ran.returncode == 0, ran.stderr
    assert "3 files saved, 0 were here already." in ran.stderr
    client = server.client(_strict_response_validation=True)
    saved = _saved(moving)
    assert migrations.pairs(ran) == {name: one["file"] for name, one in saved.items()}
    for name, one in saved.items():
        assert one["sha256"] == hashlib.sha256(source.contents[name]).hexdigest()
        file = client.files.retrieve(one["file"])
        there = source.files[name]
        is_result = there["purpose"] == "fine-tune-results"
        assert (file.filename, file.bytes) == (there["filename"], there["bytes"])
        assert file.purpose == ("user_data" if is_result else "fine-tune")
        _check_content(source, server, moving, name)
    # Gone at the source, and said.
    assert "Missing: file file-deleted: deleted or expired." in ran.stderr


@pytest.mark.parametrize("purpose", ["fine-tune", "fine-tune-results"])
def test_an_empty_file_is_saved_as_the_others_are(
    source: OpenAI, server: Server, moving: Moving, purpose: str
) -> None:
    name = source.add_file(b"", filename="empty.jsonl", purpose=purpose)
    assert moving.run("inventory").returncode == 0
    ran = moving.run("download")
    assert ran.returncode == 0, ran.stderr
    assert "4 files saved" in ran.stderr
    assert server.client().files.retrieve(_saved(moving)[name]["file"]).bytes == 0
    _check_content(source, server, moving, name)


def test_a_terminal_shows_how_far_it_is(server: Server, moving: Moving) -> None:
    with terminal.running(*moving.options("download"), data=server.data) as shown:
        assert shown.end() == 0
    assert all(f"files: {count} of 3" in shown.shown for count in range(3))
    assert "3 files saved" in shown.shown


def test_results_are_derived_from_what_they_tell_about(
    source: OpenAI, server: Server, moving: Moving
) -> None:
    moving.run("download")
    (job,) = [one for one in source.jobs if one["result_files"]]
    saved = {name: one["file"] for name, one in _saved(moving).items()}
    result: dict[str, Any] = server.client().files.retrieve(saved[job["result_files"][0]]).to_dict()
    assert result["source"] == f"{source.url} {job['result_files'][0]}"
    learned_from = {saved[job["training_file"]], saved[job["validation_file"]]}
    assert set(result["derived_from"]) == learned_from
    path = f"/v1/files/{saved[job['training_file']]}/deletion_plan"
    plan = server.get(path, key=server.owner_key).json
    assert plan["derived_files"] == [result["id"]]


def test_what_is_saved_already_stays_and_what_was_deleted_here_comes_again(
    source: OpenAI, server: Server, moving: Moving
) -> None:
    moving.run("download")
    before = _saved(moving)
    asked = len(source.asked)
    again = moving.run("download")
    assert "0 files saved, 3 were here already." in again.stderr
    assert _saved(moving) == before
    assert len(source.asked) == asked
    name = next(iter(before))
    server.client().files.delete(before[name]["file"])
    assert "1 files saved, 2 were here already." in moving.run("download").stderr
    _check_content(source, server, moving, name)


@pytest.mark.parametrize("has_ranges", [True, False])
def test_a_cut_download_goes_on_where_it_was(
    source: OpenAI, server: Server, moving: Moving, has_ranges: bool
) -> None:
    source.has_ranges = has_ranges
    name = _large(source, moving)
    size = len(source.contents[name])
    source.bytes_sent = 0
    # The smaller files come first, whole.
    source.cuts.extend([10_000_000, 10_000_000])
    ran = moving.run("download", "--json")
    assert ran.returncode == 0, ran.stderr
    _check_content(source, server, moving, name)
    if has_ranges:
        ranges = [one.headers.get("range") for one in source.asked if "range" in one.headers]
        assert len(ranges) == 2
        # What was on its way when the connection broke comes again; all that came before does not.
        assert source.bytes_sent < 1.5 * size


def test_a_file_that_changed_in_between_is_refused(
    source: OpenAI, server: Server, moving: Moving
) -> None:
    name = next(iter(source.contents))
    source.has_ranges = False
    content = source.contents[name]

    class Changing(dict[str, bytes]):
        def __getitem__(self, key: str) -> bytes:
            whole = super().__getitem__(key)
            self[key] = whole[::-1] if key == name else whole
            return whole

    source.contents = Changing(source.contents)
    source.cuts.append(100)
    ran = moving.run("download")
    assert ran.returncode == ExitCode.FAILED
    assert f"Not saved: {name}: {name} is not at the source what it was" in ran.stderr
    assert "2 files saved" in ran.stderr
    source.contents[name] = content
    assert len(content) == len(source.contents[name])


def test_limits_are_waited_for_between_files(source: OpenAI, moving: Moving) -> None:
    source.refusals.extend([rate_limited(retry_after="0.01"), None, rate_limited(retry_after="0")])
    ran = moving.run("download")
    assert ran.returncode == 0, ran.stderr
    assert "3 files saved" in ran.stderr


def test_a_file_that_is_gone_meanwhile_is_named_and_the_others_come(
    source: OpenAI, moving: Moving
) -> None:
    name = next(iter(source.contents))
    del source.contents[name]
    ran = moving.run("download", "--json")
    assert ran.returncode == ExitCode.FAILED
    shown = json.loads(ran.stdout)
    assert list(shown["failed"]) == [name]
    assert len(shown["files"]) == 2


def test_a_kill_loses_one_part_and_no_file_is_made_twice(
    source: OpenAI, server: Server, moving: Moving
) -> None:
    name = _large(source, moving)
    before = {one.id for one in server.client().files.list()}

    def has_begun() -> bool:
        return bool((moving.state / "downloads.json").exists() and _parts_of(moving, name))

    process = moving.start("download")
    servers.wait_until(has_begun, "one part is saved")
    process.kill()
    process.wait()
    assert process.stderr is not None
    process.stderr.close()
    parts = _parts_of(moving, name)
    assert _saved(moving)[name]["file"] is None, "it was killed in the middle"
    source.asked.clear()
    ran = moving.run("download")
    assert ran.returncode == 0, ran.stderr
    at = sum(part["bytes"] for part in parts)
    (asked,) = [one for one in source.asked if one.path == f"/files/{name}/content"]
    assert asked.headers["range"] == f"bytes={at}-"
    _check_content(source, server, moving, name)
    # What the killed command had read is not read again at the source.
    whole = hashlib.sha256(source.contents[name]).hexdigest()
    assert _saved(moving)[name]["sha256"] == whole
    made = {one.id for one in server.client().files.list()} - before
    assert made == {one["file"] for one in _saved(moving).values()}


def test_an_upload_that_ended_unfinished_is_begun_again(
    source: OpenAI, server: Server, moving: Moving
) -> None:
    name = _large(source, moving)
    process = moving.start("download")
    servers.wait_until(
        lambda: (moving.state / "downloads.json").exists() and _parts_of(moving, name),
        "one part is saved",
    )
    process.kill()
    process.wait()
    assert process.stderr is not None
    process.stderr.close()
    # As it would end by itself, an hour later.
    server.client().uploads.cancel(_saved(moving)[name]["upload"])
    ran = moving.run("download")
    assert ran.returncode == 0, ran.stderr
    _check_content(source, server, moving, name)
    content = source.contents[name]
    pieces = [
        content[at : at + download.PART_BYTES] for at in range(0, len(content), download.PART_BYTES)
    ]
    assert [part["sha256"] for part in _saved(moving)[name]["parts"]] == [
        hashlib.sha256(piece).hexdigest() for piece in pieces
    ]
    assert _saved(moving)[name]["sha256"] == hashlib.sha256(content).hexdigest()


def _parts_of(moving: Moving, name: str) -> list[dict[str, int]]:
    parts = _saved(moving).get(name, {}).get("parts", [])
    assert isinstance(parts, list)
    return parts


def test_whichever_answer_of_the_target_is_lost_no_file_is_made_twice(
    source: OpenAI, server: Server, tmp_path: Path
) -> None:
    source.files = dict(list(source.files.items())[:1])
    lost = 0
    while True:
        directory = tmp_path / str(lost)
        directory.mkdir()
        moving = migrations.moving(directory, source.url, settings=over_http(server))
        assert moving.run("inventory").returncode == 0
        before = {one.id for one in server.client().files.list()}
        with CuttingProxy(server.address) as proxy:
            proxy.skip, proxy.lose = lost, 1
            settings = {"OPENAI_BASE_URL": proxy.url, "OPENAI_API_KEY": server.owner_key}
            ran = Moving(moving.url, moving.key_file, moving.state, settings).run("download")
        if ran.returncode == 0:
            break
        assert ran.returncode == ExitCode.UNAVAILABLE, ran.stderr
        assert moving.run("download").returncode == 0
        made = {one.id for one in server.client().files.list()} - before
        assert made == {one["file"] for one in _saved(moving).values()}
        lost += 1
    assert lost >= 4, "a look at the server, an upload, a part and its completion"


def test_parts_whose_answers_are_lost_again_and_again_do_not_fill_an_upload_for_good(
    source: OpenAI, server: Server, tmp_path: Path
) -> None:
    """The server has room for each part twice: for a third one the upload is begun anew."""
    source.files = dict(list(source.files.items())[:1])
    moving = migrations.moving(tmp_path, source.url, settings=over_http(server))
    assert moving.run("inventory").returncode == 0
    with CuttingProxy(server.address) as proxy:
        settings = {"OPENAI_BASE_URL": proxy.url, "OPENAI_API_KEY": server.owner_key}
        through = Moving(moving.url, moving.key_file, moving.state, settings)
        for _ in range(2):
            # Cut in the head of the answer.
            proxy.lose_answer_to, proxy.after_bytes = b"/parts", 40
            ran = through.run("download")
            assert ran.returncode == ExitCode.UNAVAILABLE
            assert "gave no answer, or not all of it" in ran.stderr
            assert not proxy.lose_answer_to, "a part was sent"
    again = moving.run("download")
    assert again.returncode == 0, again.stderr
    ((name, saved),) = _saved(moving).items()
    assert server.client().files.content(saved["file"]).read() == source.contents[name]


def test_no_text_is_anywhere_but_sealed(source: OpenAI, data: Path, tmp_path: Path) -> None:
    with servers.serving(data, local_base=True, kind=servers.WithoutTorch) as server:
        moving = migrations.moving(tmp_path, source.url, settings=over_http(server))
        moving.run("inventory")
        assert moving.run("download").returncode == 0
        found = migrations.files_with(
            [PROMPT_CANARY, ANSWER_CANARY], moving.state, server.data, server.tmp, server.scratch
        )
    assert found == []
    key = moving.key_file.read_bytes().strip()
    assert all(key not in path.read_bytes() for path in moving.state.iterdir())


def test_the_state_is_read_once_however_many_files_there_are(
    moving: Moving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With thousands of files it is megabytes."""
    names: list[str] = []
    read = State.read

    def counted(self: State, name: str) -> dict[str, Any] | None:
        names.append(name)
        return read(self, name)

    monkeypatch.setattr(State, "read", counted)
    assert "3 files saved" in moving.run("download").stderr
    assert names.count(download.NAME) == 1
