"""A base's other names, which have slashes as on hubs: in requests, in lists, in paths, in imports and jobs."""

import json
from collections.abc import Iterator

import openai
import pytest
from tests.fakes.upstream import FakeUpstream
from tests.support import lone_worker, servers
from tests.support.lone_worker import LoneWorker
from tests.support.servers import LOCAL_BASE

from tunewarden.db.database import Database
from tunewarden.errors import Error, Kind
from tunewarden.registry import bases
from tunewarden.registry.bases import BaseKind

NAME = "meta-llama/Llama-3.1-8B-Instruct"
DEEP = "hub.example/meta-llama/Llama-3.1"


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoneWorker]:
    data = tmp_path_factory.mktemp("named") / "data"
    with FakeUpstream() as upstream, lone_worker.serving(data) as running:
        with running.app.database.write() as tx:
            bases.add(
                tx,
                name="llama",
                kind=BaseKind.REMOTE,
                location=upstream.url,
                engine_model=upstream.models[0],
                modules={},
            )
            bases.also_name(tx, "llama", NAME)
            bases.also_name(tx, "llama", NAME)
            bases.also_name(tx, "llama", DEEP)
            bases.also_name(tx, LOCAL_BASE, "local/base")
        yield running


def test_a_request_by_another_name_is_answered_under_it(worker: LoneWorker) -> None:
    chats = worker.client(max_retries=0).chat.completions
    for name in (NAME, DEEP, "llama"):
        answer = chats.create(model=name, messages=[{"role": "user", "content": "Hello"}])
        assert answer.model == name


def test_it_is_listed_and_retrieved_with_its_base_as_root(worker: LoneWorker) -> None:
    models = worker.client(max_retries=0).models
    listed = {one.id: one for one in models.list()}
    assert [name for name in listed if name in {NAME, DEEP, "llama"}] == ["llama", DEEP, NAME]
    assert models.retrieve(NAME) == listed[NAME]
    assert listed[NAME].to_dict()["root"] == "llama"
    assert "root" not in listed["llama"].to_dict()


@pytest.mark.parametrize(
    "written", [NAME, NAME.replace("/", "%2F"), DEEP, DEEP.replace("/", "%2f", 1)]
)
def test_the_path_has_its_slashes_encoded_or_as_they_are(worker: LoneWorker, written: str) -> None:
    reply = worker.get(f"/v1/models/{written}", key=worker.owner_key)
    assert reply.status == 200, reply.body
    assert json.loads(reply.body)["root"] == "llama"
    plan = worker.get(f"/v1/models/{written}/deletion_plan", key=worker.owner_key)
    assert (plan.status, json.loads(plan.body)["error"]["code"]) == (
        403,
        "base_model_not_deletable",
    )


def test_it_cannot_be_deleted(worker: LoneWorker) -> None:
    with pytest.raises(openai.PermissionDeniedError, match="base model"):
        worker.client(max_retries=0).models.delete(NAME)


def test_a_model_and_a_job_are_made_on_the_base_itself(worker: LoneWorker) -> None:
    model = servers.import_adapter(worker.app, worker.owner_key, base="local/base")
    assert model.base == LOCAL_BASE
    assert model.id.startswith(f"ft:{LOCAL_BASE}:")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("llama", Kind.CONFLICT),
        (LOCAL_BASE, Kind.CONFLICT),
        ("local/base", Kind.CONFLICT),
        ("ft:llama:o::abcdefgh", Kind.INVALID),
        ("/llama", Kind.INVALID),
        ("a//b", Kind.INVALID),
        ("a/../b", Kind.INVALID),
        ("a/.", Kind.INVALID),
        ("a b", Kind.INVALID),
        ("a" * 129, Kind.INVALID),
        ("", Kind.INVALID),
    ],
)
def test_a_name_that_is_taken_or_no_name_is_refused(
    worker: LoneWorker, name: str, kind: Kind
) -> None:
    assert _refusal(worker.app.database, name) is kind


def _refusal(database: Database, name: str) -> Kind:
    with pytest.raises(Error) as refused, database.write() as tx:
        bases.also_name(tx, "llama", name)
    return refused.value.kind


def test_a_base_cannot_take_a_name_that_another_one_has(worker: LoneWorker) -> None:
    with worker.app.database.write() as tx:
        bases.also_name(tx, "llama", "plain-name")
    with pytest.raises(Error) as refused, worker.app.database.write() as tx:
        bases.add(
            tx,
            name="plain-name",
            kind=BaseKind.REMOTE,
            location="http://127.0.0.1:9/v1",
            engine_model="m",
            modules={},
        )
    assert refused.value.kind is Kind.CONFLICT
