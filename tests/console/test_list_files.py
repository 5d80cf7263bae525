"""Lists as files: the same rows as on the pages, with the same filter, harmless to a spreadsheet, and bounded."""

import csv
import io
import re
from collections.abc import Iterator

import pytest
from tests.support import administration, held_deletions
from tests.support import fine_tuning_rows as rows
from tests.support.console import Visitor
from tests.support.servers import Reply, Server

from tunewarden.console import tables
from tunewarden.console.lists import PAGE_ROWS
from tunewarden.finetuning.states import State

LISTS = (
    "models", "aliases", "jobs", "files", "deletions", "cases", "log", "retention", "webhooks", "usage", "people", "projects",
    "audit", "admin-keys", "sessions", "uploads",
)  # fmt: skip
ORGANIZATION = "filed"
LINK = re.compile(r'<(\S+)>; rel="next"')


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    return server.make_key("owner", organization=ORGANIZATION)


@pytest.fixture(scope="module")
def admin(server: Server, key: str) -> Visitor:
    visitor = Visitor(server, key)
    visitor.administer(administration.make_admin_key(server.app, ORGANIZATION))
    return visitor


@pytest.fixture(scope="module")
def models(server: Server, key: str) -> list[str]:
    """Models, the newest first: each third is called `third`."""
    made = [
        server.make_model(key=key, suffix="third" if n % 3 == 0 else f"n{n}").id
        for n in range(PAGE_ROWS + 5)
    ]
    return made[::-1]


def _cells(reply: Reply) -> list[dict[str, str]]:
    assert reply.status == 200, reply.body
    return list(csv.DictReader(io.StringIO(reply.body.decode(), newline="")))


@pytest.mark.parametrize("name", LISTS)
def test_each_list_is_there_as_a_file_that_browsers_keep(
    admin: Visitor, models: list[str], name: str
) -> None:
    here = f"/console/{name}"
    as_json, as_csv = admin.get(f"{here}?format=json"), admin.get(f"{here}?format=csv")
    cells = _cells(as_csv)
    named = r'attachment; filename="[a-z-]+\.{}"'
    assert re.fullmatch(named.format("csv"), as_csv.header("content-disposition") or "")
    assert re.fullmatch(named.format("json"), as_json.header("content-disposition") or "")
    assert (as_csv.header("content-type") or "").startswith("text/csv; charset=utf-8")
    assert as_csv.header("cache-control") == "no-store"
    found = as_json.json
    assert (found["object"], found["has_more"]) == ("list", False)
    assert len(found["data"]) == len(cells)
    for one, written in zip(found["data"], cells, strict=True):
        assert one.keys() == written.keys()
    if found["data"]:
        page = admin.text(here)
        assert f'href="{here}?format=csv" download' in page
        assert f'href="{here}?format=json" download' in page


def test_a_file_has_the_rows_of_all_pages_with_the_filter_of_the_page(
    admin: Visitor, models: list[str]
) -> None:
    everything = admin.get("/console/models?format=json").json["data"]
    assert [one["id"] for one in everything] == models
    page = admin.text(f"/console/models?state=active&after={models[PAGE_ROWS - 1]}")
    assert 'href="/console/models?state=active&amp;format=csv" download' in page
    thirds = _cells(admin.get("/console/models?name=third&format=csv"))
    assert [one["id"] for one in thirds] == [one for one in models if ":third:" in one]
    assert {one["last_used_at"] for one in thirds} == {""}


def test_the_keys_of_a_project_and_the_history_of_an_alias_are_files_too(
    server: Server, admin: Visitor, key: str, models: list[str]
) -> None:
    for model in models[:2]:
        path = "/v1/aliases" if model == models[0] else "/v1/aliases/filed"
        sent = {"name": "filed", "model": model} if model == models[0] else {"model": model}
        assert server.post(path, sent, key=key).status == 200
    project = rows.caller_of(server.app, key).project_id
    for here, names, column, values in (
        (
            "/console/aliases/filed",
            "alias-history",
            "models",
            [f"{one}=1" for one in models[1::-1]],
        ),
        (f"/console/projects/{project}", "keys", "id", [rows.caller_of(server.app, key).key_id]),
    ):
        written, found = _cells(admin.get(f"{here}?format=csv")), admin.get(f"{here}?format=json")
        assert [one[column] for one in written] == values
        assert [one[column] for one in found.json["data"]] == values
        assert f'filename="{names}.json"' in (found.header("content-disposition") or "")
        assert f'href="{here}?format=csv" download' in admin.text(here)


@pytest.mark.parametrize(
    "asked",
    [
        "deletions?state=nonsense",
        "jobs?state=nonsense",
        "models?state=nonsense",
        "usage?span=nonsense",
        "usage?by=nonsense",
    ],
)
def test_a_filter_that_there_is_not_is_refused_and_not_left_out(admin: Visitor, asked: str) -> None:
    for as_file in ("", "&format=csv", "&format=json"):
        reply = admin.get(f"/console/{asked}{as_file}")
        assert reply.status == 400, as_file
        assert b"one of" in reply.body
        assert reply.header("content-disposition") is None


def test_no_name_is_a_formula(server: Server, admin: Visitor, key: str) -> None:
    names = ["=cmd|' C'!A0", "+1", "-1+1", "@SUM(A1)", 'a,b"c', "plain.jsonl", "x;=1+1"]
    client = server.client(key)
    for name in names:
        client.files.create(file=(name, b"{}\n"), purpose="user_data")
    written = {one["filename"] for one in _cells(admin.get("/console/files?format=csv"))}
    assert written == {*(f"'{name}" for name in names[:4]), *names[4:6], "x;'=1+1"}
    found = admin.get("/console/files?format=json").json["data"]
    assert {one["filename"] for one in found} == set(names), "only spreadsheets know formulas"


@pytest.mark.parametrize("cell", ["\t=1", "\r=1", "\n=1", "＝1", "＋1", "－1", "＠A"])  # noqa: RUF001  wide on purpose
def test_other_beginnings_of_a_formula_are_none_either(cell: str) -> None:
    assert tables.harmless(cell) == f"'{cell}"
    assert [tables.harmless(one) for one in ("x=1", "", None, 7, True)] == [
        "x=1",
        "",
        None,
        7,
        "true",
    ]


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("x;=1+1", "x;'=1+1"),
        ('x; "=1+1', "x; \"'=1+1"),
        ("=1;@A;-2", "'=1;'@A;'-2"),
        ("x;＝1", "x;'＝1"),  # noqa: RUF001  wide on purpose
        ("a;b=1;c-2", "a;b=1;c-2"),
    ],
)
def test_a_formula_does_not_begin_where_a_semicolon_ends_a_cell(cell: str, written: str) -> None:
    assert tables.harmless(cell) == written


def test_a_file_is_bounded_and_says_where_it_goes_on(server: Server, admin: Visitor) -> None:
    with server.app.database.write() as tx:
        tx.run(
            "INSERT INTO projects (id, organization_id, name, is_default, created_at)"
            " WITH RECURSIVE made (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM made WHERE n <= :most)"
            " SELECT 'proj_' || n, o.id, 'p' || n, 0, 1 FROM made, organizations o WHERE o.name = :name",
            most=tables.ROWS_MAX,
            name=ORGANIZATION,
        )
    first = admin.get("/console/projects?format=json")
    assert len(first.json["data"]) == tables.ROWS_MAX
    assert first.json["has_more"]
    assert first.header("content-disposition") == 'attachment; filename="projects-part.json"'
    link = LINK.fullmatch(first.header("link") or "")
    assert link is not None
    rest = admin.get(link[1]).json
    assert not rest["has_more"]
    ids = [one["id"] for one in (*first.json["data"], *rest["data"])]
    assert len(ids) == len(set(ids)) == tables.ROWS_MAX + 2, "and the default project"


def test_who_may_not_read_a_list_gets_no_file_of_it(
    server: Server, admin: Visitor, models: list[str]
) -> None:
    reader = Visitor(server, server.make_key("reader", organization=ORGANIZATION))
    for name, status in (("retention", 403), ("webhooks", 403), ("people", 303), ("audit", 303)):
        assert reader.get(f"/console/{name}?format=csv").status == status
    other = Visitor(server, server.make_key("owner", organization="unfiled"))
    assert other.get("/console/models?format=json").json["data"] == []
    assert Visitor(server).get("/console/models?format=csv").status == 303


@pytest.fixture
def jobs(server: Server) -> Iterator[tuple[Visitor, dict[str, str]]]:
    """A job in each state that stands still, of an organization of their own."""
    key = server.make_key("owner", organization="staged")
    states = {
        "paused": State.PAUSED,
        "succeeded": State.SUCCEEDED,
        "failed": State.FAILED,
        "cancelled": State.CANCELLED,
    }
    made = {name: rows.make_job(server.app, key, state=state) for name, state in states.items()}
    yield Visitor(server, key), made
    for job in made.values():
        rows.set_job(server.app, job, state=State.CANCELLED)


def test_jobs_are_filtered_by_their_state(jobs: tuple[Visitor, dict[str, str]]) -> None:
    visitor, made = jobs
    for state, job in made.items():
        here = f"/console/jobs?state={state}"
        assert [one["id"] for one in visitor.get(f"{here}&format=json").json["data"]] == [job]
        page = visitor.text(here)
        assert [one in page for one in made.values()] == [one == job for one in made.values()]
        assert f'<option value="{state}" selected>' in page
    page = visitor.text("/console/jobs?state=running")
    assert "No job is running." in page
    assert "paused (1)" in page
    assert "running (0)" in page
    assert ">succeeded<" in page, "of what ends are many: nobody counts them"
    everything = visitor.get("/console/jobs?format=json").json["data"]
    assert len(everything) == len(made)


def test_deletions_are_filtered_by_their_state(server: Server) -> None:
    key = server.make_key("owner", organization="gone")
    visitor = Visitor(server, key)
    erased, going = server.make_model(key=key).id, server.make_model(key=key).id
    done = server.request("DELETE", f"/v1/models/{erased}", key=key).header("tunewarden-deletion")

    def found(state: str) -> list[str]:
        listed = visitor.get(f"/console/deletions?state={state}&format=json").json["data"]
        return [one["id"] for one in listed]

    with held_deletions.held(server, key, going) as deletion:
        page = visitor.text("/console/deletions?state=deleting")
        assert deletion in page
        assert str(done) not in page
        assert "deleting (1)" in page
        assert found("deleting") == [deletion]
        assert deletion not in found("erased")
        assert {*found("deleted"), *found("erased")} == {done}
    other = Visitor(server, server.make_key("owner", organization="unfiled"))
    for state in ("deleting", "deleted", "erased"):
        assert "No deletion is in this state." in other.text(f"/console/deletions?state={state}")
