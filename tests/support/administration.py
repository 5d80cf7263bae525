"""Admin keys of a server's organizations, and requests with them."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import openai
from tests.fakes.clock import HandClock
from tests.support import sdk_http
from tests.support.servers import ORGANIZATION, Reply, Server

from tunewarden import audit
from tunewarden.app import App, audit_digests
from tunewarden.identity import admin_keys, organizations, users
from tunewarden.identity.policy import Role

ROOT = "/v1/organization"


def make_admin_key(app: App, organization: str = ORGANIZATION, *, user_id: str = "") -> str:
    """Make an admin key of a user, or of a new Owner of an organization, which may be new."""
    with app.database.write() as tx:
        owner = organizations.find_or_create(tx, organization)
        chosen = user_id or make_user_in(tx, owner.id, "administrator", role=Role.OWNER)
        return admin_keys.create(
            tx, organization_id=owner.id, user_id=chosen, name="tests", actor=audit.SERVER
        )[1]


def make_user(
    app: App,
    name: str,
    *,
    email: str | None = None,
    role: Role = Role.READER,
    organization: str = ORGANIZATION,
) -> str:
    """Add a person to an organization, and return the id."""
    with app.database.write() as tx:
        owner = organizations.find_or_create(tx, organization)
        return make_user_in(tx, owner.id, name, email=email, role=role)


def make_user_in(
    tx: Any, organization_id: str, name: str, *, email: str | None = None, role: Role
) -> str:
    return users.add(tx, organization_id, name=name, email=email, role=role, actor=audit.SERVER)


def make_key_elsewhere(server: Server) -> str:
    """Make a key of an Owner in another project of the organization."""
    admin = make_admin_key(server.app)
    project = ask(server, "POST", "/projects", admin, {"name": "elsewhere"}).json["id"]
    user = make_user(server.app, "elsewhere", role=Role.OWNER)
    fields = {"user_id": user, "name": "elsewhere"}
    made = ask(server, "POST", f"/projects/{project}/api_keys", admin, fields)
    return str(made.json["value"])


def make_digest(app: App) -> None:
    """Make a digest of the audit log, as the runner does on the next day."""
    another_day = HandClock()
    another_day.sleep(100 * 365 * 86_400)
    replace(audit_digests(app), clock=another_day).run()


def names(server: Server, key: str) -> dict[str, str]:
    """One object of each resource, by the name that paths have for its id."""
    make_digest(server.app)
    project = str(ask(server, "POST", "/projects", key, {"name": "documented"}).json["id"])
    user = make_user(server.app, "documented")
    ask(server, "POST", f"/projects/{project}/users", key, {"role": "member", "user_id": user})
    invite = {"email": f"{user.lower()}@example.com", "role": "reader"}
    made = ask(server, "POST", "/invites", key, invite).json
    account = ask(server, "POST", f"/projects/{project}/service_accounts", key, {"name": "a"}).json
    admin_key = ask(server, "POST", "/admin_api_keys", key, {"name": "documented"}).json["id"]
    return {
        "user_id": user,
        "project_id": project,
        "invite_id": str(made["id"]),
        "service_account_id": str(account["id"]),
        "api_key_id": str(account["api_key"]["id"]),
        "key_id": str(admin_key),
        "number": "1",
    }


def client(server: Server, key: str, **options: Any) -> openai.OpenAI:
    """The stock SDK with an admin key; it refuses what OpenAI's schema does not allow."""
    made = {"http_client": sdk_http.client(), "max_retries": 0, **options}
    return openai.OpenAI(
        base_url=server.url,
        api_key="unused",
        admin_api_key=key,
        _strict_response_validation=True,
        **made,
    )


def ask(
    server: Server, method: str, path: str, key: str | None, fields: object | None = None
) -> Reply:
    """Send a request below ROOT."""
    body = None if fields is None else json.dumps(fields).encode()
    headers = {} if body is None else {"content-type": "application/json"}
    return server.request(method, f"{ROOT}{path}", key=key, headers=headers, body=body)


def line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return f"    {' | '.join(padded)}".rstrip()
