"""`GET /v1/deletion_cases/{id}/report`: what a case did, what it did not reach, and whether each receipt verifies."""

import hashlib
import html.parser
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.api.test_cases import erase, trained, upload
from tests.cli import in_process
from tests.support.servers import Server, WithoutTorch, serving, wait_until

from tunewarden.cli.exit_codes import ExitCode
from tunewarden_receipts.receipt import verify


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("reports") / "data"
    with serving(data, local_base=True, kind=WithoutTorch, workers=1) as running:
        yield running


@pytest.fixture(scope="module")
def case(server: Server) -> str:
    """A finished case of a file, a model and a checkpoint, one exported and one held before."""
    file = upload(server)
    _, model, _ = trained(server, file)
    exported = server.get(f"/v1/models/{model.id}/content", key=server.owner_key)
    assert exported.status == 200
    hold = server.post("/v1/holds", {"model": model.id, "reason": "a dispute of Jane Roe"}).json
    assert server.post(f"/v1/holds/{hold['id']}/lift", None).status == 200
    found = str(erase(server, file)["deletion_case"]["id"])
    wait_until(
        lambda: {one["status"] for one in _report(server, found)["members"]} == {"erased"}, "D9"
    )
    return found


def _report(server: Server, case: str) -> dict[str, Any]:
    reply = server.get(f"/v1/deletion_cases/{case}/report", key=server.owner_key)
    assert reply.status == 200, reply.body
    return reply.json


def test_it_says_what_was_found_deleted_and_held_and_what_was_not_reached(
    server: Server, case: str
) -> None:
    report = _report(server, case)
    assert report["status"] == "complete"
    assert report["found"] == {"members": 3, "models": 2, "files": 1, "hidden": 0}
    assert {one["kind"] for one in report["members"]} == {"model", "file"}
    for one in report["members"]:
        assert one["fenced_at"] <= one["key_erased_at"] <= one["deleted_at"]
        assert one["key"].startswith("shard-rewritten")
        assert one["blobs"] >= 1
        assert one["memory"]
    (lifted,) = report["held"]["lifted"]
    assert lifted["lifted_at"] > lifted["placed_at"]
    assert report["held"]["hidden"] == 0
    assert "Jane Roe" not in json.dumps(report)
    reached = {one["what"]: one["count"] for one in report["not_reached"]}
    assert reached["exports"] == 1
    assert reached["sealed files not erased yet"] == 0
    assert reached["backups"] is None
    assert "memory of processes that have ended" in reached


def test_each_receipt_is_the_one_that_is_served_and_verifies_offline(
    server: Server, case: str
) -> None:
    report = _report(server, case)
    checked = report["verification"]
    assert (checked["receipts"], checked["valid"]) == (4, 4)
    key = server.get("/.well-known/tunewarden-log-key").body
    assert checked["log_key_sha256"] == hashlib.sha256(key).hexdigest()
    for one in [report["summary"], *(member["receipt"] for member in report["members"])]:
        body = server.get(one["path"], key=server.owner_key).body
        assert hashlib.sha256(body).hexdigest() == one["sha256"]
        assert verify(body, key).index == one["log_index"]


def test_control_a_receipt_that_was_changed_is_said_to_be_invalid(server: Server) -> None:
    file = upload(server)
    case = str(erase(server, file)["deletion_case"]["id"])
    app = server.app
    with app.database.write() as tx:
        tx.run(
            "UPDATE deletions SET receipt = CAST(REPLACE(CAST(receipt AS TEXT), 'key', 'kex') AS BLOB)"
            " WHERE artifact_n = (SELECT n FROM artifacts WHERE id = :id)",
            id=file,
        )
    report = _report(server, case)
    assert [one["receipt"]["is_valid"] for one in report["members"]] == [False]
    assert report["verification"]["valid"] == 1
    done = in_process.on(server, "deletions", "report", case)
    assert done.returncode == ExitCode.FAILED
    assert "NOT VALID" in done.stdout


class Page(html.parser.HTMLParser):
    """What a page has: its elements, and everything that would load or run something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.active: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "br"}:
            self.open.append(tag)
        loading = {"src", "href", "action"}
        self.active += [name for name, _ in attributes if name.startswith("on") or name in loading]
        self.active += [tag] if tag in {"script", "iframe", "object", "link", "form"} else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_has_the_same_and_runs_and_loads_nothing(server: Server, case: str) -> None:
    reply = server.get(f"/v1/deletion_cases/{case}/report?format=html", key=server.owner_key)
    assert reply.header("content-type") == "text/html; charset=utf-8"
    policy = reply.header("content-security-policy") or ""
    assert policy.startswith("default-src 'none'")
    assert "script" not in policy
    page = Page()
    page.feed(reply.body.decode())
    assert page.open == []
    assert page.active == []
    text = " ".join(page.texts)
    report = _report(server, case)
    for one in report["members"]:
        assert one["artifact"] in text
        assert one["receipt"]["sha256"] in text
    for of in report["not_reached"]:
        assert of["what"] in text
    assert "Exports" in text


def test_others_do_not_see_it(server: Server, case: str) -> None:
    foreign = server.make_key("owner", organization="others")
    path = f"/v1/deletion_cases/{case}/report"
    unknown = server.get("/v1/deletion_cases/case_nobody/report", key=foreign)
    seen = server.get(path, key=foreign)
    assert (seen.status, unknown.status) == (404, 404)
    assert seen.body == unknown.body.replace(b"case_nobody", case.encode())
    assert server.get(path).status == 401
    assert server.get(f"{path}?format=pdf", key=server.owner_key).status == 400


@pytest.mark.parametrize("by", ["directory", "address"])
def test_the_command_prints_it_and_writes_the_page(
    server: Server, case: str, tmp_path: Path, by: str
) -> None:
    where = (
        {"TUNEWARDEN_DATA": str(server.data)} if by == "directory" else in_process.over_http(server)
    )
    page = tmp_path / "report.html"
    asked = ("deletions", "report", case)
    done = in_process.run_cli(*asked, "--html", str(page), settings=where)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert "verified: 4 of 4 receipts are valid" in done.stdout
    assert page.read_text("utf-8").startswith("<!doctype html>")
    printed = in_process.run_cli(*asked, "--json", settings=where)
    assert json.loads(printed.stdout)["object"] == "deletion.case.report"
