"""Every page of the console, for every kind of visitor, on every kind of target: a golden table beside the API's.

After a change that is meant: `pytest tests/console/test_authorization.py --update-golden`, and read the difference.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import administration
from tests.support.console import Visitor
from tests.support.servers import Server

from tunewarden.console.pages import PAGES
from tunewarden.console.paths import OpenPage
from tunewarden.identity.policy import ProjectRole

GOLDEN = Path(__file__).parent.parent / "golden" / "console_authorization.txt"
HEADER = """\
# Who may open which page of the console, as a status code: each page, on each kind of target, for each kind of visitor.
# 303 without a session: led to the sign-in. Written by: pytest tests/console/test_authorization.py --update-golden

"""
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
