"""Who reads holds and their reasons, and who places and lifts them, across the projects of an organization."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import administration
from tests.support.servers import LOCAL_BASE, Server, WithoutTorch, serving, wait_until

REASON = "dispute with Jane Roe"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("holds") / "data"
    with serving(data, local_base=True, kind=WithoutTorch, workers=1) as running:
        body = {"model": LOCAL_BASE, "messages": [{"role": "user", "content": "hello"}]}
        wait_until(lambda: running.post("/v1/chat/completions", body).status == 200, "the engine")
        yield running


@pytest.fixture(scope="module")
def elsewhere(server: Server) -> str:
    """A key of an Owner in another project of the organization."""
    return administration.make_key_elsewhere(server)


def _file(server: Server, key: str) -> str:
    client = server.client(key=key)
    return client.files.create(file=("a.txt", b"x"), purpose="user_data").id


def _place(server: Server, key: str, **fields: str) -> str:
    placed = server.post("/v1/holds", {**fields, "reason": REASON}, key=key)
    assert placed.status == 200, placed.body
    assert placed.json["reason"] == REASON
    return str(placed.json["id"])


def test_who_is_no_owner_reads_no_reason_and_no_hold_of_another_project(
    server: Server, elsewhere: str
) -> None:
    hidden_file, file = _file(server, elsewhere), _file(server, server.owner_key)
    model = server.make_model().id
    hidden = _place(server, elsewhere, file=hidden_file)
    owner = server.owner_key
    seen = [_place(server, owner, model=model), _place(server, owner, file=file)]
    reader = server.make_key("reader")
    listed = server.get("/v1/holds", key=reader)
    assert [one["id"] for one in listed.json["data"]] == seen[::-1]
    for hold in seen:
        one = server.get(f"/v1/holds/{hold}", key=reader)
        assert one.json["in_force"] is True
        assert one.json["reason"] is None
    alone = server.get(f"/v1/holds/{hidden}", key=reader)
    unknown = server.get("/v1/holds/hold_nobody", key=reader)
    assert (alone.status, alone.json["error"]["code"]) == (404, "hold_not_found")
    assert unknown.status == 404
    named = server.get(f"/v1/holds?artifact={hidden_file}", key=reader)
    assert named.json["data"] == []
    after = server.get(f"/v1/holds?after={hidden}", key=reader)
    assert after.status == server.get("/v1/holds?after=hold_nobody", key=reader).status
    for answer in (listed, alone, named, after):
        assert b"Jane Roe" not in answer.body
        assert hidden_file.encode() not in answer.body
    for key in (owner, elsewhere):
        whole = server.get("/v1/holds", key=key).json["data"]
        assert [one["id"] for one in whole] == [*seen[::-1], hidden]
        assert {one["reason"] for one in whole} == {REASON}


def test_an_owner_places_and_lifts_in_every_project_by_any_key(
    server: Server, elsewhere: str
) -> None:
    """Who finds a text in another project's file can keep it, and undo that."""
    file = _file(server, server.owner_key)
    placed = server.post("/v1/holds", {"file": file, "reason": REASON}, key=elsewhere)
    assert placed.status == 200, placed.body
    blocked = server.request("DELETE", f"/v1/files/{file}", key=server.owner_key)
    assert (blocked.status, blocked.json["error"]["code"]) == (409, "on_hold")
    lifted = server.post(f"/v1/holds/{placed.json['id']}/lift", {}, key=elsewhere)
    assert (lifted.status, lifted.json["in_force"]) == (200, False)
    assert server.client().files.delete(file).deleted


@pytest.mark.parametrize("odd", ["\x1b[2J", "\x07", "\u202e", "\u2066", "\u2028"])
def test_a_reason_that_reads_as_something_else_is_refused(server: Server, odd: str) -> None:
    model = server.make_model().id
    refused = server.post("/v1/holds", {"model": model, "reason": f"case {odd}17"})
    assert (refused.status, refused.json["error"]["param"]) == (400, "reason")
    kept = server.post("/v1/holds", {"model": model, "reason": "case 17\nשם"})
    assert (kept.status, kept.json["reason"]) == (200, "case 17\nשם")
