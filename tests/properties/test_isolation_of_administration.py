"""Nothing crosses organizations: what is foreign is answered byte for byte as what is unknown (I9).

The application in this process, on a real database: hypothesis chooses resources, methods and bodies.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import administration

from tunewarden.api.direct import Direct
from tunewarden.api.server import Server as Application
from tunewarden.app import App, answering, open_app
from tunewarden.config import Config

# {} is an id of the kind that follows; the first one decides whose it is.
PATHS = (
    ("users/{}", "user"),
    ("invites/{}", "invite"),
    ("projects/{}", "project"),
    ("projects/{}/archive", "project"),
    ("projects/{}/users", "project"),
    ("projects/{}/users/user_x", "project"),
    ("projects/own/users/{}", "user"),
)
METHODS = ("GET", "POST", "DELETE")
BODIES: tuple[dict[str, str], ...] = (
    {},
    {"role": "owner"},
    {"role": "member"},
    {"name": "x"},
    {"role": "member", "user_id": "user_x"},
)


@dataclass(frozen=True, slots=True)
class World:
    """Two organizations; `ids` are of the other one, by kind."""

    app: App
    direct: Direct
    key: str
    own_project: str
    ids: dict[str, str]

    def ask(self, method: str, path: str, fields: dict[str, str]) -> tuple[int, bytes]:
        body = json.dumps(fields).encode() if method == "POST" else b""
        headers = {"authorization": f"Bearer {self.key}", "content-length": str(len(body))}
        answer = self.direct.ask(method, f"/v1/organization/{path}", headers, [body])
        return answer.status, answer.body

    def rows(self) -> str:
        """All that belongs to the other organization."""
        with self.app.database.read() as tx:
            return str(
                [
                    tx.rows(f"SELECT * FROM {table} ORDER BY 1, 2")
                    for table in ("users", "projects", "project_members", "invites")
                ]
            )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    app = open_app(Config(data=tmp_path_factory.mktemp("isolation") / "data"), migrate=True)
    direct = Direct(Application(answering(app)))
    mine = administration.make_admin_key(app, "mine")
    theirs = administration.make_admin_key(app, "theirs")
    other = World(app, direct, theirs, "", {})
    project = json.loads(other.ask("POST", "projects", {"name": "p"})[1])["id"]
    invite = json.loads(
        other.ask("POST", "invites", {"email": "a@example.com", "role": "reader"})[1]
    )["id"]
    user = administration.make_user(app, "somebody", organization="theirs")
    ids = {"user": user, "invite": invite, "project": project}
    own = World(app, direct, mine, "", {})
    own_project = json.loads(own.ask("POST", "projects", {"name": "p"})[1])["id"]
    yield World(app, direct, mine, own_project, ids)
    direct.close()


@settings(max_examples=300)
@given(
    path=st.sampled_from(PATHS),
    method=st.sampled_from(METHODS),
    fields=st.sampled_from(BODIES),
    tail=st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=24, max_size=24),
)
def test_what_is_foreign_is_answered_as_what_is_unknown(
    world: World,
    path: tuple[str, str],
    method: str,
    fields: dict[str, str],
    tail: str,
) -> None:
    template, kind = path
    template = template.replace("own", world.own_project)
    foreign = world.ids[kind]
    unknown = foreign[:-24] + tail
    before = world.rows()
    answers = [
        (status, body.replace(one.encode(), b"ID"))
        for one in (foreign, unknown)
        for status, body in [world.ask(method, template.format(one), fields)]
    ]
    assert answers[0] == answers[1]
    assert answers[0][0] in {400, 404, 405}
    assert world.rows() == before


def test_nothing_foreign_is_listed(world: World) -> None:
    for path in ("users", "projects?include_archived=true", "invites"):
        body = world.ask("GET", path, {})[1].decode()
        assert not [one for one in world.ids.values() if one in body]


@pytest.mark.parametrize(
    # Rows of deleted invites do not stay, so that an unknown one may be one: its list begins anew.
    ("path", "status"),
    [("users", 400), ("projects", 400), ("invites", 200)],
)
def test_a_foreign_cursor_is_answered_as_an_unknown_one(
    world: World, path: str, status: int
) -> None:
    foreign = world.ids[path.removesuffix("s")]
    unknown = foreign[:-24] + "x" * 24
    answers = [world.ask("GET", f"{path}?after={one}", {}) for one in (foreign, unknown)]
    assert answers[0][0] == answers[1][0] == status
    assert answers[0][1].replace(foreign.encode(), b"") == answers[1][1].replace(
        unknown.encode(), b""
    )


def test_control_ones_own_is_answered(world: World) -> None:
    assert world.ask("GET", f"projects/{world.own_project}", {})[0] == 200
