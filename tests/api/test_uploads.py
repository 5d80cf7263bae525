"""`/v1/uploads`: parts become one file, or nothing is left of them; who comes first has won."""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import openai
import pytest
from tests.support import servers, uploading
from tests.support.servers import Reply, Server, wait_until
from tests.support.uploading import Field, post, settle, state

UPLOADS = "/v1/uploads"
WANTED: dict[str, object] = {
    "bytes": 6,
    "filename": "six.txt",
    "mime_type": "text/plain",
    "purpose": "user_data",
}
LINE = b'{"messages":[{"role":"user","content":"Hi"}]}\n'


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> object:
    data = tmp_path_factory.mktemp("uploads") / "data"
    with servers.serving(data, workers=2) as server:
        yield server


@pytest.fixture
def settled(running: Server) -> Server:
    settle(running)
    return running


def _begin(server: Server, **changed: object) -> str:
    reply = server.post(UPLOADS, WANTED | changed)
    assert reply.status == 200, reply.body
    return str(reply.json["id"])


def _part(server: Server, upload: str, content: bytes, *, key: str | None = None) -> Reply:
    return post(server, f"{UPLOADS}/{upload}/parts", Field("data", content, "upload"), key=key)


def _part_id(server: Server, upload: str, content: bytes) -> str:
    reply = _part(server, upload, content)
    assert reply.status == 200, reply.body
    return str(reply.json["id"])


def _complete(server: Server, upload: str, *parts: str, **more: object) -> Reply:
    return server.post(f"{UPLOADS}/{upload}/complete", {"part_ids": list(parts), **more})


def _cancel(server: Server, upload: str) -> Reply:
    return server.request("POST", f"{UPLOADS}/{upload}/cancel", key=server.owner_key)


REFUSED: dict[str, tuple[int, str | None, dict[str, object]]] = {
    "bytes that are text": (400, "bytes", {"bytes": "6"}),
    "fewer than no bytes": (400, "bytes", {"bytes": -1}),
    "more than 8 GB": (413, "bytes", {"bytes": 8 * 2**30 + 1}),
    "more than any number": (413, "bytes", {"bytes": 2**80}),
    "an unknown purpose": (400, "purpose", {"purpose": "fun"}),
    "a path": (400, "filename", {"filename": "a/b"}),
    "no name": (400, "filename", {"filename": ""}),
    "fine-tune, but no .jsonl": (400, "file", {"purpose": "fine-tune"}),
    "a media type with a line break": (400, "mime_type", {"mime_type": "a\nb"}),
    "another anchor": (400, "expires_after.anchor", {"expires_after": {"anchor": "x", "seconds": 3600}}),
    "too short a life": (
        400, "expires_after.seconds", {"expires_after": {"anchor": "created_at", "seconds": 1}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_an_upload_that_could_never_be_a_file_is_refused(settled: Server, what: str) -> None:
    status, param, changed = REFUSED[what]
    before = state(settled)
    reply = settled.post(UPLOADS, WANTED | changed)
    assert (reply.status, reply.error["param"]) == (status, param), reply.body
    assert state(settled) == before


def test_a_body_that_is_no_object_of_the_right_shape_is_a_400(settled: Server) -> None:
    headers = {"content-type": "application/json"}
    for body in (b"", b"[]", b"{", b'{"bytes":1}', b"\xff", b"[" * 100_000):
        reply = settled.request("POST", UPLOADS, key=settled.owner_key, headers=headers, body=body)
        assert reply.status == 400, body[:20]


def test_the_order_of_the_file_is_that_of_part_ids(running: Server) -> None:
    upload = _begin(running)
    first, second, spare, third = (
        _part_id(running, upload, one) for one in (b"ab", b"cd", b"xx", b"ef")
    )
    done = _complete(
        running, upload, third, first, second, md5=hashlib.md5(b"efabcd").hexdigest().upper()
    )
    assert done.status == 200, done.body
    file = done.json["file"]
    assert isinstance(file, dict)
    assert running.client().files.content(file["id"]).read() == b"efabcd"
    blobs = [name for name in running.app.blobs.names("") if "part_" in name]
    assert not [name for name in blobs if spare in name], "what was not chosen is erased"
    assert [name for name in blobs if first in name], "control: what was chosen is there"
    rows = running.app.database.peek("SELECT COUNT(*) FROM upload_parts")
    assert rows == (0,)
    running.client().files.delete(file["id"])


def test_a_file_of_parts_is_deleted_like_any_other(settled: Server) -> None:
    before = settled.app.blobs.names("")
    upload = _begin(settled, filename="private.txt")
    parts = [_part_id(settled, upload, one) for one in (b"abc", b"def")]
    file = _complete(settled, upload, *parts).json["file"]
    assert isinstance(file, dict)
    settled.client().files.delete(file["id"])
    settle(settled)
    assert settled.app.blobs.names("") == before
    names = settled.app.database.peek(
        "SELECT COUNT(*) FROM uploads u JOIN artifacts a ON a.internal_id = u.internal_id"
        " WHERE a.id = :id AND (u.filename <> '' OR u.sealed_name IS NOT NULL)",
        id=file["id"],
    )
    assert names == (0,)


def test_an_empty_upload_is_an_empty_file(running: Server) -> None:
    upload = _begin(running, bytes=0)
    done = _complete(running, upload)
    assert done.status == 200, done.body
    file = done.json["file"]
    assert isinstance(file, dict)
    assert running.client().files.content(file["id"]).read() == b""


def test_what_does_not_fit_is_refused_and_the_upload_goes_on(running: Server) -> None:
    upload, other = _begin(running), _begin(running)
    foreign = _part_id(running, other, b"abcdef")
    ids = [_part_id(running, upload, one) for one in (b"abc", b"def")]
    too_much = _part(running, upload, b"abcdefg")
    assert (too_much.status, too_much.error["code"]) == (400, "upload_too_large")
    wrong: list[tuple[Reply, object]] = [
        (_complete(running, upload, ids[0]), "upload_size_mismatch"),
        (_complete(running, upload, ids[0], ids[0]), None),
        (_complete(running, upload, *ids, foreign), None),
        (_complete(running, upload, foreign), None),
        (_complete(running, upload, "part_nobody"), None),
        (_complete(running, upload, *ids, md5="0" * 32), None),
        (_complete(running, upload, *ids, md5="md5"), None),
        (running.post(f"{UPLOADS}/{upload}/complete", {"part_ids": "x"}), None),
    ]
    for reply, code in wrong:
        assert (reply.status, reply.error["code"]) == (400, code), reply.body
    assert _complete(running, upload, *ids).status == 200
    _cancel(running, other)


def test_training_data_in_parts_is_looked_at_before_it_is_a_file(running: Server) -> None:
    content = LINE * 2000  # beyond what is looked at
    upload = _begin(running, bytes=len(content), filename="a.jsonl", purpose="fine-tune")
    parts = [
        _part_id(running, upload, content[at : at + 30_000])
        for at in range(0, len(content), 30_000)
    ]
    assert _complete(running, upload, *parts).status == 200
    upload = _begin(running, bytes=len(content), filename="a.jsonl", purpose="fine-tune")
    parts = [_part_id(running, upload, one) for one in (content[1:], content[:1])]
    reply = _complete(running, upload, *parts)
    assert (reply.status, reply.error["code"]) == (400, "invalid_file_format")
    assert _cancel(running, upload).status == 200


def test_a_part_may_come_again_when_its_answer_was_lost(running: Server) -> None:
    upload = _begin(running)
    lost, again = _part_id(running, upload, b"abcdef"), _part_id(running, upload, b"abcdef")
    assert lost != again
    assert _part(running, upload, b"abcdef").status == 400, "but not without end"
    assert _complete(running, upload, again).status == 200


def test_a_part_of_64_mib_is_taken_and_a_larger_one_is_not(settled: Server) -> None:
    size = 64 * 1024 * 1024
    upload = _begin(settled, bytes=2 * size)
    assert _part(settled, upload, bytes(size)).status == 200
    before = state(settled)
    assert _part(settled, upload, bytes(size + 1)).status == 413
    assert state(settled) == before
    _cancel(settled, upload)


def test_a_cancelled_upload_leaves_nothing_and_stays_cancelled(settled: Server) -> None:
    before = state(settled)
    upload = _begin(settled)
    part = _part_id(settled, upload, b"abcdef")
    assert state(settled) != before, "control: something is there"
    for _ in range(2):
        cancelled = _cancel(settled, upload)
        assert (cancelled.status, cancelled.json["status"]) == (200, "cancelled")
    assert state(settled) == before
    for reply in (_part(settled, upload, b"abcdef"), _complete(settled, upload, part)):
        assert (reply.status, reply.error["code"]) == (400, "upload_not_pending")
    assert state(settled) == before


def test_a_repeated_complete_is_told_what_the_first_was_told(running: Server) -> None:
    upload = _begin(running)
    part = _part_id(running, upload, b"abcdef")
    first = _complete(running, upload, part)
    second = _complete(running, upload, part)
    assert (second.status, second.error["code"]) == (400, "upload_not_pending")
    retried = running.request(
        "POST",
        f"{UPLOADS}/{upload}/complete",
        key=running.owner_key,
        headers={"content-type": "application/json", "x-stainless-retry-count": "1"},
        body=b'{"part_ids":["%s"]}' % part.encode(),
    )
    assert (retried.status, retried.json) == (200, first.json)
    cancelled = _cancel(running, upload)
    assert (cancelled.status, cancelled.error["code"]) == (400, "upload_not_pending")


def test_an_upload_whose_hour_has_passed_expires_and_leaves_nothing(settled: Server) -> None:
    before = state(settled)
    upload = _begin(settled)
    part = _part_id(settled, upload, b"abcdef")
    with settled.app.database.write() as tx:
        tx.run("UPDATE uploads SET expires_at = :now WHERE id = :id", now=tx.now_micros, id=upload)
    for reply in (
        _part(settled, upload, b"abcdef"),
        _complete(settled, upload, part),
        _cancel(settled, upload),
    ):
        assert (reply.status, reply.error["code"]) == (400, "upload_not_pending")
    wait_until(lambda: state(settled) == before, "nothing is left")
    row = settled.app.database.peek(
        "SELECT status, filename, sealed_name FROM uploads WHERE id = :id", id=upload
    )
    assert row == ("expired", "", None)


def test_an_upload_of_somebody_else_is_as_unknown_as_any(running: Server) -> None:
    upload = _begin(running)
    other = running.make_key("owner", organization="others")
    for what in ("parts", "complete", "cancel"):
        answers = []
        for target in (upload, "upload_" + "0" * 24):
            path = f"{UPLOADS}/{target}/{what}"
            if what == "parts":
                reply = _part(running, target, b"x", key=other)
            else:
                reply = running.post(path, {"part_ids": []}, key=other)
            assert reply.status == 404, reply.body
            answers.append(reply.body.replace(target.encode(), b"X"))
        assert answers[0] == answers[1]
    assert _cancel(running, upload).status == 200


# Who comes first


@pytest.mark.parametrize("seed", range(6))
def test_complete_cancel_expiry_and_parts_at_once_have_one_winner(
    settled: Server, seed: int
) -> None:
    before = state(settled)
    name = f"race-{seed}.txt"
    races = [_Race(settled, name, expires=(seed + number) % 2 == 1) for number in range(6)]
    for race in races:
        race.start()
    for race in races:
        race.join()
    assert [race.said for race in races] == [race.row for race in races]
    client = settled.client()
    made = [file for file in client.files.list() if file.filename == name]
    assert len(made) == sum(race.said == "completed" for race in races)
    print(f"seed {seed}:", [race.said for race in races])
    for file in made:
        assert client.files.content(file.id).read() == b"abcdef"
        client.files.delete(file.id)
    settle(settled)
    after = state(settled)
    assert (after["blobs"], after["keys"]) == (before["blobs"], before["keys"])
    assert settled.app.database.peek("SELECT COUNT(*) FROM drafts") == (0,)
    assert settled.app.database.peek("SELECT COUNT(*) FROM upload_parts") == (0,)


class _Race:
    """Everything that can happen to one upload, at once. `said` is what the answers say of its end."""

    def __init__(self, server: Server, name: str, *, expires: bool) -> None:
        self._server = server
        self._upload = _begin(server, filename=name)
        self._parts = [_part_id(server, self._upload, one) for one in (b"abc", b"def")]
        self._statuses: dict[str, int] = {}
        md5 = hashlib.md5(b"abcdef").hexdigest()
        asked: dict[str, Callable[[], int]] = {
            "complete": lambda: _complete(server, self._upload, *self._parts, md5=md5).status,
            "cancel": lambda: _cancel(server, self._upload).status,
            "part": lambda: _part(server, self._upload, bytes(6)).status,
            "last": self._expire
            if expires
            else lambda: _complete(server, self._upload, *self._parts).status,
        }
        self._threads = [threading.Thread(target=self._ask, args=one) for one in asked.items()]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    @property
    def said(self) -> str:
        won = [what for what, status in self._statuses.items() if status == 200 and what != "part"]
        assert len(won) < 2, won
        ends = {"complete": "completed", "last": "completed", "cancel": "cancelled"}
        return ends[won[0]] if won else "expired"

    @property
    def row(self) -> str:
        row = self._server.app.database.peek(
            "SELECT status FROM uploads WHERE id = :id", id=self._upload
        )
        assert row is not None
        return str(row[0])

    def _ask(self, what: str, ask: Callable[[], int]) -> None:
        self._statuses[what] = ask()

    def _expire(self) -> int:
        with self._server.app.database.write() as tx:
            tx.run("UPDATE uploads SET expires_at = 1 WHERE id = :id", id=self._upload)
        self._server.app.uploads.expire()
        return 0


def test_a_part_that_comes_while_the_upload_is_cancelled_leaves_nothing(settled: Server) -> None:
    before = state(settled)
    upload = _begin(settled, bytes=2_000_000)
    body = uploading.form(Field("data", bytes(2_000_000), "x"))
    connection = uploading.begin(
        settled, f"{UPLOADS}/{upload}/parts", body[:1_500_000], length=len(body)
    )
    wait_until(lambda: uploading.incoming(settled) > 500_000, "the part is being sealed")
    assert _cancel(settled, upload).status == 200
    connection.sendall(body[1_500_000:])
    assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    connection.close()
    assert state(settled) == before


def test_an_upload_that_is_cancelled_while_it_is_completed_is_a_400(running: Server) -> None:
    """As complete finds it between its look at the row and at the key, which a cancel erases."""
    upload = _begin(running)
    part = _part_id(running, upload, b"abcdef")
    row = running.app.database.peek("SELECT internal_id FROM uploads WHERE id = :id", id=upload)
    assert row is not None
    running.app.drafts.erase(row[0])
    for reply in (_complete(running, upload, part), _part(running, upload, b"abcdef")):
        assert (reply.status, reply.error["code"]) == (400, "upload_not_pending")
    assert _cancel(running, upload).status == 200


def test_the_sdk_gives_up_on_a_cancelled_upload_with_a_clear_error(
    running: Server, tmp_path: Path
) -> None:
    client = running.client()
    upload = client.uploads.create(
        bytes=1, filename="x", mime_type="text/plain", purpose="user_data"
    )
    client.uploads.cancel(upload.id)
    with pytest.raises(openai.BadRequestError, match="cancelled, no longer pending"):
        client.uploads.parts.create(upload.id, data=b"x")
