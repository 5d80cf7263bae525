"""Every route of administration, for every kind of caller, on every kind of target: compared with a golden table.

After a change that is meant: `pytest tests/api/test_authorization_of_administration.py --update-golden`, and read the
difference.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.routing import Route
from tests.support import administration, servers
from tests.support.administration import ask
from tests.support.servers import Server

from tunewarden.api.administration.routers import ROUTERS
from tunewarden.identity.policy import Role

GOLDEN = Path(__file__).parent.parent / "golden" / "administration.txt"
OTHERS = "other-admins"
HEAD = ("target", "no valid key", "API key", "demoted", "admin key")
HEADER = """\
# Who may administer, as a status code: each route, on each kind of target, for each kind of caller.
#
# "no valid key": without a key, with an admin key that is garbage, and with one of an Owner who was removed. "API key": of an
# Owner. "demoted": an admin key of a user who is an Owner no more. Written by:
# pytest tests/api/test_authorization_of_administration.py --update-golden
"""
# Each asks one thing of a target with a key. What changes something does so on a target of its own.
Row = tuple[str, str, Callable[[str | None], int]]


@pytest.fixture(scope="module")
def callers(server: Server) -> dict[str, tuple[str | None, ...]]:
    app = server.app
    garbage = f"{administration.make_admin_key(app)[:-1]}_"
    gone, demoted = (
        administration.make_user(app, name, role=Role.OWNER) for name in ("gone", "demoted")
    )
    keys = [administration.make_admin_key(app, user_id=one) for one in (gone, demoted)]
    with app.database.write() as tx:
        tx.run("UPDATE users SET removed_at = 1 WHERE id = :id", id=gone)
        tx.run("UPDATE users SET role = 'reader' WHERE id = :id", id=demoted)
    return {
        "no valid key": (None, garbage, keys[0]),
        "API key": (server.owner_key,),
        "demoted": (keys[1],),
        "admin key": (administration.make_admin_key(app),),
    }


@dataclass(frozen=True, slots=True)
class Asking:
    """Requests to a server, as rows of the table."""

    server: Server

    def of(
        self, method: str, path: str, fields: dict[str, object] | None = None
    ) -> Callable[[str | None], int]:
        """Return what asks this; "{new}" in a field is a new person's id, each time."""

        def status_of(key: str | None) -> int:
            new = administration.make_user(self.server.app, "new") if fields else ""
            chosen = fields and {
                name: value.replace("{new}", new) if isinstance(value, str) else value
                for name, value in fields.items()
            }
            return ask(self.server, method, path, key, chosen).status

        return status_of

    def row(self, route: str, fields: dict[str, object] | None = None) -> Row:
        """Return the row of a route without a target."""
        method, path = route.split()
        return route, "-", self.of(method, path, fields)

    def each(
        self, route: str, targets: dict[str, str], fields: dict[str, object] | None = None
    ) -> Iterator[Row]:
        """Yield the rows of a route with these targets."""
        method, path = route.split()
        for target, one in targets.items():
            yield route, target, self.of(method, path.replace("{}", one), fields)


def _rows(server: Server) -> Iterator[Row]:
    """What a row asks for is there until its own route has taken it away."""
    asking = Asking(server)
    admin = administration.make_admin_key(server.app)
    other = administration.make_admin_key(server.app, OTHERS)
    people = {
        "own": administration.make_user(server.app, "somebody"),
        "foreign": administration.make_user(server.app, "somebody", organization=OTHERS),
        "unknown": "user_nobody",
    }
    projects = _made(server, "/projects", (admin, other), name="p") | {"unknown": "proj_nobody"}
    yield from _project_rows(asking, admin, people, projects)
    yield from _invite_rows(asking, admin, other)
    yield from _rows_of_keys(server, asking.of, projects)
    for path in ("/audit_logs", "/audit_logs/export", "/audit_logs/retention"):
        yield asking.row(f"GET {path}")
    yield asking.row("POST /audit_logs/retention", {"days": 90})
    administration.make_digest(server.app)
    yield from asking.each("GET /audit_logs/digests/{}", {"own": "1", "unknown": "9"})
    yield from asking.each("GET /audit_logs/digests/{}/events", {"own": "1"})
    yield asking.row("GET /deletion_settings")
    yield asking.row("POST /deletion_settings", {"in_use_minutes": None})
    for kind in ("completions", "embeddings"):
        yield f"GET /usage/{kind}", "-", asking.of("GET", f"/usage/{kind}?start_time=0")
    yield from asking.each("GET /projects/{}/rate_limits", projects)
    for target, one in projects.items():
        path = f"/projects/{one}/rate_limits/rl-{servers.LOCAL_BASE}"
        yield "POST /projects/{}/rate_limits/{}", target, asking.of("POST", path, {})
    yield from asking.each("GET /projects/{}/quota", projects)
    yield from asking.each("POST /projects/{}/quota", projects, {})
    yield from asking.each("POST /projects/{}/archive", projects)
    yield asking.row("GET /users")
    yield from asking.each("GET /users/{}", people)
    yield from asking.each("POST /users/{}", people, {"role": "reader"})
    yield from asking.each("DELETE /users/{}", people)


def _made(server: Server, path: str, keys: tuple[str, str], **fields: str) -> dict[str, str]:
    """Make one thing of one's own and one of others; return their ids."""
    made = [str(ask(server, "POST", path, key, fields).json["id"]) for key in keys]
    return dict(zip(("own", "foreign"), made, strict=True))


def _project_rows(
    asking: Asking, admin: str, people: dict[str, str], projects: dict[str, str]
) -> Iterator[Row]:
    yield asking.row("GET /projects")
    yield asking.row("POST /projects", {"name": "another"})
    yield from asking.each("GET /projects/{}", projects)
    yield from asking.each("POST /projects/{}", projects, {"name": "renamed"})
    users = f"/projects/{projects['own']}/users"
    yield from asking.each("GET /projects/{}/users", projects)
    member = {"role": "member", "user_id": "{new}"}
    yield from asking.each("POST /projects/{}/users", projects, {**member})
    somebody_elses = {**member, "user_id": people["foreign"]}
    yield "POST /projects/{}/users", "foreign", asking.of("POST", users, {**somebody_elses})
    ask(asking.server, "POST", users, admin, {**member, "user_id": people["own"]})
    for method, fields in (("GET", None), ("POST", {"role": "viewer"}), ("DELETE", None)):
        route = f"{method} /projects/{{}}/users/{{}}"
        chosen: dict[str, object] | None = None if fields is None else {**fields}
        for target, one in people.items():
            yield route, target, asking.of(method, f"{users}/{one}", chosen)
        # The person is one's own, the project is not.
        path = f"/projects/{projects['foreign']}/users/{people['own']}"
        yield route, "foreign", asking.of(method, path, chosen)


def _invite_rows(asking: Asking, admin: str, other: str) -> Iterator[Row]:
    targets = _made(
        asking.server, "/invites", (admin, other), email="table@example.com", role="reader"
    ) | {"unknown": "invite-nobody"}
    yield asking.row("GET /invites")
    yield asking.row("POST /invites", {"email": "{new}@example.com", "role": "reader"})
    yield from asking.each("GET /invites/{}", targets)
    yield from asking.each("DELETE /invites/{}", targets)


def _rows_of_keys(
    server: Server,
    of: Callable[[str, str, dict[str, object] | None], Callable[[str | None], int]],
    projects: dict[str, str],
) -> Iterator[Row]:
    """Service accounts, API keys and admin keys: what is deleted is made for each who asks."""
    admin = administration.make_admin_key(server.app)
    other = administration.make_admin_key(server.app, OTHERS)
    own, foreign = projects["own"], projects["foreign"]
    person = administration.make_user(server.app, "somebody", role=Role.OWNER)

    def account(project: str, key: str) -> str:
        path = f"/projects/{project}/service_accounts"
        return str(ask(server, "POST", path, key, {"name": "a"}).json["id"])

    def made(project: str, key: str) -> str:
        path = f"/projects/{project}/service_accounts/{account(project, key)}/api_keys"
        return str(ask(server, "POST", path, key).json["id"])

    def admin_key(_: str, key: str) -> str:
        fields = {"name": "a", "expires_in_seconds": 3600}
        return str(ask(server, "POST", "/admin_api_keys", key, fields).json["id"])

    made_of: tuple[tuple[str, dict[str, object]], ...] = (
        ("service_accounts", {"name": "a"}),
        ("api_keys", {"name": "a", "user_id": person}),
    )
    for what, fields in made_of:
        for target, project in projects.items():
            path = f"/projects/{project}/{what}"
            yield f"GET /projects/{{}}/{what}", target, of("GET", path, None)
            yield f"POST /projects/{{}}/{what}", target, of("POST", path, fields)
    yield "GET /admin_api_keys", "-", of("GET", "/admin_api_keys", None)
    yield "POST /admin_api_keys", "-", of("POST", "/admin_api_keys", {"name": "a"})
    for route, make in (
        ("/projects/{}/service_accounts/{}", account),
        ("/projects/{}/api_keys/{}", made),
        ("/admin_api_keys/{}", admin_key),
    ):
        asked = [("GET", "")]
        if "projects" in route:
            asked.append(("POST", ""))
        if route == "/projects/{}/api_keys/{}":
            asked += [("GET", "/rate_limit"), ("POST", "/rate_limit"), ("POST", "/rotate")]
        if "accounts" in route:
            asked.append(("POST", "/api_keys"))
        asked.append(("DELETE", ""))  # last: it is gone then
        targets = {"own": (own, make(own, admin)), "unknown": (own, "nobody")}
        targets["foreign"] = foreign, make(foreign, other)
        for method, suffix in asked:
            for target, (project, one) in targets.items():
                path = (
                    f"{route.replace('{}', project, 1) if 'projects' in route else route}{suffix}"
                )
                yield f"{method} {route}{suffix}", target, of(method, path.replace("{}", one), None)
            if "projects" in route and method != "DELETE":
                # The key or account is one's own, the project is not.
                path = route.replace("{}", foreign, 1).replace("{}", targets["own"][1])
                yield f"{method} {route}{suffix}", "foreign", of(method, f"{path}{suffix}", None)


def _table(server: Server, callers: dict[str, tuple[str | None, ...]]) -> str:
    rows: dict[str, list[tuple[str, ...]]] = {"route": [HEAD]}
    for route, target, status_of in _rows(server):
        found = [
            "/".join(dict.fromkeys(str(status_of(key)) for key in keys))
            for keys in callers.values()
        ]
        rows.setdefault(_plain(route), []).append((target, *found))
    every = [row for some in rows.values() for row in some]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    lines = [HEADER]
    for route, some in rows.items():
        lines += [route, *(administration.line(row, widths) for row in some)]
    return "\n".join(lines) + "\n"


def _plain(route: str) -> str:
    """The route without the names of its parameters."""
    method, path = route.split()
    parts = ("{}" if part.startswith("{") else part for part in path.split("/"))
    return f"{method} {'/'.join(parts)}"


def test_every_cell_is_as_the_golden_table_says(
    server: Server,
    callers: dict[str, tuple[str | None, ...]],
    request: pytest.FixtureRequest,
) -> None:
    table = _table(server, callers)
    if request.config.getoption("--update-golden"):
        GOLDEN.write_text(table, "utf-8")
    assert table.splitlines() == GOLDEN.read_text("utf-8").splitlines()


def test_every_route_is_in_the_golden_table() -> None:
    routed = {
        _plain(f"{method} {route.path.removeprefix(administration.ROOT)}")
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, Route)
        for method in route.methods or ()
    }
    assert _read().keys() == routed


def test_the_golden_table_keeps_the_promises() -> None:
    """Read it once more, by rule: a mistake that was written into the table is still one."""
    for route, rows in _read().items():
        for target, invalid, api_key, demoted, admin in rows:
            assert (invalid, api_key, demoted) == ("401", "403", "401"), route
            assert admin == ("200" if target in {"own", "-"} else "404"), route


def _read() -> dict[str, list[list[str]]]:
    found: dict[str, list[list[str]]] = {}
    route = ""
    written = GOLDEN.read_text("utf-8").removeprefix(HEADER).strip("\n").splitlines()
    for line in written[2:]:
        if line.startswith(" "):
            found[route].append([cell.strip() for cell in line.split("|")])
        else:
            route = line
            found[route] = []
    return found
