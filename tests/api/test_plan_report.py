"""`GET /v1/files/{id}/deletion_plan/report`: what a refused case would have deleted, what is held and why, what blocks it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.api.test_case_report import Page
from tests.api.test_cases import erase, trained, upload
from tests.cli import in_process
from tests.support.servers import Server, WithoutTorch, serving

from tunewarden.cli.exit_codes import ExitCode
from tunewarden.identity.policy import ProjectRole

REASON = "a dispute of <Jane Roe>"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("plans") / "data"
    with serving(data, local_base=True, kind=WithoutTorch, workers=1) as running:
        yield running


class Refused:
    """A file whose case is refused: its model is on hold, exported and named by an alias."""

    def __init__(self, server: Server) -> None:
        self.file = upload(server)
        _, model, checkpoint = trained(server, self.file)
        self.model, self.checkpoint = model.id, checkpoint.id
        exported = server.get(f"/v1/models/{self.model}/content", key=server.owner_key)
        assert exported.status == 200
        held = server.post("/v1/holds", {"model": self.model, "reason": REASON})
        self.hold = held.json["id"]
        assert server.post("/v1/aliases", {"name": "prod", "model": self.model}).status == 200
        with pytest.raises(openai.ConflictError):
            erase(server, self.file)


@pytest.fixture(scope="module")
def refused(server: Server) -> Refused:
    return Refused(server)


def _path(file: str) -> str:
    return f"/v1/files/{file}/deletion_plan/report"


def _report(server: Server, file: str, key: str | None = None) -> dict[str, Any]:
    reply = server.get(_path(file), key=key or server.owner_key)
    assert reply.status == 200, reply.body
    return reply.json


def test_it_says_what_was_found_what_is_held_and_why_and_that_nothing_was_deleted(
    server: Server, refused: Refused
) -> None:
    report = _report(server, refused.file)
    assert report["statement"].startswith("Nothing was deleted")
    assert report["outcome"] == "refused"
    assert report["found"] == {"members": 3, "models": 2, "files": 1, "hidden": 0}
    members = {one["artifact"]: one for one in report["members"]}
    assert set(members) == {refused.file, refused.model, refused.checkpoint}
    assert members[refused.checkpoint]["is_checkpoint"]
    assert len(members[refused.model]["exports"]) == 1
    [held] = report["held"]
    assert (held["id"], held["artifact"], held["reason"]) == (refused.hold, refused.model, REASON)
    [other] = report["blockers"]
    assert (other["type"], other["id"], other["artifact"]) == ("alias", "prod", refused.model)
    assert "Point the alias to another model" in other["lifted_by"]
    reached = {one["what"]: one["count"] for one in report["not_reached"]}
    assert (reached["exports"], reached["members in other projects"]) == (1, 0)
    assert reached["backups"] is None
    plan = server.get(f"/v1/files/{refused.file}/deletion_plan", key=server.owner_key).json
    assert report["fingerprint"] == plan["fingerprint"]
    assert server.client().models.retrieve(refused.model).id == refused.model


def test_only_owners_read_the_reason_and_others_nothing(server: Server, refused: Refused) -> None:
    member = server.make_key("reader", project_role=ProjectRole.MEMBER)
    [held] = _report(server, refused.file, member)["held"]
    assert (held["id"], held["reason"]) == (refused.hold, None)
    page = server.get(f"{_path(refused.file)}?format=html", key=member).body
    assert b"Jane Roe" not in page
    assert b"only Owners read it" in page
    foreign = server.make_key("owner", organization="others")
    seen = server.get(_path(refused.file), key=foreign)
    unknown = server.get(_path("file-nobody"), key=foreign)
    assert (seen.status, unknown.status) == (404, 404)
    assert seen.body == unknown.body.replace(b"file-nobody", refused.file.encode())
    assert server.get(_path(refused.file)).status == 401


def test_the_page_has_the_same_escaped_and_runs_and_loads_nothing(
    server: Server, refused: Refused
) -> None:
    reply = server.get(f"{_path(refused.file)}?format=html", key=server.owner_key)
    assert reply.header("cache-control") == "no-store"
    assert (reply.header("content-security-policy") or "").startswith("default-src 'none'")
    page = Page()
    page.feed(reply.body.decode())
    assert (page.open, page.active) == ([], [])
    text = " ".join(page.texts)
    for said in (REASON, refused.hold, refused.checkpoint, "Nothing was deleted", "alias: prod"):
        assert said in text
    assert "What the case would not reach" in text


@pytest.mark.parametrize("by", ["directory", "address"])
def test_the_command_prints_it_and_writes_the_page(
    server: Server, refused: Refused, tmp_path: Path, by: str
) -> None:
    where = (
        {"TUNEWARDEN_DATA": str(server.data)} if by == "directory" else in_process.over_http(server)
    )
    page = tmp_path / "plan.html"
    asked = ("deletions", "report", refused.file)
    done = in_process.run_cli(*asked, "--html", str(page), settings=where)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert "plan: Nothing was deleted" in done.stdout
    assert f"{refused.model} by {refused.hold}" in done.stdout
    assert REASON in done.stdout
    assert "blocker: " in done.stdout
    assert page.read_text("utf-8").startswith("<!doctype html>")
    printed = in_process.run_cli(*asked, "--json", settings=where)
    assert json.loads(printed.stdout)["object"] == "file.deletion_plan.report"


def test_once_the_hold_is_lifted_the_case_of_what_is_left_says_that_its_reason_is_gone(
    server: Server,
) -> None:
    """Between both, the report says that all of it would be deleted."""
    file = upload(server)
    _, model, _ = trained(server, file)
    hold = server.post("/v1/holds", {"model": model.id, "reason": REASON}).json["id"]
    assert _report(server, file)["outcome"] == "refused"
    assert server.post(f"/v1/holds/{hold}/lift", None).status == 200
    free = _report(server, file)
    assert (free["outcome"], free["held"], free["blockers"]) == ("complete", [], [])
    case = erase(server, file)["deletion_case"]["id"]
    report = server.get(f"/v1/deletion_cases/{case}/report", key=server.owner_key).json
    assert [one["id"] for one in report["held"]["lifted"]] == [hold]
    assert "went with that key" in report["held"]["why"]
    assert "Jane Roe" not in json.dumps(report)
    assert server.get(_path(file), key=server.owner_key).status == 404
