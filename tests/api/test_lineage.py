"""What a file was made from: said when an upload is completed, shown with the file, named by plans (I18)."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from tests.support import fine_tuning_rows
from tests.support.servers import Reply, Server
from tests.support.uploading import Field, post

CONTENT = b'{"messages": []}\n'
SOURCE = "https://api.openai.com/v1 ft:gpt-4o:acme:sourcecanary:AbCd1234"


def _file(server: Server, key: str | None = None) -> str:
    fields = (Field("purpose", b"fine-tune"), Field("file", CONTENT, "chats.jsonl"))
    return str(post(server, "/v1/files", *fields, key=key).json["id"])


def _upload(server: Server, announced: int = len(CONTENT)) -> tuple[str, str]:
    """Begin an upload and add its one part; return the ids of both."""
    wanted = {"filename": "a.jsonl", "purpose": "user_data", "mime_type": "application/jsonl"}
    upload = str(server.post("/v1/uploads", {**wanted, "bytes": announced}).json["id"])
    part = post(server, f"/v1/uploads/{upload}/parts", Field("data", CONTENT, "part"))
    return upload, str(part.json["id"])


def _complete(server: Server, upload: str, part: str, **fields: object) -> Reply:
    return server.post(f"/v1/uploads/{upload}/complete", {"part_ids": [part], **fields})


def _made(server: Server, *origins: str, source: str | None = None) -> str:
    """Make a file from others; return its id."""
    reply = _complete(server, *_upload(server), derived_from=origins, source=source)
    assert reply.status == 200, reply.body
    file: Any = reply.json["file"]
    return str(file["id"])


def _derived(server: Server, file: str) -> object:
    return server.get(f"/v1/files/{file}/deletion_plan", key=server.owner_key).json["derived_files"]


def test_a_file_shows_what_it_was_made_from_and_its_plan_what_was_made_from_it(
    server: Server,
) -> None:
    first = _file(server)
    second = _made(server, first, source=SOURCE)
    third = _made(server, second, second)
    shown = server.client(_strict_response_validation=True).files.retrieve(second).to_dict()
    assert (shown["derived_from"], shown["source"]) == ([first], SOURCE)
    assert _derived(server, first) == [second, third]
    assert _derived(server, second) == [third]
    assert _derived(server, third) == []
    # Others show nothing: a client of OpenAI's sees OpenAI's file.
    assert not {"derived_from", "source"} & server.client().files.retrieve(first).to_dict().keys()
    server.client().files.delete(second)
    assert _derived(server, first) == [third]
    server.client().files.delete(first)
    assert server.client().files.retrieve(third).to_dict()["derived_from"] == [second]


def test_a_file_of_another_project_or_a_deleted_one_cannot_be_an_origin(server: Server) -> None:
    deleted = _file(server)
    server.client().files.delete(deleted)
    _, other = fine_tuning_rows.make_project(server.app)
    foreign = _file(server, other)
    upload, part = _upload(server)
    answers = [
        _complete(server, upload, part, derived_from=[file])
        for file in (deleted, foreign, "file-unknown")
    ]
    assert [one.status for one in answers] == [404, 404, 404]
    # I9: a foreign one looks like an unknown one.
    said = [str(one.error["message"]).rpartition(" ")[0] for one in answers]
    assert len(set(said)) == 1
    # Nothing was registered: the upload is still there to be completed.
    assert _complete(server, upload, part).status == 200


def test_the_size_may_turn_out_smaller_than_announced_but_not_larger(server: Server) -> None:
    upload, part = _upload(server, announced=1000)
    assert _complete(server, upload, part).error["code"] == "upload_size_mismatch"
    assert _complete(server, upload, part, bytes=1001).error["param"] == "bytes"
    assert _complete(server, upload, part, bytes=5).error["code"] == "upload_size_mismatch"
    reply = _complete(server, upload, part, bytes=len(CONTENT))
    file: Any = reply.json["file"]
    assert (reply.json["bytes"], file["bytes"]) == (len(CONTENT), len(CONTENT))


def test_words_about_the_source_are_bounded(server: Server) -> None:
    upload, part = _upload(server)
    for source in ("", "x" * 1025, "two\nlines"):
        assert _complete(server, upload, part, source=source).error["param"] == "source"
    many = [f"file-{number}" for number in range(17)]
    assert _complete(server, upload, part, derived_from=many).error["param"] == "derived_from"


def test_the_source_is_sealed_and_goes_with_its_file(server: Server) -> None:
    file = _made(server, source=SOURCE)

    def places() -> list[str]:
        found = []
        for directory, _, names in os.walk(server.data):
            for path in (Path(directory, name) for name in names):
                # Files of other tests' deletions may go meanwhile; sockets cannot be read.
                with contextlib.suppress(OSError):
                    found += [str(path)] * (b"sourcecanary" in path.read_bytes())
        return found

    assert places() == []
    assert "sourcecanary" not in server.log()
    count = "SELECT COUNT(*) FROM file_sources s JOIN artifacts a ON a.n = s.n WHERE a.id = :id"
    assert server.app.database.peek(count, id=file) == (1,)
    server.client().files.delete(file)
    assert server.app.database.peek(count, id=file) == (0,)
    receipts = json.dumps(server.get("/v1/deletions", key=server.owner_key).json)
    assert "sourcecanary" not in receipts
