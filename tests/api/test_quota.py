"""Bytes stored of each project (§18): counted before they are written, whatever they belong to."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from tests.fakes.cutting_proxy import CuttingProxy
from tests.support import bases, servers
from tests.support.servers import Reply, Server
from tests.support.uploading import Field, post, settle

QUOTA = 1_000_000
EXCEEDED = (429, "insufficient_quota", "storage_quota_exceeded", "false")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("quota") / "data"
    settings = {"project_bytes_max": QUOTA}
    with servers.serving(
        data, workers=2, local_base=True, settings=settings, kind=servers.WithoutTorch
    ) as running:
        yield running


@pytest.fixture
def key(server: Server, request: pytest.FixtureRequest) -> str:
    """An Owner of an organization of the test's own."""
    return server.make_key("owner", organization=f"org-{abs(hash(request.node.name)) % 10**9}")


def upload(server: Server, key: str, size: int) -> Reply:
    fields = Field("purpose", b"user_data"), Field("file", b"x" * size, "f.bin")
    return post(server, "/v1/files", *fields, key=key)


def refusal(reply: Reply) -> object:
    return reply.status, reply.error["type"], reply.error["code"], reply.header("x-should-retry")


def counted(server: Server) -> tuple[int, int]:
    """What is counted as stored, and what is reserved, of all projects."""
    stored = server.app.database.peek("SELECT SUM(bytes) FROM stored_bytes")
    reserved = server.app.database.peek("SELECT SUM(bytes) FROM drafts")
    assert stored is not None
    assert reserved is not None
    return int(stored[0] or 0), int(reserved[0] or 0)


def test_a_file_beyond_the_quota_is_refused_until_another_is_deleted(
    server: Server, key: str
) -> None:
    first = upload(server, key, 600_000)
    assert first.status == 200
    assert refusal(upload(server, key, 600_000)) == EXCEEDED
    assert upload(server, key, 300_000).status == 200
    other = server.make_key("owner", organization="who-stores-little")
    assert upload(server, other, 600_000).status == 200
    path = f"/v1/files/{first.json['id']}"
    assert server.request("DELETE", path, key=key).status == 200
    assert upload(server, key, 600_000).status == 200


def test_a_stock_client_sends_one_request_and_no_more(server: Server, key: str) -> None:
    with CuttingProxy(server.address, lose=0) as proxy:
        client = openai.OpenAI(base_url=proxy.url, api_key=key)
        with pytest.raises(openai.RateLimitError) as refused:
            client.files.create(file=("f.bin", b"x" * 1_100_000), purpose="user_data")
    assert b"".join(proxy.requests).count(b"POST /v1/files") == 1
    assert "storage quota" in refused.value.message
    assert "of the 1000000 bytes of this project are in use" in refused.value.message
    assert " more. Delete files" in refused.value.message


def test_of_uploads_at_once_no_more_pass_than_fit(server: Server, key: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda _: upload(server, key, 450_000), range(6)))
    statuses = sorted(reply.status for reply in replies)
    print(f"quota uploads at once {statuses}")
    assert statuses.count(200) in {1, 2}
    assert statuses[2:] == [429] * 4


def test_small_uploads_at_once_pass_where_little_is_left(server: Server, key: str) -> None:
    """What each reserves and does not need must not refuse the others."""
    assert upload(server, key, 900_000).status == 200
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda _: upload(server, key, 1000), range(24)))
    assert [reply.status for reply in replies] == [200] * 24


def test_parts_of_unfinished_uploads_count(server: Server, key: str) -> None:
    def begin(size: int) -> Reply:
        wanted = {
            "bytes": size,
            "filename": "f",
            "mime_type": "text/plain",
            "purpose": "user_data",
        }
        return server.post("/v1/uploads", wanted, key=key)

    def part(upload_id: object, size: int) -> Reply:
        path = f"/v1/uploads/{upload_id}/parts"
        return post(server, path, Field("data", b"x" * size, "d"), key=key)

    assert refusal(begin(QUOTA + 1)) == EXCEEDED
    one, other = begin(900_000).json["id"], begin(900_000).json["id"]
    kept = part(one, 450_000).json["id"]
    assert part(one, 450_000).status == 200
    assert refusal(part(other, 450_000)) == EXCEEDED
    assert refusal(upload(server, key, 450_000)) == EXCEEDED
    assert part(other, 50_000).status == 200
    assert server.post(f"/v1/uploads/{one}/cancel", {}, key=key).status == 200
    assert kept
    assert upload(server, key, 450_000).status == 200


def test_imports_count(server: Server, key: str) -> None:
    assert upload(server, key, 980_000).status == 200
    adapter = bases.adapter()
    fields = (
        Field("base", servers.LOCAL_BASE.encode()),
        Field("adapter_config", adapter.config, "adapter_config.json"),
        Field("adapter_model", adapter.weights, "adapter_model.safetensors"),
    )
    replies = [post(server, "/v1/models", *fields, key=key) for _ in range(12)]
    statuses = [reply.status for reply in replies]
    assert statuses[0] == 200
    assert statuses == sorted(statuses)
    assert refusal(replies[-1]) == EXCEEDED


def test_what_is_counted_is_what_the_rows_say(server: Server, key: str) -> None:
    assert upload(server, key, 1000).status == 200
    settle(server)
    row = server.app.database.peek(
        "SELECT SUM(b.sealed_bytes) FROM blobs b JOIN artifacts a ON a.n = b.artifact_n"
        " WHERE a.state <> 'deleted'"
    )
    parts = server.app.database.peek("SELECT COALESCE(SUM(sealed_bytes), 0) FROM upload_parts")
    assert row is not None
    assert parts is not None
    assert counted(server) == (row[0], parts[0])
