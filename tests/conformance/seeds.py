"""The data that the suite's fixed ids are to find, restored before each of its tests.

Everything is made by the operations that clients use, with real sealed bytes, so that deleting and
reading it is real as well; only its id is then set. What a test has used up keeps its row under
another id (tests may do that; the product never does).
"""

import json
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from tests.conformance import key_seeds, limit_seeds, people
from tests.fakes.upstream import FakeUpstream
from tests.support import demo_models, webhook_rows

from tunewarden.app import App
from tunewarden.artifacts.adapters import read_adapter_directory
from tunewarden.db.database import Tx
from tunewarden.finetuning import creation, events
from tunewarden.identity import keys
from tunewarden.ids import token
from tunewarden.registry import replicas
from tunewarden.registry.bases import BaseKind
from tunewarden.registry.file_rules import Description
from tunewarden.registry.files import Owner
from tunewarden.server.first_start import add_local_base
from tunewarden.webhooks import endpoint_rows, signing
from tunewarden.webhooks.details import Details
from tunewarden.webhooks.event_types import WebhookEventType

CHAT_BASE = "gpt-6-astra"
COMPLETIONS_BASE = "gpt-3.5-turbo-instruct"
TUNED_BASE = "gpt-4o-mini"
DELETED_MODEL = "ft:gpt-4o-mini:acemeco:suffix:abc123"
SHARED_MODEL = "ft:gpt-4o-mini-2024-07-18:org:weather:B7R9VjQd"
JOB = "ft-AF1WoRqd3aJAHsqc9NY7iL8F"  # The suite's name of a job, and of a checkpoint as well.
CHECKPOINT_MODEL = f"{SHARED_MODEL}:ckpt-step-10"
STEP = 10
PERMISSION = "cp_zc4Q7MP6XxulcVzj4MZdwsAB"
TRAINING_FILE = "file-abc123"
FILE = "file_id"
CONTENT = b'{"foo":"bar"}'  # What the suite would have answered itself.
UPLOAD = "upload_abc123"
PART = "string"
PART_CONTENT = b"Example data"
CURSOR = "after"  # The suite's name of the last object of a page, in every list.
PROJECT = "string"  # The suite shares a checkpoint with it.
ANOTHER_PROJECT = "proj_conformance"
THIRD_PROJECT = "proj_cursor"
ENDPOINT = "whe_123"
EVERY_PARAMETER = "create_with_all_params"


def prepare_bases(app: App) -> None:
    """Register the suite's bases, before a server runs: each is the demo's, on the embedded engine."""
    for name in (CHAT_BASE, COMPLETIONS_BASE, TUNED_BASE):
        add_local_base(app, name, demo_models.base_dir())


class Seeds:
    """Restores the data directory of a running server, as the holder of `key`."""

    def __init__(self, app: App, key: str, upstream: FakeUpstream) -> None:
        self._app = app
        self._upstream = upstream
        self._caller = keys.authenticate(app.database, key, "req_test")
        self._adapter = demo_models.demo_dir() / "adapter"
        with app.database.write() as tx:
            for project in (PROJECT, ANOTHER_PROJECT, THIRD_PROJECT):
                tx.run(
                    "INSERT INTO projects (id, organization_id, name, is_default, created_at) VALUES (:id, :organization, :id, 0, :now)",
                    id=project,
                    organization=self._caller.organization_id,
                    now=tx.now_micros,
                )

    def restore(self, test: str) -> None:
        """Bring everything into the state that a test, `file::Class::name[...]`, expects."""
        file, _, name = test.partition("::")
        if file.startswith("admin/"):
            self._administered(file)
            return
        if "webhooks" in file:
            self._endpoint()
            return
        self._file(FILE, "assistants", CONTENT)
        self._file(TRAINING_FILE, "fine-tune", _chats())
        self._file(CURSOR, "assistants", CONTENT)
        for model in (DELETED_MODEL, SHARED_MODEL, JOB, CHECKPOINT_MODEL):
            self._model(model)
        self._upload()
        self._job(JOB, is_paused="resume" in name)
        self._job(CURSOR, is_paused=False)
        self._permissions()
        if file.endswith(("test_completions.py", "test_responses.py")):
            base = COMPLETIONS_BASE if file == "test_completions.py" else CHAT_BASE
            self._base(base, is_remote=EVERY_PARAMETER in name)

    def _endpoint(self) -> None:
        """Have a webhook endpoint, which was never sent to."""
        sealed = webhook_rows.sealer(self._app).seal(
            ENDPOINT, Details("conformance", webhook_rows.NOWHERE, signing.new_secret())
        )
        with self._app.database.write() as tx:
            organization_id = self._caller.organization_id
            if ENDPOINT not in {one.id for one in endpoint_rows.of(tx, organization_id)}:
                types = [WebhookEventType.RETENTION_UPCOMING]
                endpoint_rows.insert(tx, ENDPOINT, organization_id, sealed, types)

    def _administered(self, file: str) -> None:
        # In lists of people the cursor is a person, in those of service accounts one of them.
        if file.endswith("test_audit_logs.py"):
            limit_seeds.restore_events(self._app, self._caller.organization_id)
            return
        if file.endswith("test_rate_limits.py"):
            limit_seeds.restore_bases(self._app)
        if not re.search("service_accounts|api_keys", file):
            people.restore(self._app)
            return
        with self._app.database.write() as tx:
            key_seeds.restore(tx, self._caller.organization_id, self._caller.user_id)

    def _file(self, file_id: str, purpose: str, content: bytes) -> None:
        def made(make_id: Callable[[Tx, str], None]) -> None:
            owner = Owner(
                self._caller.organization_id, self._caller.project_id, self._caller.key_id
            )
            self._app.files.store(
                owner,
                filename="conformance.jsonl",
                purpose=purpose,
                reader=BytesIO(content),
                within=lambda tx, file: make_id(tx, file.id),
            )

        self._artifact(file_id, made)

    def _model(self, model_id: str) -> None:
        def made(make_id: Callable[[Tx, str], None]) -> None:
            config, weights = read_adapter_directory(self._adapter)
            with weights:
                model = self._app.imports.bring_in(
                    self._caller,
                    base=TUNED_BASE,
                    suffix="conformance",
                    config=BytesIO(config),
                    weights=weights,
                )
            with self._app.database.write() as tx:
                make_id(tx, model.id)

        self._artifact(model_id, made)

    def _artifact(self, wanted_id: str, make: Callable[[Callable[[Tx, str], None]], None]) -> None:
        """Have an active artifact of this id; `make` calls what it is given with the new one's id."""
        row = self._app.database.peek("SELECT state FROM artifacts WHERE id = :id", id=wanted_id)
        if row is not None and row[0] == "active":
            return
        if row is not None:
            self._retire("artifacts", wanted_id)

        def make_id(tx: Tx, new_id: str) -> None:
            tx.run("UPDATE artifacts SET id = :to WHERE id = :was", to=wanted_id, was=new_id)

        make(make_id)

    def _upload(self) -> None:
        row = self._app.database.peek(
            "SELECT u.status, (SELECT COUNT(*) FROM upload_parts p WHERE p.upload_n = u.n), p.is_whole"
            " FROM uploads u LEFT JOIN upload_parts p ON p.id = :part WHERE u.id = :id",
            id=UPLOAD,
            part=PART,
        )
        if row == ("pending", 1, 1):
            return
        if row is not None:
            self._retire("upload_parts", PART)
            self._retire("uploads", UPLOAD)
        upload = self._app.uploads.create(
            self._caller,
            Description("conformance.txt", "assistants", None),
            mime_type="text/plain",
            size=len(PART_CONTENT),
        )
        part = self._app.uploads.add_part(self._caller, upload.id, BytesIO(PART_CONTENT))
        with self._app.database.write() as tx:
            tx.run("UPDATE uploads SET id = :to WHERE id = :was", to=UPLOAD, was=upload.id)
            tx.run("UPDATE upload_parts SET id = :to WHERE id = :was", to=PART, was=part.id)

    def _job(self, job_id: str, *, is_paused: bool) -> None:
        """Have a job that waits."""
        row = self._app.database.peek(
            "SELECT n, is_paused FROM jobs WHERE id = :id AND wish IS NULL AND finished_at IS NULL"
            " AND status IN ('validating_files', 'queued')",
            id=job_id,
        )
        n = int(row[0]) if row else self._new_job(job_id)
        if is_paused != bool(row and row[1]):
            with self._app.database.write() as tx:
                tx.run("UPDATE jobs SET is_paused = :is WHERE n = :n", **{"is": is_paused}, n=n)

    def _new_job(self, job_id: str) -> int:
        self._retire("jobs", job_id)
        asked = creation.parse({"model": TUNED_BASE, "training_file": TRAINING_FILE})
        job = creation.create(
            self._app.database,
            self._app.memory,
            self._app.keyring,
            self._app.drafts.quota,
            self._caller,
            asked,
        ).job
        with self._app.database.write() as tx:
            tx.run("UPDATE jobs SET id = :to WHERE n = :n", to=job_id, n=job.n)
        if job_id == JOB:
            self._progress(job.n)
        return job.n

    def _progress(self, job_n: int) -> None:
        """Have an event of metrics and a checkpoint of a new job."""
        self._retire("job_events", CURSOR)
        metrics = {"step": STEP, "train_loss": 1.5}
        with self._app.database.write() as tx:
            events.record(tx, job_n, f"Step {STEP}/20: training loss=1.50", data=metrics)
            tx.run(
                "UPDATE job_events SET id = :to WHERE n ="
                " (SELECT MAX(n) FROM job_events WHERE job_n = :job)",
                to=CURSOR,
                job=job_n,
            )
            model = _number(tx, CHECKPOINT_MODEL)
            tx.run(
                "UPDATE models SET job_n = :job, step = :step WHERE n = :n",
                job=job_n,
                step=STEP,
                n=model,
            )
            tx.run("DELETE FROM job_checkpoints WHERE model_n = :model", model=model)
            tx.run(
                "INSERT INTO job_checkpoints (id, job_n, model_n, step, metrics, created_at)"
                " VALUES (:id, :job, :model, :step, :metrics, :now)",
                id=CURSOR,
                job=job_n,
                model=model,
                step=STEP,
                metrics=json.dumps(metrics),
                now=tx.now_micros,
            )

    def _permissions(self) -> None:
        """Have the one that is deleted, one that is listed, and not the one that is created."""
        with self._app.database.read() as tx:
            there = tx.rows("SELECT id, project_id FROM checkpoint_permissions ORDER BY n")
        wanted = {
            PERMISSION: (SHARED_MODEL, ANOTHER_PROJECT),
            "cp_conformance": (JOB, ANOTHER_PROJECT),
            CURSOR: (JOB, THIRD_PROJECT),
        }
        if dict(there) == {permission: project for permission, (_, project) in wanted.items()}:
            return
        with self._app.database.write() as tx:
            tx.run("DELETE FROM checkpoint_permissions")
            for permission, (model, project) in wanted.items():
                tx.run(
                    "INSERT INTO checkpoint_permissions (id, model_n, project_id, created_by,"
                    " created_at) VALUES (:id, :model, :project, :by, :now)",
                    id=permission,
                    model=_number(tx, model),
                    project=project,
                    by=self._caller.user_id,
                    now=tx.now_micros,
                )

    def _base(self, name: str, *, is_remote: bool) -> None:
        """Have a base served by the embedded engine, or by the stand-in for OpenAI's own API."""
        path: Path | str = demo_models.base_dir().resolve()
        location = "" if is_remote else path
        with self._app.database.write() as tx:
            has_replica = bool(tx.row("SELECT 1 FROM replicas WHERE base = :name", name=name))
            if is_remote and not has_replica:
                replicas.add(tx, base=name, url=self._upstream.url)
            tx.run(
                "UPDATE bases SET kind = :kind, location = :location, engine_model = :model"
                " WHERE name = :name AND kind <> :kind",
                kind=(BaseKind.REMOTE if is_remote else BaseKind.LOCAL).value,
                location=str(location),
                model=self._upstream.models[0] if is_remote else name,
                name=name,
            )

    def _retire(self, table: str, row_id: str) -> None:
        with self._app.database.write() as tx:
            tx.run(
                f"UPDATE {table} SET id = :to WHERE id = :was",
                to=f"{row_id}-{token(12)}",
                was=row_id,
            )


def _number(tx: Tx, artifact_id: str) -> int:
    row = tx.row("SELECT n FROM artifacts WHERE id = :id", id=artifact_id)
    assert row is not None
    return int(row[0])


def _chats() -> bytes:
    """A training file that a job accepts."""
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Ahoy"}]
    return (json.dumps({"messages": turns}) + "\n").encode() * 12
