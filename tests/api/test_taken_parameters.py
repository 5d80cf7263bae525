"""What changes something refuses a query parameter or a precondition that it would ignore, and changes nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from starlette.routing import Route
from tests.support import administration
from tests.support.bulk import ask, old_model
from tests.support.servers import Server, WithoutTorch, serving

from tunewarden.api.administration.routers import PREFIXES
from tunewarden.api.routes import PUBLIC, ROUTERS
from tunewarden.ids import token


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("parameters") / "data"
    with serving(data, local_base=True, kind=WithoutTorch) as running:
        yield running


def _refused(server: Server, method: str, path: str, headers: dict[str, str]) -> dict[str, Any]:
    reply = server.request(method, path, key=server.owner_key, headers=headers)
    assert reply.status == 400, reply.body
    error: dict[str, Any] = reply.json["error"]
    assert error["code"] == "unknown_parameter"
    return error


def test_a_misspelled_dry_run_deletes_nothing_and_is_told_the_right_name(server: Server) -> None:
    model = server.make_model().id
    client = server.client(max_retries=0)
    with pytest.raises(openai.BadRequestError) as refused:
        client.models.delete(model, extra_query={"dry-run": True})
    assert refused.value.param == "dry-run"
    assert "dry_run, force, If-Match" in refused.value.message
    with pytest.raises(openai.BadRequestError):
        client.models.delete(model, extra_headers={"If-None-Match": "*"})
    assert client.models.retrieve(model).id == model
    assert client.models.delete(model, extra_query={"force": False}).deleted


def test_a_run_of_a_rule_only_previews_when_it_is_asked_to_and_ignores_no_precondition(
    server: Server,
) -> None:
    suffix = f"s{token(8)}"
    models = {old_model(server, 100, suffix) for _ in range(3)}
    body = {"action": "delete", "suffix": suffix, "older_than_days": 90, "notice_days": 0}
    rule = server.post("/v1/retention/rules", body).json["id"]
    client = server.client(max_retries=0)
    said, summary = ask(client, f"/retention/rules/{rule}/run", dry_run=True)
    assert {one["model"] for one in said} == models
    assert summary["dry_run"]
    path = f"/v1/retention/rules/{rule}/run"
    assert _refused(server, "POST", path, {"If-None-Match": "*"})["param"] == "If-None-Match"
    changed = server.request("POST", path, key=server.owner_key, headers={"If-Match": '"none"'})
    assert changed.status == 412
    assert _refused(server, "POST", f"{path}?dryrun=true", {})["param"] == "dryrun"
    assert models <= {one.id for one in client.models.list()}


def test_an_alias_is_not_deleted_by_who_asks_for_a_dry_run_or_has_a_precondition(
    server: Server,
) -> None:
    name = f"a{token(8)}"
    server.post("/v1/aliases", {"name": name, "model": server.make_model().id})
    path = f"/v1/aliases/{name}"
    assert _refused(server, "DELETE", f"{path}?dry_run=true", {})["param"] == "dry_run"
    assert _refused(server, "DELETE", path, {"If-Match": '"none"'})["param"] == "If-Match"
    assert server.get(path, key=server.owner_key).status == 200


def test_every_change_refuses_what_it_does_not_take(server: Server) -> None:
    """Each route that needs a key, so also the next one; nothing is looked for before."""
    admin_key = administration.make_admin_key(server.app)
    asked = 0
    for route in (one for router in ROUTERS for one in router.routes):
        assert isinstance(route, Route)
        path = route.path.replace("{", "").replace("}", "")
        for method in {"DELETE", "POST"} & (route.methods or set()):
            if PUBLIC.fullmatch(path):
                continue
            key = admin_key if path.startswith(PREFIXES) else server.owner_key
            reply = server.request(method, f"{path}?dry-run=true", key=key)
            assert (reply.status, reply.json["error"]["param"]) == (400, "dry-run"), route
            asked += 1
    assert asked > 50
