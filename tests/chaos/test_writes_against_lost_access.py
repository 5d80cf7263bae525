"""Every writing operation against every way to lose access: what commits after it was lost is no write of that key.

Role, scopes and project are read in the transaction that writes, and transactions have an order, which their times
tell: so nothing that names the key is younger than the event that took its access away.
"""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.chaos.fake_engine_server import FakeEngineServer, TrustingServer
from tests.lab import budgets
from tests.support import bases, servers, uploading
from tests.support.access import WAYS, Administrator, Holder
from tests.support.servers import LOCAL_BASE, Server
from tests.support.uploading import Field

WORKERS = 2
WRITERS = 3
ROUNDS = budgets.count(1, 30)
PIECES = 20  # of an upload that is sent slowly, so that it begins before and ends after
PIECE_SECONDS = 0.05
UPLOAD = {"bytes": 4, "filename": "a.txt", "mime_type": "text/plain", "purpose": "user_data"}
FILE = (Field("purpose", b"user_data"), Field("file", b"x", "a.txt"))
EXAMPLES = b'{"messages":[{"role":"assistant","content":"Hello"}]}\n' * 10
# What is written with a key, by the column that names it. A deletion that was committed is completed, whoever asked
# for it (D3); its request is in `deletions`.
ACTS = "type NOT LIKE '%refused%' AND type NOT IN ('resource.deleted', 'blobs.erased')"
WRITTEN = (
    ("audit_events", "actor_key_id", "effective_at", ACTS),
    ("artifacts", "created_by", "created_at", "1 = 1"),
    ("jobs", "created_by", "created_at", "1 = 1"),
    ("uploads", "created_by", "created_at", "1 = 1"),
    ("deletions", "requested_by", "requested_at", "1 = 1"),
)
PARTS = (
    "SELECT COUNT(*) FROM upload_parts p JOIN uploads u ON u.n = p.upload_n"
    " WHERE u.created_by = :key AND p.created_at > :at"
)


class Writer:
    """Writes with one key, one operation after the other, until it is refused."""

    def __init__(self, server: Server, holder: Holder, done: Counter[str]) -> None:
        self._server = server
        self._key = holder.key
        self._done = done

    def _post(self, path: str, fields: object = None) -> tuple[int, dict[str, object]]:
        body = None if fields is None else json.dumps(fields).encode()
        headers = {} if body is None else {"content-type": "application/json"}
        reply = self._server.request("POST", path, key=self._key, headers=headers, body=body)
        return reply.status, reply.json

    def _form(self, path: str, *fields: Field) -> tuple[int, dict[str, object]]:
        headers = {"content-type": uploading.CONTENT_TYPE}
        body = uploading.form(*fields)
        reply = self._server.request("POST", path, key=self._key, headers=headers, body=body)
        return reply.status, reply.json

    def upload_a_file(self) -> list[int]:
        return [self._form("/v1/files", *FILE)[0]]

    def upload_slowly(self) -> list[int]:
        body = uploading.form(Field("purpose", b"user_data"), Field("file", b"x" * 2000, "s.txt"))
        size = -(-len(body) // PIECES)
        with self._server.connect() as connection:
            connection.sendall(
                f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {self._key}\r\n"
                f"connection: close\r\ncontent-type: {uploading.CONTENT_TYPE}\r\n"
                f"content-length: {len(body)}\r\n\r\n".encode()
            )
            try:
                for at in range(0, len(body), size):
                    connection.sendall(body[at : at + size])
                    time.sleep(PIECE_SECONDS)
                return [int(connection.recv(4096)[9:12])]
            except (ConnectionError, ValueError):
                return [401]  # refused before the body was complete

    def upload_in_parts(self) -> list[int]:
        status, upload = self._post("/v1/uploads", UPLOAD)
        if status != 200:
            return [status]
        path = f"/v1/uploads/{upload['id']}"
        part_status, part = self._form(f"{path}/parts", Field("data", b"abcd", "upload"))
        if part_status != 200:
            return [status, part_status]
        ended, _ = self._post(f"{path}/complete", {"part_ids": [part["id"]]})
        status, upload = self._post("/v1/uploads", UPLOAD)
        if status != 200:
            return [ended, status]
        return [ended, self._post(f"/v1/uploads/{upload['id']}/cancel")[0]]

    def train(self) -> list[int]:
        status, file = self._form(
            "/v1/files", Field("purpose", b"fine-tune"), Field("file", EXAMPLES, "a.jsonl")
        )
        if status != 200:
            return [status]
        fields = {"model": LOCAL_BASE, "training_file": file["id"]}
        status, job = self._post("/v1/fine_tuning/jobs", fields)
        if status != 200:
            return [status]
        path = f"/v1/fine_tuning/jobs/{job['id']}"
        found = [self._post(f"{path}/{what}")[0] for what in ("pause", "resume", "cancel")]
        return [status, *(200 if one in {400, 409} else one for one in found)]

    def bring_in(self) -> list[int]:
        return [self._imported()[0]]

    def _imported(self) -> tuple[int, dict[str, object]]:
        adapter = bases.adapter()
        body, content_type = bases.form(
            ("base", LOCAL_BASE.encode()),
            ("adapter_config", adapter.config),
            ("adapter_model", adapter.weights),
        )
        headers = {"content-type": content_type}
        reply = self._server.request(
            "POST", "/v1/models", key=self._key, headers=headers, body=body
        )
        return reply.status, reply.json

    def own(self) -> list[int]:
        """What only Owners do: protect, hold, lift, and delete."""
        status, model = self._imported()
        if status != 200:
            return [status]
        path = f"/v1/models/{model['id']}"
        found = [
            self._post(path, {"protected": True})[0],
            self._post(path, {"protected": False})[0],
        ]
        status, hold = self._post("/v1/holds", {"model": model["id"], "reason": "x"})
        found.append(status)
        if status == 200:
            found.append(self._post(f"/v1/holds/{hold['id']}/lift")[0])
        found.append(self._server.request("DELETE", path, key=self._key).status)
        return found

    def share(self) -> list[int]:
        status, model = self._imported()
        if status != 200:
            return [status]
        path = f"/v1/fine_tuning/checkpoints/{model['id']}/permissions"
        status, _ = self._post(path, {"project_ids": [self.other_project]})
        return [status]

    other_project = ""

    def write_until_refused(self, operations: Sequence[Callable[["Writer"], list[int]]]) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            for operation in operations:
                for status in operation(self):
                    self._done[str(status)] += 1
                    if status in {401, 403}:
                        return
                    assert status in {200, 404, 409}, (operation.__name__, status)
        raise AssertionError("it was never refused")


MEMBERS = (
    Writer.upload_a_file,
    Writer.upload_slowly,
    Writer.upload_in_parts,
    Writer.train,
    Writer.bring_in,
)
OPERATIONS: dict[str, Sequence[Callable[[Writer], list[int]]]] = {
    "member": MEMBERS,
    "account": MEMBERS,
    "owner": (*MEMBERS, Writer.own, Writer.share),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeEngineServer]:
    data = tmp_path_factory.mktemp("writes") / "data"
    servers.prepare_local_base(data)
    running = FakeEngineServer(data, workers=WORKERS)
    with servers.stopped_after(running):
        yield running


def _lost_at(server: Server, holder: Holder) -> int:
    """When access was lost, in microseconds: the expiry, or the last event on what it hung by."""
    row = server.app.database.peek(
        "SELECT expires_at FROM api_keys WHERE id = :id", id=holder.key_id
    )
    if row is not None and row[0] is not None:
        return int(row[0])
    last = server.app.database.peek(
        "SELECT MAX(effective_at) FROM audit_events WHERE resource_id IN (:key, :user, :project)"
        " AND actor_key_id <> :key AND type NOT LIKE '%refused%'",
        key=holder.key_id,
        user=holder.user_id,
        project=holder.project_id,
    )
    assert last is not None
    return int(last[0])


def _later(server: Server, holder: Holder, at: int) -> dict[str, int]:
    """Count what was written with a key after a time, by table."""
    found = {}
    for table, column, time_column, only in WRITTEN:
        sql = (
            f"SELECT COUNT(*) FROM {table} WHERE {column} = :key AND {time_column} > :at AND {only}"
        )
        row = server.app.database.peek(sql, key=holder.key_id, at=at)
        assert row is not None
        found[table] = int(row[0])
    row = server.app.database.peek(PARTS, key=holder.key_id, at=at)
    assert row is not None
    return {table: n for table, n in {**found, "upload_parts": int(row[0])}.items() if n}


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_written_after_access_was_lost(server: FakeEngineServer, way: str) -> None:
    seed = budgets.new_seed()
    random_ = random.Random(seed)
    kind, lose = WAYS[way]
    # A project with files or jobs is not archived.
    operations = (Writer.bring_in,) if way == "archived" else OPERATIONS[kind]
    administrator = Administrator(server)
    other = administrator.new_project()
    done: Counter[str] = Counter()
    for _ in range(ROUNDS):
        holder = administrator.new_holder(kind)
        threads = []
        for _ in range(WRITERS):
            writer = Writer(server, holder, done)
            writer.other_project = other
            chosen = random_.sample(operations, len(operations))
            threads.append(threading.Thread(target=writer.write_until_refused, args=(chosen,)))
        for thread in threads:
            thread.start()
        time.sleep(0.2 + random_.random())
        lose(administrator, holder)
        for thread in threads:
            thread.join(90)
            assert not thread.is_alive()
        assert _later(server, holder, _lost_at(server, holder)) == {}
    assert done["200"] >= ROUNDS, done
    refused = done["401"] + done["403"]
    assert refused == ROUNDS * WRITERS, done
    print(
        f"seed {seed} {ROUNDS} rounds of {WRITERS} writers: {done['200']} writes, {refused} refused"
    )


def test_control_what_trusts_its_beginning_writes_after_access_was_lost(tmp_path: Path) -> None:
    data = tmp_path / "data"
    servers.prepare_local_base(data)
    running = TrustingServer(data, workers=1)
    with servers.stopped_after(running):
        administrator = Administrator(running)
        holder = administrator.new_holder("member")
        done: Counter[str] = Counter()
        slow = threading.Thread(
            target=Writer(running, holder, done).write_until_refused,
            args=([Writer.upload_slowly],),
        )
        slow.start()
        time.sleep(0.3)
        WAYS["revoked"][1](administrator, holder)
        slow.join(60)
        later = _later(running, holder, _lost_at(running, holder))
    assert later.get("artifacts"), later
    print(f"written after the key was revoked: {later}")
