"""Every page of the console, for every kind of visitor, on every kind of target: a golden table beside the API's.

After a change that is meant: `pytest tests/console/test_authorization.py --update-golden`, and read the difference.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.api.test_authorization import FILE
from tests.support import administration, fine_tuning_rows, uploading, webhook_rows
from tests.support.console import Visitor
from tests.support.servers import LOCAL_BASE, Server

from tunewarden.console.pages import PAGES
from tunewarden.console.paths import OpenPage
from tunewarden.finetuning.states import State
from tunewarden.identity.policy import ProjectRole

GOLDEN = Path(__file__).parent.parent / "golden" / "console_authorization.txt"
HEADER = """\
# Who may open which page of the console, as a status code: each page, on each kind of target, for each kind of visitor.
# 303 without a session: led to the sign-in. Written by: pytest tests/console/test_authorization.py --update-golden

"""
UNKNOWN = f"ft:{LOCAL_BASE}:my-org::00000000"
ROLES = ("nobody", "owner", "admin", "member", "viewer", "others", "read only")
Row = tuple[str, str, tuple[int, ...]]


@pytest.fixture(scope="module")
def visitors(server: Server) -> dict[str, Visitor]:
    keys = {
        "owner": server.owner_key,
        "member": server.make_key("reader", project_role=ProjectRole.MEMBER),
        "viewer": server.make_key("reader"),
        "others": server.make_key("owner", organization="others"),
        "read only": server.make_key("owner", "api.all.read"),
    }
    admin = Visitor(server, server.owner_key)
    admin.administer(administration.make_admin_key(server.app))
    others = {role: Visitor(server, key) for role, key in keys.items()}
    return {"nobody": Visitor(server), "admin": admin, **others}


def _project_with_members(server: Server) -> str:
    project, _ = fine_tuning_rows.make_project(server.app)
    admin = administration.make_admin_key(server.app)
    member = {"user_id": administration.make_user(server.app, "shown"), "role": "member"}
    for what, fields in (("users", member), ("service_accounts", {"name": "shown"})):
        made = administration.ask(server, "POST", f"/projects/{project}/{what}", admin, fields)
        assert made.status == 200, made.body
    return project


@pytest.fixture(scope="module")
def targets(server: Server) -> dict[str, list[tuple[str, str]]]:
    """What stands for each name in a path: (kind of target, value). What changes something gets what is not there."""
    app, key = server.app, server.owner_key
    model, gone = server.make_model().id, server.make_model().id
    deleted = server.request("DELETE", f"/v1/models/{gone}", key=key)
    file, other = (uploading.post(server, "/v1/files", *FILE).json for _ in range(2))
    upload = {"filename": "a.jsonl", "mime_type": "text/plain", "purpose": "fine-tune", "bytes": 9}
    assert server.post("/v1/uploads", upload).status == 200
    named = server.make_model().id
    alias = server.post("/v1/aliases", {"name": "shown", "model": named}).json["name"]
    rule = server.post("/v1/retention/rules", {"action": "archive", "older_than_days": 9}).json
    erased = server.request("DELETE", f"/v1/files/{other['id']}?cascade=models", key=key)
    return {
        "model_id": [("own", model), ("unknown", UNKNOWN)],
        "deletion_id": [
            ("own", str(deleted.header("tunewarden-deletion"))),
            ("unknown", "del_nobody"),
        ],
        "job_id": [
            ("own", fine_tuning_rows.make_job(app, key, state=State.SUCCEEDED)),
            ("unknown", "ftjob-nobody"),
        ],
        "file_id": [("own", str(file["id"])), ("unknown", "file-nobody")],
        "case_id": [
            ("own", str(erased.header("tunewarden-deletion-case"))),
            ("unknown", "case_nobody"),
        ],
        "endpoint_id": [
            ("own", webhook_rows.make_endpoint(app, key)),
            ("unknown", "whe_nobody"),
        ],
        "rule_id": [("own", str(rule["id"])), ("unknown", "rule_nobody")],
        "project_id": [
            ("own", _project_with_members(server)),
            ("unknown", "proj_nobody"),
        ],
        "user_id": [("own", fine_tuning_rows.caller_of(app, key).user_id), ("unknown", "user-0")],
        "invite_id": [("unknown", "invite-nobody")],
        "hold_id": [("unknown", "hold_nobody")],
        "upload_id": [("unknown", "upload_nobody")],
        "key_id": [("unknown", "adminkey_nobody")],
        "session_id": [("unknown", "session_nobody")],
        "alias": [("own", alias), ("unknown", "nobody")],
        "name": [("own", "console.css"), ("unknown", "nothing.css")],
        "token": [("unknown", "nothing")],
    }


# Of forms: they say nothing that could be done, so that whoever may do it is told so (400).
EMPTY_FORM = {"nothing": ""}
# Each ends the session that the next row needs.
ONCE = ("POST /console/sign-out", "POST /console/administration/end")


def _rows(visitors: dict[str, Visitor], targets: dict[str, list[tuple[str, str]]]) -> Iterator[Row]:
    for page in PAGES:
        route = f"{page.method} {page.path}"
        if route in ONCE:
            continue
        names = list(page.route.param_convertors)
        for target, value in targets[names[0]] if names else [("-", "")]:
            # The first name is the target; what is below it is not there, in forms that change something.
            values = [value, *("nobody" for _ in names[1:])][: len(names)]
            path = page.path
            for name, one in zip(names, values, strict=True):
                path = path.replace(f"{{{name}}}", one)
            yield route, target, tuple(_status(visitors[one], page.method, path) for one in ROLES)


def _status(visitor: Visitor, method: str, path: str) -> int:
    cookie = visitor.cookie
    reply = visitor.get(path) if method == "GET" else visitor.post(path, EMPTY_FORM)
    visitor.cookie = cookie
    return reply.status


def test_every_cell_is_as_the_golden_table_says(
    visitors: dict[str, Visitor],
    targets: dict[str, list[tuple[str, str]]],
    request: pytest.FixtureRequest,
) -> None:
    rows = list(_rows(visitors, targets))
    lines = [f"{'page':<48} {'target':<8} " + " ".join(f"{one:<9}" for one in ROLES).rstrip()]
    for route, target, found in rows:
        statuses = " ".join(f"{one:<9}" for one in found).rstrip()
        lines.append(f"{route:<48} {target:<8} {statuses}")
    table = HEADER + "\n".join(lines) + "\n"
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(table, "utf-8")
    assert table == GOLDEN.read_text("utf-8")
    opened = {f"{page.method} {page.path}" for page in PAGES if isinstance(page, OpenPage)}
    for route, _, (nobody, *others) in rows:
        if route not in opened:
            # A form without a session is refused, a page leads to the sign-in; nothing else is said.
            assert nobody == (303 if route.startswith("GET") else 401), route
        assert 500 not in others, route


def test_who_belongs_to_another_organization_sees_of_this_what_is_unknown_to_all(
    visitors: dict[str, Visitor], targets: dict[str, list[tuple[str, str]]]
) -> None:
    """Byte for byte the page of what never was, but for its id (I9)."""
    for name, path in (
        ("model_id", "/console/models/{}"),
        ("deletion_id", "/console/deletions/{}"),
        ("alias", "/console/aliases/{}"),
        ("job_id", "/console/jobs/{}"),
        ("file_id", "/console/files/{}"),
        ("case_id", "/console/cases/{}"),
        ("endpoint_id", "/console/webhooks/{}"),
        ("rule_id", "/console/retention/{}"),
    ):
        (_, own), (_, unknown) = targets[name]
        assert visitors["owner"].get(path.format(own)).status == 200
        there, nowhere = (visitors["others"].get(path.format(one)) for one in (own, unknown))
        assert there.status == nowhere.status == 404
        assert there.body.replace(own.encode(), b"") == nowhere.body.replace(unknown.encode(), b"")
