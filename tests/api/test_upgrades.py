"""The data directory of every release from 0.2 on opens: nothing is lost or comes back, and deletions go on."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.support import servers
from tests.support.servers import Server

from tunewarden_receipts import receipt

KEPT = sorted(
    path
    for path in (Path(__file__).parents[1] / "golden").glob("data-*.tar.gz")
    if path.name != "data-0.1.tar.gz"  # test_upgrade_from_0_1.py
)


@dataclass(frozen=True, slots=True)
class Old:
    """A server on the directory of an older release, and what was known of it then."""

    server: Server
    facts: dict[str, Any]


@pytest.fixture(scope="module", params=KEPT, ids=[path.name for path in KEPT])
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Old]:
    directory = tmp_path_factory.mktemp("upgrade")
    with tarfile.open(request.param) as packed:
        packed.extractall(directory, filter="data")
    with servers.serving(directory / "data", kind=servers.WithoutTorch) as server:
        yield Old(server, json.loads((directory / "facts.json").read_text()))


def test_there_is_one_of_every_release_since_0_2() -> None:
    assert KEPT


def test_what_was_kept_is_there_and_nothing_else(old: Old) -> None:
    models, files = old.facts["models"], old.facts["files"]
    client, others = old.server.client(old.facts["owner"]), old.server.client(old.facts["others"])
    assert {one.id for one in client.models.list()} == {servers.LOCAL_BASE, models["kept"]}
    assert {one.id for one in others.models.list()} == {servers.LOCAL_BASE, models["others_kept"]}
    listed = {one.id: one.filename for one in client.files.list()}
    assert listed[files["kept"]] == "kept.jsonl"
    assert files["gone"] not in listed
    assert client.files.content(files["kept"]).read().startswith(b'{"messages": ')
    assert client.fine_tuning.jobs.retrieve(old.facts["job"]).status == "succeeded"
    for gone in (models["gone"], models["others_kept"]):
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve(gone)


def test_receipts_are_the_same_bytes_and_verify(old: Old) -> None:
    assert len(old.facts["receipts"]) == 2
    for deletion, text in old.facts["receipts"].items():
        path = f"/v1/deletions/{deletion}/receipt"
        assert old.server.get(path, key=old.facts["owner"]).body == text.encode()
        assert receipt.verify(text.encode(), old.facts["log_key"].encode()).disclosed is not None


def test_what_was_kept_can_be_deleted_with_proof(old: Old) -> None:
    client = old.server.client(old.facts["owner"])
    model = old.facts["models"]["kept"]
    assert client.models.delete(model).deleted
    newest = old.server.get("/v1/deletions", key=old.facts["owner"]).json["data"]
    assert isinstance(newest, list)
    (deletion,) = [one["id"] for one in newest if one.get("model") == model]
    text = old.server.get(f"/v1/deletions/{deletion}/receipt", key=old.facts["owner"]).body
    disclosed = receipt.verify(text, old.facts["log_key"].encode()).disclosed
    assert disclosed is not None
    assert disclosed.artifact_id == model
