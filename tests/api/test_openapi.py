"""`/openapi.json` and `/docs`: they tell every route, who may ask, and what real answers hold."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.routing import Route
from tests.api.test_authorization import FILE, GOLDEN, UNROUTED, UPLOAD
from tests.support import (
    administration,
    fine_tuning_rows,
    golden_authorization,
    uploading,
    webhook_rows,
)
from tests.support.acts import RULE
from tests.support.servers import LOCAL_BASE, Server
from tests.support.uploading import Field

from tunewarden.api import docs_page, openapi, webhook_schemas
from tunewarden.api.administration import described, routers, usage_described
from tunewarden.api.direct import Direct
from tunewarden.api.routes import ROUTERS
from tunewarden.api.schemas import ErrorAnswer, Health
from tunewarden.api.server import Server as Application
from tunewarden.app import open_app, serving
from tunewarden.config import Config
from tunewarden.finetuning.states import State
from tunewarden.gateway.inference import ROUTES

METHODS = {"get", "post", "delete"}
OPERATIONS = GOLDEN.parent / "operations.txt"


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    config = Config(data=tmp_path_factory.mktemp("document") / "data")
    application = Application(serving(open_app(config, migrate=True)))
    return openapi.document(application._routes.routes, docs_are_open=False)


def _told(document: dict[str, Any]) -> set[str]:
    return {f"{method.upper()} {path}" for path, of in document["paths"].items() for method in of}


def _path(text: str) -> str:
    return text.replace("{path:path}", "{path}")


def test_the_document_tells_every_route_and_no_other(document: dict[str, Any]) -> None:
    routed = {f"POST {path}" for path in ROUTES}
    for router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, Route)
            routed |= {f"{method} {_path(route.path)}" for method in route.methods or ()}
    assert _told(document) == routed
    assert openapi.ROUTED.keys() | {f"POST {path}" for path in openapi.INFERENCE} == routed


def test_every_operation_has_its_own_plain_id(document: dict[str, Any]) -> None:
    ids = [one["operationId"] for of in document["paths"].values() for one in of.values()]
    assert len(ids) == len(set(ids))
    assert [one for one in ids if not re.fullmatch("[a-z]+([A-Z][a-z]+)+", one)] == []


def test_no_operation_has_changed_its_id(
    document: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """A method that a generated client has under one name must not get another: lines are only added."""
    listed = "".join(
        f"{method.upper()} {path} {one['operationId']}\n"
        for path, of in sorted(document["paths"].items())
        for method, one in sorted(of.items())
    )
    if request.config.getoption("--update-golden"):
        OPERATIONS.write_text(listed, "utf-8")
    assert listed == OPERATIONS.read_text("utf-8")


def test_the_document_tells_who_needs_a_key_as_the_authorization_table_does(
    document: dict[str, Any],
) -> None:
    public, _ = GOLDEN.read_text("utf-8").split("[with a key]\n")
    open_ones = set(re.findall(r"^(?:GET|POST) \S+", _path(public), re.MULTILINE))
    others = {row.route for row in golden_authorization.read(GOLDEN)} - {*UNROUTED}
    administering = {*described.ROUTED}
    assert _told(document) == open_ones | others | administering
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            is_open = f"{method.upper()} {path}" in open_ones
            assert operation["security"] == ([] if is_open else [{"key": []}])


def test_many_deletions_tell_each_status_that_refuses_them(
    document: dict[str, Any], server: Server
) -> None:
    told = document["paths"]["/v1/deletions"]["post"]["responses"]
    assert {*told} == {"200", "400", "401", "403", "409", "412", "413", "503", "default"}
    path, headers = "/v1/deletions", {"if-match": '"another plan"'}
    everything = json.dumps({"filter": {"older_than_days": 1}}).encode()
    answers = [
        server.post(path, {}),
        server.request("POST", path, body=b"{}"),
        server.post(path, {"ids": ["ft:x"]}, key=server.make_key("reader")),
        server.request("POST", path, key=server.owner_key, headers=headers, body=everything),
        server.request("POST", path, key=server.owner_key, body=b" " * 1_100_000),
    ]
    assert [answer.status for answer in answers] == [400, 401, 403, 412, 413]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert named <= document["components"]["schemas"].keys()
    assert "HTTPValidationError" not in text
    assert all(method in METHODS for of in document["paths"].values() for method in of)


def test_the_page_tells_every_route_and_loads_nothing(document: dict[str, Any]) -> None:
    page = docs_page.page(document)
    for route in _told(document):
        method, path = route.split()
        assert f"<b>{method}</b> <code>{path}</code>" in page
    for name in document["components"]["schemas"]:
        assert f'id="{name}"' in page
    assert not re.search(r"<script|<link|<img|src=|https?://|@import|url\(", page)


def test_the_page_escapes_what_it_shows(document: dict[str, Any]) -> None:
    title = {"title": "<script>", "version": "&"}
    assert "<h1>&lt;script&gt; &amp;</h1>" in docs_page.page({**document, "info": title})


def test_both_are_served_behind_a_key(server: Server, document: dict[str, Any]) -> None:
    assert server.get("/openapi.json", key=None).status == 401
    assert server.get("/docs", key=None).status == 401
    found = server.get("/openapi.json", key=server.owner_key)
    assert found.json == json.loads(json.dumps(document))
    page = server.get("/docs", key=server.owner_key)
    assert dict(page.headers)["content-type"].startswith("text/html")
    assert dict(page.headers)["content-security-policy"] == docs_page.POLICY
    assert page.body.decode() == docs_page.page(document)


@pytest.mark.parametrize(("docs_are_open", "status"), [(True, 200), (False, 401)])
def test_both_are_open_if_the_setting_says_so(
    tmp_path: Path, docs_are_open: bool, status: int
) -> None:
    config = Config(data=tmp_path / "data", docs_are_open=docs_are_open)
    application = Direct(Application(serving(open_app(config, migrate=True))))
    for path in ("/openapi.json", "/docs"):
        assert application.ask("GET", path, {}).status == status
    assert application.ask("GET", "/v1/models", {}).status == 401
    application.close()


def test_real_answers_are_as_the_document_tells(server: Server) -> None:
    key, app = server.owner_key, server.app
    model, gone = server.make_model().id, server.make_model().id
    deleted = server.request("DELETE", f"/v1/models/{gone}", key=key)
    file, erased = (uploading.post(server, "/v1/files", *FILE).json["id"] for _ in range(2))
    ended = server.request("DELETE", f"/v1/files/{erased}?cascade=models", key=key)
    job = fine_tuning_rows.make_job(app, key, state=State.SUCCEEDED)
    fine_tuning_rows.tell(app, job, "hello")
    fine_tuning_rows.make_checkpoint(app, key, job, 3, {})
    project, _ = fine_tuning_rows.make_project(app)
    names = {
        "model_id": model,
        "file_id": str(file),
        "job_id": job,
        "deletion_id": dict(deleted.headers)["tunewarden-deletion"],
        "case_id": dict(ended.headers)["tunewarden-deletion-case"],
    }
    answers: dict[str, Any] = {
        "DELETE /v1/models/{model_id}": deleted.json,
        "DELETE /v1/files/{file_id}": ended.json,
    }
    route = f"{openapi.PERMISSIONS}"
    answers[f"POST {route}"] = server.post(
        route.format(model_id=model), {"project_ids": [project]}
    ).json
    upload = server.post("/v1/uploads", UPLOAD).json
    answers["POST /v1/uploads"] = upload
    place = f"/v1/uploads/{upload['id']}"
    part = uploading.post(server, f"{place}/parts", Field("data", b"", "upload")).json
    answers["POST /v1/uploads/{upload_id}/parts"] = part
    answers["POST /v1/uploads/{upload_id}/complete"] = server.post(
        f"{place}/complete", {"part_ids": [part["id"]]}
    ).json
    held = server.post("/v1/holds", {"model": server.make_model().id, "reason": "documented"})
    answers["POST /v1/holds"], names["hold_id"] = held.json, held.json["id"]
    named = server.post("/v1/aliases", {"name": "documented", "model": server.make_model().id})
    answers["POST /v1/aliases"], names["name"] = named.json, "documented"
    rule = server.post("/v1/retention/rules", RULE)
    answers["POST /v1/retention/rules"], names["rule_id"] = rule.json, rule.json["id"]
    changed = server.post(f"/v1/models/{server.make_model().id}", {"metadata": {"a": "b"}})
    answers["POST /v1/models/{model_id}"] = changed.json
    names["webhook_endpoint_id"] = webhook_rows.make_endpoint(app, key)
    delivery = webhook_rows.make_delivery(app, key, names["webhook_endpoint_id"])
    answers |= _webhook_answers(server, names["webhook_endpoint_id"], delivery)
    admin = administration.make_admin_key(app)
    names |= administration.names(server, admin)
    for route, one in openapi.ROUTED.items():
        method, path = route.split()
        if method == "GET" and not isinstance(one.answer, str | None):
            is_admins = path.startswith(routers.PREFIXES)
            query = "?start_time=0" if path.startswith(usage_described.USAGE) else ""
            reply = server.get(path.format(**names) + query, key=admin if is_admins else key)
            assert reply.status == 200, route
            answers[route] = reply.json
    for route, answer in answers.items():
        msgspec.convert(answer, type=openapi.ROUTED[route].answer)
    msgspec.convert(server.get("/v1/nothing", key=key).json, type=ErrorAnswer)
    assert len(answers) >= 20
    assert any(one["id"] == LOCAL_BASE for one in answers["GET /v1/models"]["data"])
    assert answers[f"GET {openapi.JOBS}/{{job_id}}/checkpoints"]["data"]
    with pytest.raises(msgspec.ValidationError):  # the control: a field that is not told
        msgspec.convert({**answers["GET /healthz"], "x": 1}, type=Health)


def _webhook_answers(server: Server, endpoint: str, delivery: str) -> dict[str, Any]:
    """What changes an endpoint answers, by route."""
    route = webhook_schemas.ENDPOINT
    path = route.format(webhook_endpoint_id=endpoint)
    again = f"/deliveries/{delivery}/redeliver"
    return {
        f"POST {route}": server.post(path, {"name": "documented"}).json,
        f"POST {route}/rotate_secret": server.post(f"{path}/rotate_secret", {}).json,
        f"POST {route}/deliveries/{{delivery_id}}/redeliver": server.post(path + again, {}).json,
    }


def test_a_receipt_has_the_media_type_that_the_document_says(
    server: Server, document: dict[str, Any]
) -> None:
    model = server.make_model()
    reply = server.request("DELETE", f"/v1/models/{model.id}", key=server.owner_key)
    path = "/v1/deletions/{deletion_id}/receipt"
    deletion = dict(reply.headers)["tunewarden-deletion"]
    receipt = server.get(path.format(deletion_id=deletion), key=server.owner_key)
    told = document["paths"][path]["get"]["responses"]["200"]["content"]
    assert list(told) == [dict(receipt.headers)["content-type"]]
