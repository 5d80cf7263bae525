"""Files, jobs and what they make, written straight into the database, in whatever state a test needs."""

import json
from dataclasses import replace
from typing import Any

from tests import servers
from tests.servers import LOCAL_BASE, ORGANIZATION

from tunewarden.app import App
from tunewarden.db.database import Tx
from tunewarden.finetuning import creation, events
from tunewarden.finetuning.creation import JobRequest
from tunewarden.finetuning.hyperparameters import parse
from tunewarden.identity import keys
from tunewarden.identity.policy import Caller, Role
from tunewarden.ids import Prefix, mint
from tunewarden.registry.models import Model


def caller_of(app: App, key: str) -> Caller:
    return keys.authenticate(app.database, key, "req_test")


def make_file(app: App, key: str, *, purpose: str = "fine-tune") -> str:
    """A file that has a row and no bytes."""
    caller = caller_of(app, key)
    file_id = mint(Prefix.FILE)
    with app.database.write() as tx:
        n = _artifact(tx, caller, "file", file_id)
        tx.run(
            "INSERT INTO files VALUES (:n, 'chats.jsonl', :purpose, 100, NULL)",
            n=n,
            purpose=purpose,
        )
    return file_id


def make_job(app: App, key: str, **values: object) -> str:
    """A job with these values in its row; it begins as any does."""
    caller = caller_of(app, key)
    method, hyperparameters = parse(None, None)
    file_id = make_file(app, key)
    request = JobRequest(LOCAL_BASE, file_id, None, method, hyperparameters, "", 1, None)
    job_id = creation.create(app.database, caller, request).job.id
    if values:
        set_job(app, job_id, **values)
    return job_id


def set_job(app: App, job_id: str, **values: object) -> None:
    """Write values into a job's row, as its runner would."""
    columns = ", ".join(f"{name} = :{name}" for name in values)
    written = {
        name: json.dumps(value) if isinstance(value, dict | list) else value
        for name, value in values.items()
    }
    with app.database.write() as tx:
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
            "INSERT INTO projects VALUES (:id, :organization, 'Second', 0, :now)",
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


def _artifact(tx: Tx, caller: Caller, kind: str, artifact_id: str) -> int:
    tx.run(
        "INSERT INTO artifacts (kind, id, internal_id, organization_id, project_id, state, epoch,"
        " key_id, manifest, manifest_sha256, created_by, created_at) VALUES (:kind, :id, :internal,"
        " :organization, :project, 'active', 1, 'none', '{}', '', :by, :now)",
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
