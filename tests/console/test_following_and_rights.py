"""A page that follows something goes on for as long as its reader may see it, and no longer (I19)."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import islice

import pytest
from tests.support import administration, event_streams, held_deletions
from tests.support import fine_tuning_rows as rows
from tests.support.console import Visitor
from tests.support.event_streams import next_event
from tests.support.servers import Server

from tunewarden.finetuning.states import State

# Of two looks that find nothing new: a comment and an empty line each.
LINES_LEFT = 4


@contextmanager
def _a_job(server: Server, key: str) -> Iterator[str]:
    yield f"/console/jobs/{rows.make_job(server.app, key, state=State.PAUSED)}"


@contextmanager
def _a_deletion(server: Server, key: str) -> Iterator[str]:
    model = server.make_model(key=key).id
    with held_deletions.held(server, server.owner_key, model) as deletion:
        yield f"/console/deletions/{deletion}"


def _remove(server: Server, admin: str, project: str, user: str, key_id: str) -> None:
    gone = administration.ask(server, "DELETE", f"/projects/{project}/users/{user}", admin)
    assert gone.status == 200, gone.body
    del key_id


def _narrow(server: Server, admin: str, project: str, user: str, key_id: str) -> None:
    path, scopes = f"/projects/{project}/api_keys/{key_id}", ["api.model.read"]
    narrowed = administration.ask(server, "POST", path, admin, {"scopes": scopes})
    assert narrowed.status == 200, narrowed.body
    del user


@pytest.mark.parametrize("end", [_remove, _narrow])
@pytest.mark.parametrize("followed", [_a_job, _a_deletion])
def test_following_ends_with_the_right_to_see_it(
    server: Server,
    followed: Callable[[Server, str], AbstractContextManager[str]],
    end: Callable[[Server, str, str, str, str], None],
) -> None:
    admin = administration.make_admin_key(server.app)
    made = administration.ask(server, "POST", "/projects", admin, {"name": "followed"}).json
    project, user = str(made["id"]), administration.make_user(server.app, "follows")
    member = {"user_id": user, "role": "member"}
    administration.ask(server, "POST", f"/projects/{project}/users", admin, member)
    fields = {"user_id": user, "name": "follows"}
    key = administration.ask(server, "POST", f"/projects/{project}/api_keys", admin, fields).json
    visitor = Visitor(server, str(key["value"]))
    with followed(server, str(key["value"])) as here:
        with event_streams.opened(visitor, f"{here}/changes") as stream:
            assert next_event(stream) == "changed"
            end(server, admin, project, user, str(key["id"]))
            assert visitor.get(here).status == 403
            # What a look that had begun found may still come.
            assert len(list(islice(iter(stream.readline, b""), LINES_LEFT + 1))) <= LINES_LEFT
        with event_streams.opened(visitor, f"{here}/changes") as again:
            assert again.status == 403
