"""`client.models`: list, retrieve and delete, as the stock SDK and as the wire see them."""

import asyncio
import contextlib
import json
import time
from pathlib import Path

import openai
import pytest
from openai.types import Model as SdkModel
from tests.support import lone_worker
from tests.support.servers import LOCAL_BASE, ORGANIZATION, Server

from tunewarden.ids import ALPHANUMERICS, token
from tunewarden.registry import models
from tunewarden.registry.artifacts import State
from tunewarden.registry.models import Model

UNKNOWN = "ft:tiny-base:my-org::AbCd1234"


def _path(model_id: str) -> str:
    return f"/v1/models/{model_id}"


def _missing(name: str) -> dict[str, object]:
    return {
        "message": f"The model '{name}' does not exist (model not found)",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


def test_an_imported_model_has_an_id_as_openai_makes_them(server: Server) -> None:
    name, base, organization, suffix, tail = server.make_model(suffix="a.b-c_d").id.split(":")
    assert (name, base, organization, suffix) == ("ft", LOCAL_BASE, ORGANIZATION, "a.b-c_d")
    assert len(tail) == 8
    assert set(tail) <= set(ALPHANUMERICS)


def test_the_list_shows_bases_and_own_models(server: Server) -> None:
    model = server.make_model()
    listed = server.client().models.list().data
    assert {SdkModel.model_validate(one).id for one in listed} >= {LOCAL_BASE, model.id}
    assert next(one for one in listed if one.id == LOCAL_BASE).owned_by == "system"
    assert next(one for one in listed if one.id == model.id).owned_by == ORGANIZATION


def test_retrieve_answers_exactly_this(server: Server) -> None:
    model = server.make_model()
    reply = server.get(_path(model.id), key=server.owner_key)
    assert reply.status == 200
    assert reply.json == {
        "id": model.id,
        "object": "model",
        "created": model.created_at // 1_000_000,
        "owned_by": ORGANIZATION,
        "root": LOCAL_BASE,
        "archived": False,
        "protected": False,
        "metadata": {},
        "capabilities": ["completions", "fine_tuning"],  # its base has no chat template
    }
    assert abs(int(str(reply.json["created"])) - time.time()) < 60
    base = server.get(_path(LOCAL_BASE), key=server.owner_key)
    assert set(base.json) == {"id", "object", "created", "owned_by", "capabilities"}


def test_delete_answers_exactly_this(server: Server) -> None:
    model = server.make_model()
    reply = server.request("DELETE", _path(model.id), key=server.owner_key)
    assert reply.status == 200
    assert reply.json == {"id": model.id, "object": "model", "deleted": True}
    assert (reply.header("tunewarden-deletion") or "").startswith("del_")
    assert reply.header("content-type") == "application/json"


def test_a_deleted_model_is_gone_from_list_and_retrieve_on_every_worker(server: Server) -> None:
    model = server.make_model()
    client = server.client()
    assert client.models.delete(model.id).deleted
    for _ in range(10):  # each time a connection of its own, to whichever worker
        assert server.get(_path(model.id), key=server.owner_key).error == _missing(model.id)
        listed = server.get("/v1/models", key=server.owner_key)
        assert model.id not in listed.body.decode()


def test_the_synchronous_client_lists_retrieves_and_deletes(server: Server) -> None:
    model = server.make_model()
    client = server.client()
    assert model.id in [one.id for one in client.models.list()]
    assert client.models.retrieve(model.id).id == model.id
    deleted = client.models.delete(model.id)
    assert (deleted.id, deleted.object, deleted.deleted) == (model.id, "model", True)
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.delete(model.id)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert "not found" in str(caught.value)
    assert (caught.value.request_id or "").startswith("req_")


def test_the_asynchronous_client_lists_retrieves_and_deletes(server: Server) -> None:
    model = server.make_model()

    async def use() -> None:
        async with server.async_client() as client:
            assert model.id in [one.id async for one in client.models.list()]
            assert (await client.models.retrieve(model.id)).id == model.id
            deleted = await client.models.delete(model.id)
            assert (deleted.id, deleted.object, deleted.deleted) == (model.id, "model", True)
            with pytest.raises(openai.NotFoundError):
                await client.models.delete(model.id)

    asyncio.run(use())


def test_raw_answers_extra_headers_extra_query_and_timeout_work(server: Server) -> None:
    model = server.make_model()
    client = server.client()
    raw = client.models.with_raw_response.delete(
        model.id,
        extra_headers={"X-Client-Request-Id": "mine", "x-anything": "~"},
        extra_query={"force": False},
        timeout=20,
    )
    assert raw.parse().deleted
    assert raw.headers["tunewarden-deletion"].startswith("del_")
    with client.models.with_streaming_response.retrieve(LOCAL_BASE) as streamed:
        assert streamed.parse().id == LOCAL_BASE


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_every_answer_carries_openais_headers(server: Server, method: str) -> None:
    for path in (_path(UNKNOWN), "/v1/nothing"):
        reply = server.request(method, path, key=server.owner_key)
        assert (reply.header("x-request-id") or "").startswith("req_")
        assert reply.header("openai-organization") == ORGANIZATION
        assert reply.header("openai-version") == "2020-10-01"
        assert (reply.header("openai-processing-ms") or "").isdecimal()
        assert reply.header("x-content-type-options") == "nosniff"
        assert reply.header("tunewarden-deletion") is None
    ids = {server.get("/healthz").header("x-request-id") for _ in range(20)}
    assert len(ids) == 20


def test_a_base_cannot_be_deleted(server: Server) -> None:
    with pytest.raises(openai.PermissionDeniedError, match="Only fine-tuned models can be deleted"):
        server.client().models.delete(LOCAL_BASE)
    assert server.client().models.retrieve(LOCAL_BASE).id == LOCAL_BASE


def test_a_reader_cannot_delete_and_the_refusal_says_permission(server: Server) -> None:
    model = server.make_model()
    client = server.client(server.make_key("reader"))
    with pytest.raises(openai.PermissionDeniedError) as caught:
        client.models.delete(model.id)
    assert "permission" in str(caught.value).lower()
    assert "Owner role" in str(caught.value)
    assert "Missing scopes: api.delete" in str(caught.value)
    assert client.models.retrieve(model.id).id == model.id


# The path


def test_a_colon_and_its_escape_are_the_same(server: Server) -> None:
    model = server.make_model()
    escaped = _path(model.id.replace(":", "%3A"))
    assert server.get(escaped, key=server.owner_key).json["id"] == model.id
    mixed = _path(model.id.replace(":", "%3a", 2))
    assert server.request("DELETE", mixed, key=server.owner_key).json["id"] == model.id


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("org%2Fname", "org/name"),
        ("a%252Fb", "a%2Fb"),
        ("%252e%252e", "%2e%2e"),
        ("ft%3A%C3%A9", "ft:é"),
        ("a%00b", "a\ufffdb"),  # PostgreSQL has no text with NUL
        ("a%20b%3Fx%23y", "a b?x#y"),
        ("a+b", "a+b"),
        ("..%2F..%2Fhealthz", "../../healthz"),
        ("%E2%80%A8%22%5C", '\u2028"\\'),
    ],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_segment_is_decoded_once(server: Server, method: str, sent: str, meant: str) -> None:
    reply = server.request(method, _path(sent), key=server.owner_key)
    assert (reply.status, reply.error) == (404, _missing(meant))


@pytest.mark.parametrize("name", ["org/na me?x#y%2F", "ft:é", "a\nb", "%2e%2e", "x" * 300])
def test_names_that_the_sdk_escapes_come_back_as_they_were(server: Server, name: str) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        server.client().models.delete(name)
    assert f"'{name[:256]}" in caught.value.message


@pytest.mark.parametrize("sent", ["%FF", "%C3", "a%80b", "%ED%A0%80"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_path_that_is_not_utf8_is_a_400(server: Server, method: str, sent: str) -> None:
    reply = server.request(method, _path(sent), key=server.owner_key)
    assert (reply.status, reply.error["message"]) == (400, "The path is not UTF-8.")


@pytest.mark.parametrize("path", ["/v1/models/", "/v1/models//", "/v1//models", "/v1/models/a/b"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_path_without_its_id_is_never_a_redirect(server: Server, method: str, path: str) -> None:
    reply = server.request(method, path, key=server.owner_key)
    assert reply.status == 404
    assert reply.header("location") is None


def test_deleting_the_collection_is_a_405(server: Server) -> None:
    reply = server.request("DELETE", "/v1/models", key=server.owner_key)
    assert (reply.status, reply.header("allow")) == (405, "GET, HEAD, POST")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/models", {"GET", "HEAD", "POST"}),
        (_path(UNKNOWN), {"GET", "HEAD", "POST", "DELETE"}),
        ("/v1/chat/completions", {"POST"}),
        ("/v1/embeddings", {"POST"}),
        ("/healthz", {"GET", "HEAD"}),
    ],
)
def test_a_method_that_is_not_there_is_a_405_naming_those_that_are(
    server: Server, path: str, allowed: set[str]
) -> None:
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"} - allowed:
        reply = server.request(method, path, key=server.owner_key)
        assert reply.status == 405, method
        assert set((reply.header("allow") or "").split(", ")) >= allowed
        if method != "HEAD":
            assert reply.error["type"] == "invalid_request_error"


# The request


def test_a_delete_with_a_json_content_type_and_no_body_works(server: Server) -> None:
    model = server.make_model()
    headers = {"content-type": "application/json"}
    reply = server.request("DELETE", _path(model.id), key=server.owner_key, headers=headers)
    assert reply.status == 200


def test_a_delete_with_a_body_that_nobody_asked_for_works(server: Server) -> None:
    model = server.make_model()
    headers = {"content-type": "application/json"}
    reply = server.request(
        "DELETE", _path(model.id), key=server.owner_key, headers=headers, body=b"{not json"
    )
    assert reply.status == 200


@pytest.mark.parametrize("value", ["x" * 513, "é"])
def test_a_client_request_id_out_of_bounds_is_a_400(server: Server, value: str) -> None:
    headers = {"X-Client-Request-Id": value}
    reply = server.request("GET", "/v1/models", key=server.owner_key, headers=headers)
    assert (reply.status, reply.error["param"]) == (400, "X-Client-Request-Id")
    fits = {"X-Client-Request-Id": "x" * 512}
    assert server.request("GET", "/v1/models", key=server.owner_key, headers=fits).status == 200


@pytest.mark.parametrize("value", ["x", "-1", "1e3", "9" * 5000, "²", "", " "])
def test_a_retry_count_that_is_no_number_counts_as_none(server: Server, value: str) -> None:
    headers = {"x-stainless-retry-count": value}
    reply = server.request("DELETE", _path(UNKNOWN), key=server.owner_key, headers=headers)
    assert reply.status == 404


def test_headers_without_end_are_refused_and_close_the_connection(server: Server) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n")
        for _ in range(9):
            connection.sendall(b"x-filler: " + b"x" * 8000 + b"\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 431 ")
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(4096):
                pass


# The list


@pytest.fixture(scope="module")
def crowd(server: Server) -> tuple[str, list[str]]:
    """A key of an organization with 3,000 models, and their ids in order."""
    key = server.make_key("owner", organization="crowd")
    ids = [f"ft:{LOCAL_BASE}:crowd::{token(8)}" for _ in range(3000)]
    with server.app.database.write() as tx:
        row = tx.row(
            "SELECT o.id, p.id FROM organizations o JOIN projects p ON p.organization_id = o.id"
            " WHERE o.name = 'crowd'"
        )
        assert row is not None
        for model_id in ids:
            crowded = Model(
                n=0,
                id=model_id,
                internal_id=f"m_{token(24)}",
                organization_id=row[0],
                project_id=row[1],
                state=State.ACTIVE,
                epoch=1,
                key_id="k",
                manifest_sha256="",
                created_by="k",
                created_at=tx.now_micros,
                base=LOCAL_BASE,
                suffix="",
            )
            models.register(tx, model=crowded, manifest="{}", blobs=[])
    return key, ids


def test_a_list_of_3000_models_is_complete_in_one_answer(
    server: Server, crowd: tuple[str, list[str]]
) -> None:
    key, ids = crowd
    listed = [model.id for model in server.client(key).models.list()]
    assert listed == [LOCAL_BASE, *ids]
    raw = server.get("/v1/models", key=key).json
    assert (raw["object"], raw["has_more"]) == ("list", False)


def test_a_list_of_50_000_models_is_streamed_in_flat_memory(data: Path) -> None:
    with lone_worker.serving(data) as worker:
        _crowd(worker, 50_000)
        process = Path(f"/proc/{worker.process.pid}")
        ids: list[int] = []
        for _ in range(2):  # the first is for what a worker loads at its first answer
            before = _resident_mb(process, "VmRSS")
            (process / "clear_refs").write_text("5")  # the peak from here on: proc(5)
            answer = worker.get("/v1/models", key=worker.owner_key)
            ids.append(len({model["id"] for model in answer.json["data"]}))
            grown = _resident_mb(process, "VmHWM") - before
        assert ids == [50_001, 50_001]
        assert len(answer.body) > 5_000_000
        assert grown < 4


def _crowd(worker: Server, count: int) -> None:
    with worker.app.database.write() as tx:
        tx.run(
            "WITH RECURSIVE c (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < :count)"
            " INSERT INTO artifacts (kind, id, internal_id, organization_id, project_id, state, epoch,"
            " key_id, manifest, manifest_sha256, created_by, created_at) SELECT 'model',"
            " 'ft:tiny-base:my-org::' || printf('%08d', i), 'm_' || i, k.organization_id, k.project_id,"
            " 'active', 1, 'k' || i, '{}', '', k.id, i FROM c, api_keys k",
            count=count,
        )
        tx.run(
            "INSERT INTO models (n, base, suffix) SELECT n, :base, '' FROM artifacts",
            base=LOCAL_BASE,
        )


def _resident_mb(process: Path, field: str) -> float:
    text = (process / "status").read_text()
    return int(text.partition(f"{field}:")[2].split()[0]) / 1000


def test_a_list_can_be_taken_in_pages(server: Server, crowd: tuple[str, list[str]]) -> None:
    key, ids = crowd
    found: list[str] = []
    after = ""
    for _ in range(10):
        query = f"?limit=700{after and f'&after={after}'}"
        page = server.get(f"/v1/models{query}", key=key).json
        data = page["data"]
        assert isinstance(data, list)
        found += [model["id"] for model in data]
        after = found[-1]
        if not page["has_more"]:
            break
    assert found == [LOCAL_BASE, *ids]


def test_pages_go_on_behind_a_model_that_was_deleted_and_not_behind_a_foreign_one(
    server: Server,
) -> None:
    key = server.make_key("owner", organization="pages")
    ids = [server.make_model(key=key).id for _ in range(3)]
    assert server.request("DELETE", f"/v1/models/{ids[1]}", key=key).status == 200
    page = server.get(f"/v1/models?limit=1&after={ids[1]}", key=key).json
    assert ([model["id"] for model in page["data"]], page["has_more"]) == ([ids[2]], False)
    bases = server.get(f"/v1/models?limit=2&after={LOCAL_BASE}", key=key).json
    assert [model["id"] for model in bases["data"]] == [ids[0], ids[2]]
    foreign = server.get(f"/v1/models?after={ids[0]}", key=server.owner_key)
    unknown = server.get("/v1/models?after=nobody", key=server.owner_key)
    assert foreign.status == unknown.status == 400
    assert foreign.body == unknown.body.replace(b"nobody", ids[0].encode())


def test_a_page_that_ends_with_the_last_model_says_that_there_is_no_more(
    server: Server, crowd: tuple[str, list[str]]
) -> None:
    key, ids = crowd
    page = server.get(f"/v1/models?limit=1&after={ids[-2]}", key=key).json
    assert ([model["id"] for model in page["data"]], page["has_more"]) == ([ids[-1]], False)
    beyond = server.get(f"/v1/models?after={ids[-1]}", key=key).json
    assert (beyond["data"], beyond["has_more"]) == ([], False)


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=x", "limit=10001", "limit="])
def test_a_limit_out_of_bounds_is_a_400(server: Server, query: str) -> None:
    reply = server.get(f"/v1/models?{query}", key=server.owner_key)
    assert (reply.status, reply.error["param"]) == (400, "limit")


def test_deletions_go_on_behind_ones_own_only(server: Server) -> None:
    own = [server.make_model(), server.make_model()]
    other = server.make_key("owner", organization="others")
    foreign = server.make_model(key=other)
    for model, key in ((own[0], None), (foreign, other), (own[1], None)):
        server.client(key).models.delete(model.id)

    def refused(after: object, key: str) -> bytes:
        reply = server.get(f"/v1/deletions?after={after}", key=key)
        assert (reply.status, reply.error["param"]) == (400, "after")
        return reply.body.replace(str(after).encode(), b"ID")

    newest = server.get("/v1/deletions?limit=2", key=server.owner_key).json
    first, last = newest["first_id"], newest["last_id"]
    theirs = server.get("/v1/deletions?limit=1", key=other).json["first_id"]
    page = server.get(f"/v1/deletions?after={first}", key=server.owner_key).json
    assert page["first_id"] == last
    # Its place among ours would tell when it was.
    unknown = refused("del_unknown", server.owner_key)
    assert refused(theirs, server.owner_key) == refused(first, other) == unknown


def test_nobody_sees_another_organizations_models(
    server: Server, crowd: tuple[str, list[str]]
) -> None:
    assert ":crowd:" not in server.get("/v1/models", key=server.owner_key).body.decode()
    assert json.loads(server.get("/v1/models", key=crowd[0]).body)["data"][0]["id"] == LOCAL_BASE


def test_nothing_above_was_a_bug_of_the_server(server: Server) -> None:
    assert "Traceback" not in server.log(), server.log()
