"""Lists of commands are complete, however many pages of the API they take, or say that there is more."""

import json
from pathlib import Path

import pytest
from tests.cli import in_process
from tests.support import fine_tuning_rows, servers
from tests.support.servers import Server

from tunewarden.cli import client

COUNT = 5
MORE = "There are more. Raise --limit, or omit it to list all.\n"


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A data directory with five files, jobs, deletions, and checkpoints of its newest job."""
    data: Path = tmp_path_factory.mktemp("lists") / "data"
    with servers.serving(data, local_base=True, kind=servers.WithoutTorch) as server:
        for _ in range(COUNT):
            model = server.make_model().id
            server.client().models.delete(model)
            fine_tuning_rows.make_file(server.app, server.owner_key)
            job = fine_tuning_rows.make_job(server.app, server.owner_key, status="succeeded")
        for step in range(COUNT):
            fine_tuning_rows.make_checkpoint(server.app, server.owner_key, job, step, {})
    return server


@pytest.fixture(autouse=True)
def _short_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAGE_SIZE", 2)


@pytest.mark.parametrize("noun", ["files", "fine-tunes", "deletions"])
def test_a_list_is_complete_over_several_pages(full: Server, noun: str) -> None:
    lines = in_process.on(full, noun, "list")
    found = in_process.on(full, noun, "list", "--json")
    ids = [line.split("\t")[0] for line in lines.stdout.splitlines()]
    as_json = json.loads(found.stdout)
    assert len(set(ids)) >= COUNT
    assert [one["id"] for one in as_json["data"]] == ids
    assert (as_json["first_id"], as_json["last_id"]) == (ids[0], ids[-1])
    assert as_json["has_more"] is False
    assert lines.stderr == found.stderr == ""


@pytest.mark.parametrize("noun", ["files", "fine-tunes", "deletions"])
def test_a_limited_list_says_that_there_is_more(full: Server, noun: str) -> None:
    everything = in_process.on(full, noun, "list").stdout.splitlines()
    some = in_process.on(full, noun, "list", "--limit", "3")
    assert (some.stdout.splitlines(), some.stderr) == (everything[:3], MORE)
    as_json = in_process.on(full, noun, "list", "--limit", "3", "--json")
    assert json.loads(as_json.stdout)["has_more"] is True
    assert as_json.stderr == MORE
    just_all = in_process.on(full, noun, "list", "--limit", str(len(everything)))
    assert (just_all.stdout.splitlines(), just_all.stderr) == (everything, "")


def test_a_job_is_shown_with_all_its_checkpoints(full: Server) -> None:
    job = in_process.on(full, "fine-tunes", "list", "--limit", "1").stdout.split("\t")[0]
    shown = json.loads(in_process.on(full, "fine-tunes", "show", job, "--json").stdout)
    assert len(shown["checkpoints"]["data"]) == COUNT
