"""Files with what learned from them, cases with their report, and the log with two checks for the browser."""

import base64
import hashlib
import re

import pytest
from tests.support import fine_tuning_rows as rows
from tests.support.console import Visitor
from tests.support.servers import Server

from tunewarden.registry import files as registry_files
from tunewarden_receipts.note import LogKey


@pytest.fixture
def file(server: Server) -> str:
    made = server.client().files.create(file=("<i>notes.jsonl", b"{}\n"), purpose="user_data")
    return made.id


def test_a_file_is_shown_with_its_name_escaped_and_what_learned_from_it(
    server: Server, owner: Visitor, file: str
) -> None:
    for path in ("/console/files", f"/console/files/{file}"):
        page = owner.text(path)
        assert "&lt;i&gt;notes.jsonl" in page
        assert "<i>notes" not in page
    assert f"/console/files/{file}/delete?with=models" in owner.text(f"/console/files/{file}")


def test_files_are_filtered_by_purpose_in_the_address(
    server: Server, owner: Visitor, file: str
) -> None:
    assert file in owner.text("/console/files?purpose=user_data")
    assert file not in owner.text("/console/files?purpose=evals")


def test_a_purpose_that_few_files_have_is_looked_for_among_so_many_at_a_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = server.make_key("owner", organization="few")
    files, caller = server.client(key).files, rows.caller_of(server.app, key)
    rare = files.create(file=("rare", b"x"), purpose="vision").id
    others = [files.create(file=("a", b"x"), purpose="user_data").id for _ in range(5)][::-1]
    monkeypatch.setattr(registry_files, "LOOKED_AT_MAX", 3)

    def page(purpose: str | None, after: str | None = None) -> tuple[list[str], str | None]:
        found, looked_to = server.app.files.page(caller, purpose=purpose, after=after, limit=9)
        return [one.id for one in found], looked_to

    assert page("vision") == ([], others[2])
    assert page("vision", others[2]) == ([rare], rare)
    assert page("vision", rare) == ([], None)
    assert page(None) == ([*others, rare], None)
    visitor = Visitor(server, key)
    assert [
        one["id"] for one in visitor.get("/console/files?purpose=vision&format=json").json["data"]
    ] == [rare]
    assert "No file has this purpose" in visitor.text("/console/files?purpose=evals")


def test_a_case_has_its_members_its_report_and_its_receipt(
    server: Server, owner: Visitor, file: str
) -> None:
    done = server.request("DELETE", f"/v1/files/{file}?cascade=models", key=server.owner_key)
    case = str(done.header("tunewarden-deletion-case"))
    here = f"/console/cases/{case}"
    assert case in owner.text("/console/cases")
    page = owner.text(here)
    assert file in page
    assert f'data-receipt-check="{here}/receipt"' in page
    api = server.get(f"/v1/deletion_cases/{case}/receipt", key=server.owner_key)
    assert owner.get(f"{here}/receipt").body == api.body
    report = owner.get(f"{here}/report")
    assert report.status == 200
    policy = report.header("content-security-policy") or ""
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    style = report.body.partition(b"<style>")[2].partition(b"</style>")[0]
    assert base64.b64encode(hashlib.sha256(style).digest()).decode() in policy
    assert case in report.body.decode()


def test_the_log_shows_the_head_and_key_that_it_serves(server: Server, owner: Visitor) -> None:
    model = server.make_model().id
    deleted = server.request("DELETE", f"/v1/models/{model}", key=server.owner_key)
    page = owner.text("/console/log")
    note = server.request("GET", "/log/checkpoint").body.decode()
    origin, size, *_ = note.split("\n")
    pem = server.request("GET", "/.well-known/tunewarden-log-key").body
    assert origin in page
    assert re.search(rf"<dt>Entries</dt><dd>{int(size):,}</dd>", page)
    assert f"sha256:{LogKey.parse(pem).digest()}" in page
    assert str(deleted.header("tunewarden-deletion")) in page
    assert 'data-receipt-check=""' in page


def test_the_modules_that_the_pages_name_are_served_with_all_that_they_import(
    server: Server, owner: Visitor
) -> None:
    wanted = {"live.js", "log_page.js", "receipt_check.js"}
    seen: set[str] = set()
    while wanted:
        name = wanted.pop()
        reply = owner.get(f"/console/static/{name}")
        assert reply.status == 200, name
        assert (reply.header("content-type") or "").startswith("text/javascript")
        seen.add(name)
        wanted |= set(re.findall(r'from "\./([a-z_]+\.js)"', reply.body.decode())) - seen
    assert {"receipt.js", "log.js", "bytes.js"} <= seen
