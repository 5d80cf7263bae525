"""Files, jobs and what they make, written straight into the database, in whatever state a test needs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

from openai import OpenAI
from tests.support import servers
from tests.support.servers import LOCAL_BASE, ORGANIZATION, Server

from tunewarden.app import App
from tunewarden.db.database import Database, Tx
from tunewarden.deletion import requests
from tunewarden.deletion.requests import Attempt
from tunewarden.finetuning import creation, events, states, transitions
from tunewarden.finetuning.creation import JobRequest
from tunewarden.finetuning.hyperparameters import parse
from tunewarden.finetuning.states import State
from tunewarden.identity import keys
from tunewarden.identity.policy import Caller, Role
from tunewarden.ids import Prefix, mint, random_bytes
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden.registry.models import Model
from tunewarden_receipts.commitments import SALT_BYTES

JOBS = "/v1/fine_tuning/jobs"
REMOTE_BASE = "far-base"


def caller_of(app: App, key: str) -> Caller:
    return keys.authenticate(app.database, key, "req_test")


def make_file(app: App, key: str, *, purpose: str = "fine-tune") -> str:
    """A file that has a row, a key, and no bytes."""
    caller = caller_of(app, key)
    file_id = mint(Prefix.FILE)
    key_id = app.keyring.create().id
    with app.database.write() as tx:
        n = _artifact(tx, caller, "file", file_id, key_id)
        tx.run(
            "INSERT INTO files VALUES (:n, 'chats.jsonl', :purpose, 100, NULL, NULL)",
            n=n,
            purpose=purpose,
        )
    return file_id


class _AlsoSets:
    """The database, whose next new job gets these values in the same transaction: no runner sees it without them."""

    def __init__(self, database: Database, values: dict[str, object]) -> None:
        self._database = database
        self._values = values

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    @contextmanager
    def write(self) -> Iterator[Tx]:
        with self._database.write() as tx:
            yield tx
            if self._values:
                [(job_id,)] = tx.rows("SELECT id FROM jobs WHERE n = (SELECT MAX(n) FROM jobs)")
                _set_job(tx, job_id, self._values)


def make_job(app: App, key: str, **values: object) -> str:
    """A job with these values in its row; it begins as any does. Give `state=State.PAUSED`, or a runner works on it."""
    caller = caller_of(app, key)
    method, hyperparameters = parse(None, None)
    file_id = make_file(app, key)
    request = JobRequest(LOCAL_BASE, file_id, None, method, hyperparameters, "", 1, None)
    database = cast("Database", _AlsoSets(app.database, values))
    return creation.create(
        database, app.memory, app.keyring, app.drafts.quota, caller, request
    ).job.id


def set_job(app: App, job_id: str, **values: object) -> None:
    """Write values into a job's row, as its runner would; `state` is a State."""
    with app.database.write() as tx:
        _set_job(tx, job_id, values)


def state_of(app: App, job_id: str) -> State:
    """Return the state of a job as it is now."""
    return transitions.state_now(app.database, job_n(app, job_id))


def begin_deletion(app: App, key: str, file_id: str) -> None:
    """Commit the deletion of a file (D3); it goes no further."""
    requests.request_deletion(
        app.database, caller_of(app, key), ArtifactKind.FILE, file_id, Attempt(), log_size=0
    )


def _set_job(tx: Tx, job_id: str, values: dict[str, object]) -> None:
    state, values = values.get("state"), {n: v for n, v in values.items() if n != "state"}
    if isinstance(state, State):
        values = states.written(state, tx.now_micros) | values
    columns = ", ".join(f"{name} = :{name}" for name in values)
    written = {
        name: json.dumps(value) if isinstance(value, dict | list) else value
        for name, value in values.items()
    }
    assert tx.run(f"UPDATE jobs SET {columns} WHERE id = :was", was=job_id, **written) == 1


def job_n(app: App, job_id: str) -> int:
    row = app.database.peek("SELECT n FROM jobs WHERE id = :id", id=job_id)
    assert row is not None
    return int(row[0])


def make_model(app: App, key: str, *, job_id: str | None = None, step: int | None = None) -> Model:
    """An imported model that says that it is of a job, or a checkpoint of it."""
    model = servers.import_adapter(app, key)
    checkpoint = "" if step is None else f":ckpt-step-{step}"
    n = job_n(app, job_id) if job_id else None
    with app.database.write() as tx:
        tx.run(
            "UPDATE models SET job_n = :job, step = :step WHERE n = :n", job=n, step=step, n=model.n
        )
        tx.run("UPDATE artifacts SET id = id || :more WHERE n = :n", more=checkpoint, n=model.n)
    return replace(model, id=f"{model.id}{checkpoint}", job_n=n, step=step)


def make_checkpoint(app: App, key: str, job_id: str, step: int, metrics: dict[str, Any]) -> Model:
    model = make_model(app, key, job_id=job_id, step=step)
    with app.database.write() as tx:
        tx.run(
            "INSERT INTO job_checkpoints (id, job_n, model_n, step, metrics, created_at)"
            " VALUES (:id, :job, :model, :step, :metrics, :now)",
            id=mint(Prefix.CHECKPOINT),
            job=job_n(app, job_id),
            model=model.n,
            step=step,
            metrics=json.dumps(metrics),
            now=tx.now_micros,
        )
    return model


def tell(app: App, job_id: str, message: str, data: dict[str, Any] | None = None) -> None:
    with app.database.write() as tx:
        events.record(tx, job_n(app, job_id), message, data=data)


def make_project(app: App, *, organization: str = ORGANIZATION) -> tuple[str, str]:
    """A second project of an organization: its id, and an Owner's key of it."""
    project_id = mint(Prefix.PROJECT)
    with app.database.write() as tx:
        row = tx.row("SELECT id FROM organizations WHERE name = :name", name=organization)
        assert row is not None
        tx.run(
            "INSERT INTO projects (id, organization_id, name, is_default, created_at) VALUES (:id, :organization, 'Second', 0, :now)",
            id=project_id,
            organization=row[0],
            now=tx.now_micros,
        )
        key, text = keys.create(
            tx, organization=organization, role=Role.OWNER, name="second", scopes=()
        )
        tx.run(
            "UPDATE api_keys SET project_id = :project WHERE id = :id",
            project=project_id,
            id=key.id,
        )
    return project_id, text


def _artifact(tx: Tx, caller: Caller, kind: str, artifact_id: str, key_id: str) -> int:
    tx.run(
        "INSERT INTO artifacts (kind, id, internal_id, organization_id, project_id, state, epoch,"
        " key_id, manifest, manifest_sha256, salt, created_by, created_at) VALUES (:kind, :id, :internal,"
        " :organization, :project, 'active', 1, :key, '{}', '', :salt, :by, :now)",
        key=key_id,
        salt=random_bytes(SALT_BYTES),
        kind=kind,
        id=artifact_id,
        internal=mint(Prefix.SLOT),
        organization=caller.organization_id,
        project=caller.project_id,
        by=caller.key_id,
        now=tx.now_micros,
    )
    row = tx.row("SELECT n FROM artifacts WHERE id = :id", id=artifact_id)
    assert row is not None
    return int(row[0])


def own_project(server: Server) -> tuple[str, OpenAI]:
    """A new project, whose lists are therefore empty: an Owner's key and a client of it."""
    _, key = make_project(server.app)
    return key, server.client(key, _strict_response_validation=True, max_retries=0)


def audited(server: Server, resource_id: str) -> list[str]:
    """The types of the audit's events about something, in order."""
    with server.app.database.read() as tx:
        found = tx.rows(
            "SELECT type FROM audit_events WHERE resource_id = :id ORDER BY n", id=resource_id
        )
    return [row[0] for row in found]
