"""Uploads in progress at the console: what has arrived of each, and cancelling one."""

import html
import re

import pytest
from tests.support.console import Visitor, hidden, sign_in_a_while_ago
from tests.support.servers import Server
from tests.support.uploading import Field, post

from tunewarden.console import lists
from tunewarden.identity.policy import ProjectRole

HERE = "/console/uploads"
CONTENT = b'{"messages": []}\n' * 100


@pytest.fixture
def upload(server: Server) -> str:
    """An upload of which one part has arrived."""
    upload_id = begin(server)
    part = post(server, f"/v1/uploads/{upload_id}/parts", Field("data", CONTENT, "part"))
    assert part.status == 200, part.body
    return upload_id


def begin(server: Server, name: str = "<b>chats.jsonl") -> str:
    fields = {
        "bytes": 2 * len(CONTENT),
        "filename": name,
        "mime_type": "application/jsonl",
        "purpose": "fine-tune",
    }
    reply = server.post("/v1/uploads", fields)
    assert reply.status == 200, reply.body
    return str(reply.json["id"])


def test_what_has_arrived_is_shown_and_a_cancelled_upload_is_gone(
    server: Server, owner: Visitor, upload: str
) -> None:
    assert f'href="{HERE}"' in owner.text("/console/files")
    page = owner.text(HERE)
    assert "&lt;b&gt;chats.jsonl" in page
    assert "1.7 KiB of 3.3 KiB" in page
    assert re.search(r'data-label="Parts" class="figure">1<', page)
    assert owner.post(f"{HERE}/{upload}", {}).header("location") == HERE
    assert upload not in owner.text(HERE)
    completed = server.post(f"/v1/uploads/{upload}/complete", {"part_ids": []})
    assert completed.json["error"]["code"] == "upload_not_pending"


def test_cancelling_asks_for_the_key_again(server: Server, upload: str) -> None:
    key = server.make_key("owner")
    visitor = sign_in_a_while_ago(server, key)
    asked = visitor.post(f"{HERE}/{upload}", {})
    assert asked.status == 403
    assert upload in visitor.text(HERE)
    form = {**hidden(asked.body.decode()), "key": key}
    assert visitor.post(f"{HERE}/{upload}", form).status == 303
    assert upload not in visitor.text(HERE)


def test_uploads_are_the_projects_and_only_who_may_write_cancels(
    server: Server, upload: str
) -> None:
    viewer = Visitor(server, server.make_key("reader"))
    page = viewer.text(HERE)
    assert upload in page
    assert "Members of the project" in page
    assert "<button" not in page.partition("<main")[2]
    assert viewer.post(f"{HERE}/{upload}", {}).status == 403
    others = Visitor(server, server.make_key("owner", organization="others"))
    assert "Nothing is being uploaded" in others.text(HERE)
    assert others.post(f"{HERE}/{upload}", {}).status == 404
    member = Visitor(server, server.make_key("reader", project_role=ProjectRole.MEMBER))
    assert member.post(f"{HERE}/{upload}", {}).status == 303


def test_a_list_that_is_cancelled_as_it_is_read_reaches_its_end(
    server: Server, owner: Visitor
) -> None:
    made = [begin(server, "many.jsonl") for _ in range(lists.PAGE_ROWS + 2)]
    page = owner.text(HERE)
    [older] = re.findall(r'href="([^"]+)" rel="next"', page)
    shown = [one for one in made if one in page]
    assert shown == made[2:]
    for one in shown:
        assert owner.post(f"{HERE}/{one}", {}).status == 303
    rest = owner.text(html.unescape(older))
    assert all(one in rest for one in made[:2])
    assert owner.get(f"{HERE}?after=upload_nobody").status == 400
