"""`POST /v1/files/search`: sealed files are searched as they are decrypted, for Owners, and leave no text behind."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support import administration, servers
from tests.support.servers import Reply, Server
from tests.support.uploading import Field, post, settle

from tunewarden.identity.policy import ProjectRole

SEARCH = "/v1/files/search"
MARK = "Zebra-Quartz 4711"  # in no other place of the server
CHATS = (
    b'{"messages":[{"role":"user","content":"Hi"}]}\n'
    b'{"messages":[{"role":"user","content":"I am Jos\\u00e9 Garc\\u00eda"}]}\n'
)
LONG_BYTES = 24 * 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("search") / "data"
    settings = {"access_log": "true"}
    kind = servers.WithoutTorch
    with servers.serving(data, workers=1, settings=settings, local_base=True, kind=kind) as running:
        yield running


def _file(server: Server, content: bytes, *, key: str | None = None, name: str = "a.txt") -> str:
    fields = Field("purpose", b"user_data"), Field("file", content, name)
    made = post(server, "/v1/files", *fields, key=key)
    assert made.status == 200, made.body
    return str(made.json["id"])


def _search(server: Server, *texts: str, key: str | None = None, **fields: object) -> Reply:
    return server.post(SEARCH, {"texts": texts, **fields}, key=key)


def _lines(reply: Reply) -> list[dict[str, Any]]:
    assert reply.status == 200, reply.body
    assert reply.header("content-type") == "application/jsonl"
    return [json.loads(line) for line in reply.body.splitlines()]


def _matches(reply: Reply) -> set[tuple[str, int, int | None]]:
    """Return file, number of the text, and line of each match; the search must be complete."""
    lines = _lines(reply)
    assert lines[-1]["object"] == "file.search.summary"
    assert lines[-1]["is_complete"]
    assert lines[-1]["after"] is None
    return {
        (one["file"], one["text"], one["line"])
        for one in lines
        if one["object"] == "file.search.match"
    }


def test_file_and_line_are_named_in_all_projects_and_in_no_other_organization(
    server: Server,
) -> None:
    chats = _file(server, CHATS, name="chats.jsonl")
    elsewhere = _file(
        server, b"x\nJane ROE\nJane Roe\n", key=administration.make_key_elsewhere(server)
    )
    foreign = server.make_key("owner", organization="others")
    _file(server, b"Jane Roe, Jose Garcia", key=foreign)
    found = _matches(_search(server, "José García", "jane roe", "nobody was here"))
    assert found == {(chats, 1, 2), (elsewhere, 2, 2), (elsewhere, 2, 3)}
    assert {file for file, _, _ in _matches(_search(server, "jane roe", key=foreign))}.isdisjoint(
        {chats, elsewhere}
    )


def test_a_name_of_a_file_is_found_too(server: Server) -> None:
    file = _file(server, b"nothing", name="Müller, Anna.txt")
    assert _matches(_search(server, "mueller", "muller anna")) == set()
    assert _matches(_search(server, "muller, anna")) == {(file, 1, None)}


def test_names_are_found_however_programs_write_them(server: Server) -> None:
    curly = _file(server, "x\nLiam O\u2019Brien-Yilmaz\n".encode(), name="curly.txt")
    capitals = _file(server, "LIAM O'BRIEN\u2011YILMAZ".encode(), name="capitals.txt")
    latin = _file(server, "M\u00fcller, Li\u00e9m;x\n".encode("latin-1"), name="latin.csv")
    wide = _file(server, "\nM\u00fcller,   Li\u00e9m\n".encode("utf-16-le"), name="wide.csv")
    spaces = _file(server, b"Muller," + b" " * 5_000 + b"Liem", name="spaces.txt")
    found = _matches(_search(server, "Liam O'Brien-Y\u0131lmaz", "M\u00fcller, Li\u00e9m"))
    assert found == {(curly, 1, 2), (capitals, 1, 1), (latin, 2, 1), (wide, 2, 2), (spaces, 2, 1)}


def test_a_match_says_how_the_text_stands_there(server: Server) -> None:
    page = b'{"a":"Zo\\u00eb"}\n{"a":"Zo&euml; "}\n{"a":"https://example.org/?q=Zo%C3%AB"}\nZo\xc3\xab\n'
    file = _file(server, page, name="Zo%C3%AB.jsonl")
    lines = _lines(_search(server, "zo\u00eb"))
    found = [(one["line"], one["reading"]) for one in lines if one.get("file") == file]
    assert found == [(None, "web"), (1, "json"), (2, "web"), (3, "web"), (4, "as_written")]


def test_only_owners_search(server: Server) -> None:
    for key in (
        server.make_key("reader"),
        server.make_key("reader", project_role=ProjectRole.MEMBER),
        server.make_key("owner", "api.all.read"),
        server.make_key("owner", "api.files.read"),
    ):
        refused = _search(server, MARK, key=key)
        assert refused.status == 403
        assert "api.files.search" in str(refused.error["message"])
    assert _search(server, MARK, key=server.make_key("owner", "api.files.search")).status == 200


@pytest.mark.parametrize(
    "texts", [[], ["ab"], ["  \u0301 "], ["a", "b" * 1001], ["abc"] * 21, "abc", [4], None]
)
def test_what_cannot_be_looked_for_is_refused_without_being_quoted(
    server: Server, texts: Any
) -> None:
    refused = server.post(SEARCH, {"texts": texts})
    assert refused.status == 400
    assert refused.error["param"] in {"texts", "texts[0]", "texts[...]"}
    assert "bbb" not in refused.body.decode()


def test_it_is_audited_and_the_texts_are_nowhere(server: Server) -> None:
    _file(server, f"one\n{MARK}\n".encode(), name="marked.txt")
    admin = administration.make_admin_key(server.app)
    assert len(_matches(_search(server, MARK, "something else"))) == 1
    path = "/v1/organization/audit_logs?event_types[]=file.searched"
    event = server.get(path, key=admin).json["data"][0]
    assert event["file.searched"]["texts"] == 2
    assert event["actor"]["api_key"]["id"]
    assert MARK not in json.dumps(event)
    for directory in (server.data, server.tmp, server.scratch):
        for file in directory.rglob("*"):
            if file.is_file():
                assert MARK.encode() not in file.read_bytes(), file
    assert MARK not in server.log()
    assert "Zebra" not in server.log()


def test_a_search_goes_on_after_a_file(server: Server) -> None:
    first, second = (_file(server, b"needle in hay") for _ in range(2))
    found = _matches(_search(server, "needle in hay", after=first))
    assert found == {(second, 1, 1)}
    assert _search(server, "needle in hay", after="file-nobody").status == 400


def test_a_deleted_file_is_not_searched_and_its_deletion_waits_for_no_search(
    server: Server,
) -> None:
    settle(server)
    long = _file(server, b"long line and more\n" * (LONG_BYTES // 19), name="long.txt")
    last = _file(server, b"the last needle\n")
    replies: list[Reply] = []
    thread = threading.Thread(target=lambda: replies.append(_search(server, "the last needle")))
    thread.start()
    time.sleep(0.1)  # whether it reads the long file by now does not matter
    began = time.monotonic()
    deleted = server.request("DELETE", f"/v1/files/{long}", key=server.owner_key)
    assert deleted.status == 200, deleted.body
    # Far less than the second after which a worker that keeps the guard is killed.
    assert time.monotonic() - began < 5
    thread.join(60)
    assert _matches(replies[0]) == {(last, 1, 1)}
    assert server.get("/readyz").status == 200
    assert "killed" not in server.log()


def test_a_search_that_is_made_to_be_slow_stops_nobody(server: Server) -> None:
    settle(server)
    slow = _file(server, b'\\"\\\\ ' + b"a " * 2_000_000, name="slow.txt")
    texts = ["a " * 498 + chr(ord("b") + number) for number in range(20)]
    workers = servers.descendants(server.process.pid)
    replies: list[Reply] = []
    thread = threading.Thread(target=lambda: replies.append(_search(server, *texts)))
    thread.start()
    time.sleep(0.5)
    for _ in range(5):  # which would each wait for the search, if it kept the worker
        assert server.get("/v1/models", key=server.owner_key).status == 200
    assert thread.is_alive()
    deleted = server.request("DELETE", f"/v1/files/{slow}", key=server.owner_key)
    assert deleted.status == 200, deleted.body
    thread.join(60)
    # A worker that keeps the guard for a second is killed.
    assert _matches(replies[0]) == set()
    assert servers.descendants(server.process.pid) == workers
    assert "killed" not in server.log()


def test_a_running_search_ends_when_its_key_is_revoked_and_is_not_taken_for_complete(
    server: Server,
) -> None:
    long = _file(server, b"long line and more\n" * (LONG_BYTES // 19), name="long.txt")
    key = server.make_key("owner")
    replies: list[Reply] = []
    failures: list[Exception] = []

    def search() -> None:
        try:
            replies.append(_search(server, "the last needle", key=key))
        except Exception as error:  # noqa: BLE001  a cut response; judged below
            failures.append(error)

    thread = threading.Thread(target=search)
    thread.start()
    time.sleep(0.1)
    server.revoke_key(key)
    began = time.monotonic()
    thread.join(60)
    assert time.monotonic() - began < 10
    if replies and replies[0].status == 200:
        assert b"file.search.summary" not in replies[0].body
    else:
        assert failures or replies[0].status == 401
    server.client().files.delete(long)


def test_others_are_answered_meanwhile_and_one_search_runs_for_an_organization(
    server: Server,
) -> None:
    long = _file(server, b'{"a":"b\\u00e9"}\n' * (LONG_BYTES // 15), name="long.jsonl")
    lines: list[dict[str, Any]] = []
    thread = threading.Thread(
        target=lambda: lines.extend(_lines(_search(server, "needle in no file")))
    )
    thread.start()
    time.sleep(0.5)  # of the several seconds that it takes
    assert _search(server, "needle in no file").status == 429
    answered = 0
    while thread.is_alive() and answered < 200:
        assert server.get("/v1/models", key=server.owner_key).status == 200
        answered += 1
    thread.join(120)
    assert lines[-1]["is_complete"]
    assert any(one["object"] == "file.search.progress" for one in lines)
    assert answered > 20
    server.client().files.delete(long)  # or what comes next would search it too


def test_damaged_bytes_are_named_and_the_rest_is_searched(server: Server) -> None:
    damaged, whole = (
        _file(server, b"needle of damage\n" * 10_000),
        _file(server, b"needle of damage"),
    )
    app = server.app
    with app.database.read() as tx:
        row = tx.row("SELECT internal_id FROM artifacts WHERE id = :id", id=damaged)
    assert row is not None
    blob = next((app.config.blobs / row[0]).iterdir())
    blob.chmod(0o600)
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    lines = _lines(_search(server, "needle of damage"))
    incomplete = [one for one in lines if one["object"] == "file.search.incomplete"]
    assert [(one["file"], one["code"]) for one in incomplete] == [(damaged, "stored_bytes_damaged")]
    assert {one["file"] for one in lines if one["object"] == "file.search.match"} >= {whole}
    assert lines[-1]["incomplete"] == 1
