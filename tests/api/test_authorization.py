"""Every route but those of administration, for every kind of caller, on every kind of target: a golden table.

After a change that is meant: `pytest tests/api/test_authorization.py --update-golden`, and read the
difference.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from starlette.routing import Route
from tests.support import (
    administration,
    authorized_routes,
    bases,
    fine_tuning_rows,
    retention_rows,
    uploading,
)
from tests.support import golden_authorization as golden
from tests.support.servers import LOCAL_BASE, Server
from tests.support.uploading import Field

from tunewarden.api.administration.routers import ROUTERS as ADMINISTRATION
from tunewarden.api.routes import PUBLIC, ROUTERS
from tunewarden.finetuning.states import State
from tunewarden.gateway.inference import ROUTES
from tunewarden.identity.policy import SCOPES, ProjectRole, ServiceAccountRole

GOLDEN = Path(__file__).parent.parent / "golden" / "authorization.txt"
IN = 0
UNKNOWN = f"ft:{LOCAL_BASE}:my-org::00000000"
PUBLIC_EXAMPLES = {
    "/": "/",
    "/health": "/health",
    "/healthz": "/healthz",
    "/readyz": "/readyz",
    "/log/checkpoint": "/log/checkpoint",
    "/log/hand-overs": "/log/hand-overs",
    "/log/tile/{path:path}": "/log/tile/0/999",
    "/.well-known/tunewarden-log-key": "/.well-known/tunewarden-log-key",
    "/invites/{token}": "/invites/nothing",
}
# Whose link is not valid is told so (404); tests/api/test_invites.py has the others.
PUBLIC_POSTS = {"/invites/{token}": "/invites/nothing"}
# No route: a key is asked for all the same, so that a route that is forgotten is never open.
UNROUTED = ("GET /v1/nothing", "POST /v1/threads", "GET /v1")

FILE = (Field("purpose", b"user_data"), Field("file", b"x", "a.txt"))
OF_THE_PROJECT = ("/files", "/uploads", "/jobs", "/permissions")
SCOPE_TO_DELETE = {
    "{permission_id}": "api.fine_tuning.checkpoints.write",
    "{webhook_endpoint_id}": "api.webhooks.write",
}
PROTECT = {"protected": True}
# What is the organization's: whoever deletes it first, leaves none for the others.
ONCE = ("DELETE /v1/aliases", "DELETE /v1/retention")
UPLOAD = {"bytes": 0, "filename": "a.txt", "mime_type": "text/plain", "purpose": "user_data"}

Row = tuple[str, str, Callable[[str | None], int]]


@pytest.fixture(scope="module")
def callers(server: Server) -> dict[str, str | None]:
    revoked = server.make_key("owner")
    server.revoke_key(revoked)
    owner = server.owner_key
    scoped = {scope: server.make_key("owner", scope) for scope in sorted(SCOPES)}
    garbage = f"{owner[:-1]}{'a' if owner[-1] != 'a' else 'b'}"
    expired = server.make_key("owner")
    key_id = f"key_{expired.split('-')[2]}"
    with server.app.database.write() as tx:
        tx.run("UPDATE api_keys SET expires_at = 1 WHERE id = :id", id=key_id)
    invalid = {"no key": None, "garbage": garbage, "revoked": revoked, "expired": expired}
    admin = administration.make_admin_key(server.app)
    return {
        **invalid,
        "owner": owner,
        "member": server.make_key("reader", project_role=ProjectRole.MEMBER),
        "viewer": server.make_key("reader"),
        "outside": _outside(server, admin),
        **{f"account {role}": _account(server, admin, role) for role in ServiceAccountRole},
        "admin key": admin,
        **scoped,
    }


def _default_project(server: Server, admin: str) -> str:
    listed = administration.ask(server, "GET", "/projects", admin).json["data"]
    return str(next(one["id"] for one in listed if one["is_default"]))


def _outside(server: Server, admin: str) -> str:
    """Make a key in the default project of a reader who is not in that project any more."""
    project = _default_project(server, admin)
    user = administration.make_user(server.app, "outside")
    members = f"/projects/{project}/users"
    administration.ask(server, "POST", members, admin, {"user_id": user, "role": "member"})
    fields = {"user_id": user, "name": "outside"}
    made = administration.ask(server, "POST", f"/projects/{project}/api_keys", admin, fields)
    administration.ask(server, "DELETE", f"{members}/{user}", admin)
    return str(made.json["value"])


def _account(server: Server, admin: str, role: str) -> str:
    accounts = f"/projects/{_default_project(server, admin)}/service_accounts"
    made = administration.ask(server, "POST", accounts, admin, {"name": role}).json
    administration.ask(server, "POST", f"{accounts}/{made['id']}", admin, {"role": role})
    return str(made["api_key"]["value"])


def _rows(server: Server) -> Iterator[Row]:
    yield from _rows_with(server, server.make_key("owner", organization="others"))
    for route, target, ask in _rows_with(server, administration.make_key_elsewhere(server)):
        if target == "foreign" and not route.startswith(ONCE):
            yield route, "elsewhere", ask


def _rows_with(server: Server, other: str) -> Iterator[Row]:
    """Yield each route on each kind of target; what is foreign is made with the key `other`."""
    foreign = server.make_model(key=other).id
    kept = server.make_model().id
    targets = {"own": kept, "foreign": foreign, "unknown": UNKNOWN, "base": LOCAL_BASE}

    def ask(method: str, path: str) -> Callable[[str | None], int]:
        return lambda key: server.request(method, path, key=key).status

    yield "GET /v1/models", "-", ask("GET", "/v1/models")
    for target, model_id in targets.items():
        yield "GET /v1/models/{model_id}", target, ask("GET", f"/v1/models/{model_id}")
        path = f"/v1/models/{model_id}/engines"
        yield "GET /v1/models/{model_id}/engines", target, ask("GET", path)
        path = f"/v1/models/{model_id}/content"
        yield "GET /v1/models/{model_id}/content", target, ask("GET", path)
        path = f"/v1/models/{model_id}/usage"
        yield "GET /v1/models/{model_id}/usage", target, ask("GET", path)
        path = f"/v1/models/{model_id}/lineage"
        yield "GET /v1/models/{model_id}/lineage", target, ask("GET", path)
        path = f"/v1/models/{model_id}/deletion_plan"
        yield "GET /v1/models/{model_id}/deletion_plan", target, ask("GET", path)
    for target, owner in (("own", server.owner_key), ("foreign", other)):
        yield "DELETE /v1/models/{model_id}", target, partial(_delete_a_fresh_one, server, owner)
    for target in ("unknown", "base"):
        path = f"/v1/models/{targets[target]}"
        yield "DELETE /v1/models/{model_id}", target, ask("DELETE", path)
    for target, base in (("base", LOCAL_BASE), ("unknown", "nobody")):
        yield "POST /v1/models", target, partial(_import, server, base)
    for target, model_id in targets.items():
        where = f"/v1/models/{model_id}"
        yield "POST /v1/models/{model_id}", target, partial(_json, server, where, PROTECT)
    yield from _hold_rows(server, other, ask)
    yield from _alias_rows(server, other, ask)
    yield from authorized_routes.of_webhooks(server, other, ask)
    yield from _deletion_rows(server, other, ask)
    yield from retention_rows.rows(server, other, ask, partial(_json, server))
    yield from _file_rows(server, other, ask)
    yield from _job_rows(server, other, ask)
    yield from _permission_rows(server, other, ask)
    yield from authorized_routes.of_responses(ask)
    for path in sorted(ROUTES):
        for target, model_id in targets.items():
            yield f"POST {path}", target, partial(_infer, server, path, model_id)
    yield "POST /v1/console/links", "-", ask("POST", "/v1/console/links")
    for path in ("/openapi.json", "/docs"):
        yield f"GET {path}", "-", ask("GET", path)
    for route in UNROUTED:
        yield route, "no route", ask(*route.split())


def _alias_rows(
    server: Server, other: str, ask: Callable[[str, str], Callable[[str | None], int]]
) -> Iterator[Row]:
    aliases = "/v1/aliases"
    models = {"own": server.make_model().id, "foreign": server.make_model(key=other).id}
    for target, key in {"own": None, "foreign": other}.items():
        # Once for each organization: those of the own one are there the second time.
        named = {"name": f"{target}-alias", "model": models[target]}
        assert server.post(aliases, named, key=key).status in {200, 409}
    yield f"GET {aliases}", "-", ask("GET", aliases)
    for target in (*models, "unknown"):
        where, route = f"{aliases}/{target}-alias", f"{aliases}/{{name}}"
        fields = {"model": models["own"]}
        # Its name is taken, which is said to those who may make aliases.
        taken = {"name": "own-alias", "model": models.get(target, UNKNOWN)}
        yield f"POST {aliases}", target, partial(_json, server, aliases, taken)
        yield f"GET {route}", target, ask("GET", where)
        yield f"POST {route}", target, partial(_json, server, where, fields)
    yield f"DELETE {aliases}/{{name}}", "foreign", ask("DELETE", f"{aliases}/foreign-alias")
    yield f"DELETE {aliases}/{{name}}", "unknown", ask("DELETE", f"{aliases}/unknown-alias")


def _hold_rows(
    server: Server, other: str, ask: Callable[[str, str], Callable[[str | None], int]]
) -> Iterator[Row]:
    holds = "/v1/holds"
    models = {"own": server.make_model().id, "foreign": server.make_model(key=other).id}
    placed = {
        "own": server.post(holds, {"model": models["own"], "reason": "x"}),
        "foreign": server.post(holds, {"model": models["foreign"], "reason": "x"}, key=other),
    }
    yield f"GET {holds}", "-", ask("GET", holds)
    for target, model in {**models, "unknown": UNKNOWN}.items():
        fields = {"model": model, "reason": "x"}
        yield f"POST {holds}", target, partial(_json, server, holds, fields)
    held = {target: answer.json["id"] for target, answer in placed.items()}
    for target, hold in {**held, "unknown": "hold_nobody"}.items():
        yield f"GET {holds}/{{hold_id}}", target, ask("GET", f"{holds}/{hold}")
        yield f"POST {holds}/{{hold_id}}/lift", target, ask("POST", f"{holds}/{hold}/lift")


def _deletion_rows(
    server: Server, other: str, ask: Callable[[str, str], Callable[[str | None], int]]
) -> Iterator[Row]:
    yield "GET /v1/deletions", "-", ask("GET", "/v1/deletions")
    own = server.client().models.with_raw_response.delete(server.make_model().id)
    mine = server.client(other).models.with_raw_response.delete(server.make_model(key=other).id)
    targets = {
        "own": own.headers["tunewarden-deletion"],
        "foreign": mine.headers["tunewarden-deletion"],
        "unknown": "del_nobody",
    }
    for target, model_id in {"own": server.make_model().id, "unknown": UNKNOWN}.items():
        # Answered by line: a foreign model's line is an unknown one's (test_bulk_deletions.py).
        where = "/v1/deletions?dry_run=true"
        yield "POST /v1/deletions", target, partial(_json, server, where, {"ids": [model_id]})
    cases = {
        "own": uploading.erase(server, server.owner_key),
        "foreign": uploading.erase(server, other),
        "unknown": "case_nobody",
    }
    yield "GET /v1/deletion_cases", "-", ask("GET", "/v1/deletion_cases")
    below = {"deletions/{deletion_id}": "/receipt", "deletion_cases/{case_id}": "/receipt /report"}
    for route, of in zip(below, (targets, cases), strict=True):
        for suffix, (target, one) in itertools.product(("", *below[route].split()), of.items()):
            path = f"/v1/{route.partition('/')[0]}/{one}{suffix}"
            yield f"GET /v1/{route}{suffix}", target, ask("GET", path)


def _file_rows(
    server: Server, other: str, ask: Callable[[str, str], Callable[[str | None], int]]
) -> Iterator[Row]:
    files, uploads = "/v1/files", "/v1/uploads"
    made = [uploading.post(server, files, *FILE, key=key) for key in (server.owner_key, other)]
    targets = {"own": made[0].json["id"], "foreign": made[1].json["id"], "unknown": "file-nobody"}
    yield f"GET {files}", "-", ask("GET", files)
    yield f"POST {files}", "-", lambda key: _form(server, files, FILE, key)
    search = {"texts": ["nobody was here"]}
    yield f"POST {files}/search", "-", partial(_json, server, f"{files}/search", search)
    for suffix in ("", "/content", "/deletion_plan", "/deletion_plan/report", "/lineage"):
        for target, file_id in targets.items():
            path = f"{files}/{file_id}{suffix}"
            yield f"GET {files}/{{file_id}}{suffix}", target, ask("GET", path)
    yield f"DELETE {files}/{{file_id}}", "own", partial(_delete_a_fresh_file, server)
    for target in ("foreign", "unknown"):
        yield f"DELETE {files}/{{file_id}}", target, ask("DELETE", f"{files}/{targets[target]}")
    yield f"POST {uploads}", "-", lambda key: _json(server, uploads, UPLOAD, key)
    owners = {"own": server.owner_key, "foreign": other, "unknown": None}
    for what in ("parts", "complete", "cancel"):
        for target, owner in owners.items():
            route = f"POST {uploads}/{{upload_id}}/{what}"
            yield route, target, partial(_use_an_upload, server, what, owner)


def _delete_a_fresh_file(server: Server, key: str | None) -> int:
    path = f"/v1/files/{uploading.post(server, '/v1/files', *FILE).json['id']}"
    status = server.request("DELETE", path, key=key).status
    left = server.get(path, key=server.owner_key).status
    assert left == (404 if status == 200 else 200), "refused means that nothing changed"
    return status


def _use_an_upload(server: Server, what: str, owner: str | None, key: str | None) -> int:
    upload = "upload_nobody"
    if owner is not None:
        upload = str(server.post("/v1/uploads", UPLOAD, key=owner).json["id"])
    path = f"/v1/uploads/{upload}/{what}"
    if what == "parts":
        return _form(server, path, [Field("data", b"", "upload")], key)
    if what == "complete":
        return _json(server, path, {"part_ids": []}, key)
    return server.request("POST", path, key=key).status


def _form(server: Server, path: str, fields: Sequence[Field], key: str | None) -> int:
    headers = {"content-type": uploading.CONTENT_TYPE}
    body = uploading.form(*fields)
    return server.request("POST", path, key=key, headers=headers, body=body).status


def _json(server: Server, path: str, fields: object, key: str | None) -> int:
    headers = {"content-type": "application/json"}
    body = json.dumps(fields).encode()
    return server.request("POST", path, key=key, headers=headers, body=body).status


def _job_rows(
    server: Server, other: str, ask: Callable[[str, str], Callable[[str | None], int]]
) -> Iterator[Row]:
    jobs = "/v1/fine_tuning/jobs"
    files = {"own": _upload(server, server.owner_key), "foreign": _upload(server, other)}
    for target, file_id in {**files, "unknown": "file-nobody"}.items():
        yield f"POST {jobs}", target, partial(_create_job, server, file_id)
    yield f"GET {jobs}", "-", ask("GET", jobs)
    # They have ended: who may change them is told so (400).
    ended = {"state": State.SUCCEEDED}
    targets = {
        "own": fine_tuning_rows.make_job(server.app, server.owner_key, **ended),
        "foreign": fine_tuning_rows.make_job(server.app, other, **ended),
        "unknown": "ftjob-nobody",
    }
    for method, suffix in (
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/metrics"),
        ("GET", "/checkpoints"),
        ("POST", "/cancel"),
        ("POST", "/pause"),
        ("POST", "/resume"),
    ):
        for target, job_id in targets.items():
            yield (
                f"{method} {jobs}/{{job_id}}{suffix}",
                target,
                ask(method, f"{jobs}/{job_id}{suffix}"),
            )
    for grader in ("run", "validate"):
        path = f"/v1/fine_tuning/alpha/graders/{grader}"
        yield f"POST {path}", "-", ask("POST", path)


def _permission_rows(
    server: Server, other: str, ask: Callable[[str, str], Callable[[str | None], int]]
) -> Iterator[Row]:
    project, _ = fine_tuning_rows.make_project(server.app)
    route = "/v1/fine_tuning/checkpoints/{model_id}/permissions"
    targets = {
        "own": server.make_model().id,
        "foreign": server.make_model(key=other).id,
        "unknown": UNKNOWN,
    }
    paths = {target: route.format(model_id=model_id) for target, model_id in targets.items()}
    for target, path in paths.items():
        yield f"POST {route}", target, partial(_share, server, path, project)
        yield f"GET {route}", target, ask("GET", path)
    delete = f"DELETE {route}/{{permission_id}}"
    yield delete, "own", partial(_unshare, server, paths["own"], project)
    for target in ("foreign", "unknown"):
        yield delete, target, ask("DELETE", f"{paths[target]}/cp_nobody")


def _upload(server: Server, key: str) -> str:
    """A file with too few examples: a job that reads it fails before it is in anybody's way."""
    file = ("few.jsonl", b'{"messages":[{"role":"assistant","content":"Hello"}]}')
    return server.client(key).files.create(file=file, purpose="fine-tune").id


def _create_job(server: Server, file_id: str, key: str | None) -> int:
    jobs = "/v1/fine_tuning/jobs"
    fields = json.dumps({"model": LOCAL_BASE, "training_file": file_id}).encode()

    def newest() -> object:
        listed = server.get(f"{jobs}?limit=1", key=server.owner_key).json["data"]
        assert isinstance(listed, list)
        return [job["id"] for job in listed]

    before = newest()
    status = server.request("POST", jobs, key=key, body=fields).status
    assert (newest() == before) is (status != 200), "refused means that nothing was made"
    return status


def _share(server: Server, path: str, project: str, key: str | None) -> int:
    fields = json.dumps({"project_ids": [project]}).encode()
    return server.request("POST", path, key=key, body=fields).status


def _unshare(server: Server, path: str, project: str, key: str | None) -> int:
    made = server.post(path, {"project_ids": [project]}).json["data"]
    assert isinstance(made, list)
    status = server.request("DELETE", f"{path}/{made[0]['id']}", key=key).status
    left = server.get(path, key=server.owner_key).json["data"]
    assert left == ([] if status == 200 else made), "refused means that nothing changed"
    return status


def _delete_a_fresh_one(server: Server, owner: str, key: str | None) -> int:
    model = server.make_model(key=owner)
    status = server.request("DELETE", f"/v1/models/{model.id}", key=key).status
    left = server.get(f"/v1/models/{model.id}", key=owner).status
    assert left == (404 if status == 200 else 200), "refused means that nothing changed"
    return status


def _import(server: Server, base: str, key: str | None) -> int:
    adapter = bases.adapter()
    body, content_type = bases.form(
        ("base", base.encode()),
        ("adapter_config", adapter.config),
        ("adapter_model", adapter.weights),
    )
    headers = {"content-type": content_type}
    return server.request("POST", "/v1/models", key=key, headers=headers, body=body).status


def _infer(server: Server, path: str, model_id: str, key: str | None) -> int:
    fields = {"model": model_id, "messages": [], "prompt": "Hello", "input": "Hello"}
    headers = {"content-type": "application/json"}
    body = json.dumps(fields).encode()
    reply = server.request("POST", path, key=key, headers=headers, body=body)
    is_ours = reply.status in {401, 403} or b'"model_not_found"' in reply.body
    return reply.status if is_ours else IN


def _table(server: Server, callers: dict[str, str | None]) -> str:
    lines = [golden.HEADER, "[public]"]
    for route, path in PUBLIC_EXAMPLES.items():
        assert PUBLIC.fullmatch(path)
        lines.append(f"GET {route:<42} {server.get(path).status}")
    for route, path in PUBLIC_POSTS.items():
        assert PUBLIC.fullmatch(path)
        lines.append(f"POST {route:<41} {_json(server, path, {'name': 'Ada'}, None)}")
    rows = []
    for route, target, ask in _rows(server):
        statuses = {name: ask(key) for name, key in callers.items()}
        found = {name: "in" if one == IN else str(one) for name, one in statuses.items()}
        rows.append(golden.Row(route, target, found))
    lines += ["", "[with a key]", *golden.table(rows)]
    return "\n".join(lines) + "\n"


def test_every_cell_is_as_the_golden_table_says(
    server: Server, callers: dict[str, str | None], request: pytest.FixtureRequest
) -> None:
    table = _table(server, callers)
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(table, "utf-8")
    assert table.splitlines() == GOLDEN.read_text("utf-8").splitlines()


def test_every_route_is_in_the_golden_table() -> None:
    routed = {f"POST {path}" for path in ROUTES}
    # Those of administration have a table of their own.
    for router in (router for router in ROUTERS if router not in ADMINISTRATION):
        for route in router.routes:
            assert isinstance(route, Route)
            routed |= {f"{method} {route.path}" for method in route.methods or ()}
    told = {row.route for row in golden.read(GOLDEN)}
    public = {f"GET {route}" for route in PUBLIC_EXAMPLES}
    public |= {f"POST {route}" for route in PUBLIC_POSTS}
    assert (told | public) - set(UNROUTED) == routed


def test_the_golden_table_keeps_the_promises() -> None:
    """Read it once more, by rule: a mistake that was written into the table is still one."""
    for row in golden.read(GOLDEN):
        method, found = row.route.split()[0], row.found
        assert {found[name] for name in golden.INVALID} == {"401"}, row
        assert found.keys() == {*golden.INVALID, *golden.UNRESTRICTED, *SCOPES}, row
        assert found["admin key"] == "403", row
        # Who may do nothing in the project is told no more than that.
        nothing = {found["outside"], found["account none"]}
        assert not nothing & {"200", "in"} or method == "GET", row
        statuses = set(found.values())
        if row.target in {"foreign", "unknown"} and method != "POST":
            assert statuses <= {"401", "403", "404"}, row
        # Models, holds and deletions are the organization's; files, uploads and jobs the project's.
        if row.target == "elsewhere" and any(what in row.route for what in OF_THE_PROJECT):
            assert statuses <= {"400", "401", "403", "404"}, row
        if (method, row.target) == ("DELETE", "own"):
            scope = SCOPE_TO_DELETE.get(row.route.rpartition("/")[2], "api.delete")
            allowed = {name for name, one in found.items() if one == "200"}
            assert allowed == {"owner", "api.all", scope}, row
        if (method, row.target) == ("DELETE", "base"):
            assert statuses == {"401", "403"}, row
        if row.target == "no route":  # what an admin key asks is refused before that is looked at
            assert statuses <= {"401", "403", "404", "405"}, row
            assert {found[name] for name in ("owner", "outside")} <= {"404", "405"}, row


def test_the_golden_table_can_be_read_in_a_review() -> None:
    lines = GOLDEN.read_text("utf-8").splitlines()
    assert max(map(len, lines)) <= golden.WIDTH_MAX
