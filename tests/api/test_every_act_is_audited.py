"""Whatever changes something leaves an event, in the transaction that changes it: every route and every command.

A new route that changes something needs a line in tests/support/acts.py, a new command one here. The
database itself is watched while they run.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import apsw
import click
import pytest
from starlette.routing import Route
from tests.cli import in_process
from tests.support import bases, servers, webhook_receiver
from tests.support.acts import ACTS, Place, Watch

from tunewarden.api.routes import ROUTERS
from tunewarden.cli.commands import cli
from tunewarden.finetuning import commands as job_commands
from tunewarden.gateway.inference import ROUTES
from tunewarden.identity import keys
from tunewarden.identity.policy import Role
from tunewarden.registry import bases as base_rows
from tunewarden.registry import replicas
from tunewarden.registry.bases import BaseKind

# Routes without an act: they answer that this is not offered.
NOT_OFFERED = ("/v1/fine_tuning/alpha/", "/v1/responses/")
# It changes nothing of a model, but what leaves is recorded.
EXPORT = "GET /v1/models/{model_id}/content"
# Everybody who may read does this for itself.
LINK = "POST /v1/console/links"
# What a person does who has no key yet.
ACCEPT = "POST /invites/{token}"


@pytest.fixture(scope="module")
def watch() -> Iterator[Watch]:
    made = Watch()
    apsw.connection_hooks.append(made)
    yield made
    apsw.connection_hooks.remove(made)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, watch: Watch) -> Iterator[Place]:
    with webhook_receiver.receiving() as receiver:
        made = Place(tmp_path_factory.mktemp("place") / "data", watch, receiver)
        yield made
        made.direct.close()


def _changing_routes() -> set[str]:
    found = set()
    for router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, Route)
            if route.path not in ROUTES and not route.path.startswith(NOT_OFFERED):
                found |= {f"{method} {route.path}" for method in route.methods or ()}
    return {one for one in found if not one.startswith(("GET", "HEAD"))} | {EXPORT}


def test_every_route_that_changes_something_is_here() -> None:
    assert {*ACTS, ACCEPT} == _changing_routes()


@pytest.mark.parametrize("route", sorted(ACTS))
def test_a_route_records_its_request_in_the_transaction_that_changes_something(
    place: Place, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_commands, "SETTLE_SECONDS", 0.0)
    path, sent = ACTS[route](place)
    given = {"parts": sent} if isinstance(sent, bytes) else {"fields": sent}
    with place.watch.on():
        answer = place.ask(route.split(maxsplit=1)[0], path, **given)
    assert answer.status == 200, answer.body
    with place.app.database.read() as tx:
        rows = tx.rows(
            "SELECT type, actor_key_id, actor_user_id FROM audit_events WHERE request_id = :id",
            id=answer.headers["x-request-id"],
        )
    assert rows, "no event names the request"
    key_id = place.key_of(path).rsplit("-", 2)[1]
    assert {row[1].partition("_")[2] for row in rows if row[1]} == {key_id}
    assert all(row[2] for row in rows if row[1]), "an actor is a user's key"


@pytest.mark.parametrize("route", sorted(ACTS.keys() - {LINK}))
def test_a_refused_request_is_recorded_too(place: Place, route: str) -> None:
    """With a key that has no permission: a reader's, and at administration one that is no admin key."""
    path, sent = ACTS[route](place)
    given: dict[str, Any] = {"parts": sent} if isinstance(sent, bytes) else {"fields": sent}
    reader = _reader(place)
    answer = place.ask(route.split(maxsplit=1)[0], path, **given, key=reader)
    assert answer.status == 403, answer.body
    with place.app.database.read() as tx:
        rows = tx.rows(
            "SELECT type, resource_id FROM audit_events WHERE request_id = :id",
            id=answer.headers["x-request-id"],
        )
    assert len(rows) == 1
    assert rows[0][0].endswith("refused")


def _reader(place: Place) -> str:
    with place.app.database.write() as tx:
        return keys.create(
            tx, organization=servers.ORGANIZATION, role=Role.READER, name="reader", scopes=()
        )[1]


# Commands that change nothing here, and those that only send what the routes above answer.
READING = frozenset(
    {
        "admin-keys list", "projects limits list", "service-accounts list",
        "aliases list",
        "aliases show",
        "files show", "retention preview", "retention rules list", "retention rules show", "retention status",
        "invites list",
        "audit export", "audit list", "audit operator", "audit verify", "backup database", "bases list",
        "certificates issue", "certificates list", "certificates renew", "config show", "deletions list",
        "deletions case", "deletions cases", "deletions report", "models lineage", "files lineage", "deletions show", "doctor", "files list", "fine-tunes events", "fine-tunes list", "fine-tunes metrics",
        "fine-tunes show", "holds list", "keys list", "migrate openai inventory", "models list",
        "models show", "organizations list", "projects list", "projects users list", "receipts verify",
        "replicas list", "usage", "users list", "users show", "webhooks deliveries", "webhooks list",
        "webhooks show", "webhooks types",
    }
)  # fmt: skip
OF_ROUTES = frozenset(
    {
        "aliases create", "tour",
        "aliases delete",
        "aliases rollback",
        "aliases switch",
        "console link",
        "admin-keys create", "admin-keys revoke", "keys rotate", "keys update", "projects limits set", "projects limits set-key",
        "projects quota", "service-accounts create", "service-accounts create-key", "service-accounts delete",
        "service-accounts rename", "service-accounts set-role",
        "invites accept",
        "invites create",
        "invites revoke",
        "deletions settings",
        "deletions create", "retention resume", "retention rules change", "retention rules create",
        "retention rules delete", "retention rules disable", "retention rules enable", "retention run",
        "audit retention", "files delete", "files search", "files upload", "fine-tunes cancel", "fine-tunes create",
        "fine-tunes pause", "fine-tunes resume", "holds lift", "holds place", "migrate openai download",
        "migrate openai compare", "migrate openai delete-source", "migrate openai record", "migrate openai retrain",
        "migrate openai rollback", "migrate openai switch", "models archive", "models delete", "models export", "models import", "models protect",
        "models unarchive", "models unprotect", "projects archive", "projects create", "projects rename",
        "projects users add", "projects users remove", "projects users set-role", "users remove",
        "users set-role", "webhooks create", "webhooks delete", "webhooks disable", "webhooks enable",
        "webhooks redeliver", "webhooks rotate", "webhooks test", "webhooks update",
    }
)  # fmt: skip


def _base(place: Place) -> tuple[str, ...]:
    directory = bases.write_base(place.data.parent / "another-base")
    return ("another", "--path", str(directory))


def _key(place: Place) -> str:
    return f"key_{_reader(place).split('-')[2]}"


def _pause_expiry(place: Place) -> tuple[str, ...]:
    with place.app.database.write() as tx:
        tx.run("DELETE FROM clock_seen")
        tx.run("INSERT INTO clock_seen VALUES (1, 1, 1, 1, 1)")
    return ()


# Their operations are called below: the commands ask an engine first.
NEED_ENGINES = frozenset({"replicas add", "replicas remove"})
OPERATORS: dict[str, Callable[[Place], tuple[str, ...]]] = {
    "bases add": _base,
    "bases name": lambda _: (servers.LOCAL_BASE, "--also-named", "also"),
    "expiry resume": _pause_expiry,
    "keyring adopt": lambda _: ("--yes",),
    "log rotate-key": lambda _: ("--yes",),
    "keys create": lambda _: ("--role", "reader"),
    "keys revoke": lambda p: (_key(p),),
    "organizations create": lambda _: ("another-organization",),
}


def _names(group: click.Group, before: str = "") -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _names(command, f"{before}{name} ")
        else:
            yield f"{before}{name}"


def test_every_command_that_changes_something_is_here() -> None:
    assert {*_names(cli)} - {"serve"} == READING | OF_ROUTES | NEED_ENGINES | OPERATORS.keys()


@pytest.mark.parametrize("command", sorted(OPERATORS))
def test_an_operators_command_records_what_it_changes(place: Place, command: str) -> None:
    options = OPERATORS[command](place)
    with place.watch.on():
        done = in_process.run_cli(*command.split(), *options, "--data", str(place.data))
    assert done.returncode == 0, done.stderr
    assert place.watch.recorded >= 1, "nothing was recorded"


def test_who_accepts_an_invite_is_recorded(place: Place) -> None:
    made = json.loads(place.ask("POST", "/v1/organization/invites", place.invite()).body)
    with place.watch.on():
        path = f"/invites/{made['link'].rpartition('/')[2]}"
        answer = place.ask("POST", path, {"name": "Ada"})
    assert answer.status == 200, answer.body
    with place.app.database.read() as tx:
        rows = tx.rows(
            "SELECT actor_user_id FROM audit_events WHERE type = 'invite.accepted' AND resource_id = :id",
            id=made["id"],
        )
    assert [row[0] for row in rows] == [json.loads(answer.body)["user_id"]]


def test_replicas_are_recorded_when_they_come_leave_and_are_gone(place: Place) -> None:
    database = place.app.database
    remote = {"location": "http://127.0.0.1:9/v1", "engine_model": "x", "modules": {}}
    with database.write() as tx:
        base_rows.add(tx, name="remote", kind=BaseKind.REMOTE, **remote)  # type: ignore[arg-type]  # as a client has them
    with place.watch.on():
        with database.write() as tx:
            replicas.add(tx, base="remote", url="http://127.0.0.1:10/v1", name="two")
        with database.write() as tx:
            leaving = replicas.leave(tx, "remote", "two")
        with database.write() as tx:
            replicas.remove(tx, leaving)
    assert place.watch.recorded == 3


def test_control_the_watch_sees_a_change_without_an_event(place: Place) -> None:
    def change(name: str, *, fails: bool) -> None:
        with place.watch.on(), place.app.database.write() as tx:
            tx.run("UPDATE users SET name = :name", name=name)
            assert not fails, "it fails"

    with pytest.raises(AssertionError, match="without an event"):
        change("x", fails=False)
    with pytest.raises(AssertionError, match="it fails"):
        change("y", fails=True)  # rolled back: nothing has changed
