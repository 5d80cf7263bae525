"""A DELETE whose answer was lost, and everything that only looks like one (I5, I9)."""

import asyncio

import openai
import pytest
from tests.fakes.cutting_proxy import CuttingProxy
from tests.support.servers import Reply, Server

from tunewarden.deletion import records
from tunewarden.registry.models import Model

# The ids that are compared may differ in length.
VARYING = {"x-request-id", "date", "openai-processing-ms", "openai-organization", "content-length"}
INFERENCE: dict[str, dict[str, object]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hello"}]},
    "/v1/completions": {"prompt": "Hello"},
    "/v1/embeddings": {"input": "Hello"},
    "/v1/responses": {"input": "Hello"},
}


def _delete(server: Server, model: Model, key: str | None = None, **headers: str) -> Reply:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.request(
        "DELETE", f"/v1/models/{model.id}", key=key or server.owner_key, headers=sent
    )


def _has_deletion(server: Server, model: Model) -> bool:
    with server.app.database.read() as tx:
        return records.find_of(tx, model.n) is not None


@pytest.mark.parametrize("after_bytes", [0, 1, 100, 250])
def test_an_sdk_whose_answer_was_lost_is_told_that_it_deleted(
    server: Server, after_bytes: int
) -> None:
    model = server.make_model()
    with CuttingProxy(server.address, lose=1, after_bytes=after_bytes) as proxy:
        deleted = openai.OpenAI(base_url=proxy.url, api_key=server.owner_key).models.delete(
            model.id
        )
    assert (deleted.id, deleted.deleted) == (model.id, True)
    assert b"x-stainless-retry-count: 1" in proxy.requests[-1].lower()
    assert _has_deletion(server, model)


def test_two_lost_answers_are_no_different(server: Server) -> None:
    model = server.make_model()
    with CuttingProxy(server.address, lose=2) as proxy:
        deleted = openai.OpenAI(base_url=proxy.url, api_key=server.owner_key).models.delete(
            model.id
        )
    assert deleted.deleted
    assert _has_deletion(server, model)


def test_an_asynchronous_sdk_whose_answer_was_lost_is_told_that_it_deleted(server: Server) -> None:
    model = server.make_model()

    async def use(url: str) -> bool:
        async with openai.AsyncOpenAI(base_url=url, api_key=server.owner_key) as client:
            return (await client.models.delete(model.id)).deleted

    with CuttingProxy(server.address, lose=1) as proxy:
        assert asyncio.run(use(proxy.url))


def test_control_without_the_header_a_lost_answer_is_a_404(server: Server) -> None:
    model = server.make_model()
    with CuttingProxy(server.address, lose=1) as proxy:
        client = openai.OpenAI(base_url=proxy.url, api_key=server.owner_key, max_retries=0)
        with pytest.raises(openai.APIConnectionError):
            client.models.delete(model.id)
        with pytest.raises(openai.NotFoundError):
            client.models.delete(model.id)


def test_a_repetition_gets_the_first_answer_again(server: Server) -> None:
    model = server.make_model()
    first = _delete(server, model)
    again = _delete(server, model, x_stainless_retry_count="1")
    assert (first.status, first.body) == (again.status, again.body)
    assert first.header("tunewarden-deletion") == again.header("tunewarden-deletion")


def test_a_fresh_second_delete_is_a_404(server: Server) -> None:
    model = server.make_model()
    assert _delete(server, model).status == 200
    assert _delete(server, model).status == 404
    assert _delete(server, model, x_stainless_retry_count="0").status == 404


def test_another_key_of_the_same_organization_cannot_forge_a_repetition(server: Server) -> None:
    model = server.make_model()
    assert _delete(server, model, idempotency_key="mine").status == 200
    other = server.make_key("owner")
    assert _delete(server, model, other, x_stainless_retry_count="1").status == 404
    assert _delete(server, model, other, idempotency_key="mine").status == 404


def test_an_idempotency_key_makes_a_repetition_whatever_the_count(server: Server) -> None:
    model = server.make_model()
    assert _delete(server, model, idempotency_key="a-1").status == 200
    assert _delete(server, model, idempotency_key="a-1").status == 200
    assert _delete(server, model, idempotency_key="a-2").status == 404
    assert _delete(server, model, idempotency_key="").status == 404


def test_the_same_idempotency_key_on_another_model_deletes_that_one(server: Server) -> None:
    one, other = server.make_model(), server.make_model()
    client = server.client(default_headers={"Idempotency-Key": "everywhere"})
    assert client.models.delete(one.id).id == one.id
    assert client.models.delete(other.id).id == other.id


def test_an_idempotency_key_that_is_too_long_is_a_400_and_deletes_nothing(server: Server) -> None:
    model = server.make_model()
    assert _delete(server, model, idempotency_key="x" * 256).status == 400
    assert _delete(server, model, idempotency_key="x" * 255).status == 200


def test_a_repetition_with_a_revoked_key_is_a_401(server: Server) -> None:
    key = server.make_key("owner")
    model = server.make_model(key=key)
    assert _delete(server, model, key).status == 200
    server.revoke_key(key)
    assert _delete(server, model, key, x_stainless_retry_count="1").status == 401


# I9: somebody else's model and an unknown one


@pytest.fixture(scope="module")
def foreign(server: Server) -> Model:
    return server.make_model(key=server.make_key("owner", organization="others"))


@pytest.fixture(scope="module")
def deleted(server: Server) -> Model:
    model = server.make_model()
    assert _delete(server, model).status == 200
    return model


def _seen(reply: Reply, model_id: str) -> object:
    """What tells one answer from another, but for the id itself."""
    assert reply.header("content-length") == str(len(reply.body))
    headers = [(name, value) for name, value in reply.headers if name.lower() not in VARYING]
    return reply.status, headers, reply.body.decode().replace(model_id, "ID")


@pytest.mark.parametrize("role", ["owner", "reader"])
def test_foreign_deleted_and_unknown_models_give_the_same_bytes(
    server: Server, foreign: Model, deleted: Model, role: str
) -> None:
    key = server.owner_key if role == "owner" else server.make_key("reader")
    unknown = f"{foreign.id[:-8]}00000000"
    asked = [foreign.id, deleted.id, unknown]
    for method in ("GET", "DELETE"):
        answers = [
            _seen(server.request(method, f"/v1/models/{one}", key=key), one) for one in asked
        ]
        assert answers[0] == answers[1] == answers[2], method
    for path, fields in INFERENCE.items():
        answers = [
            _seen(server.post(path, {"model": one, **fields}, key=key), one) for one in asked
        ]
        assert answers[0] == answers[1] == answers[2], path


def test_control_an_own_model_gives_other_bytes(server: Server, foreign: Model) -> None:
    own = server.make_model()
    key = server.owner_key
    answers = [
        _seen(server.request("GET", f"/v1/models/{one}", key=key), one)
        for one in (own.id, foreign.id)
    ]
    assert answers[0] != answers[1]
