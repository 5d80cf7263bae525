"""What runs for each request, and again and again in the background, costs the same however much there is.

Every statement that the scenario below runs is recorded; a new route is in it by itself. Two looks at
each: its plan reads no growing table from end to end, and it takes no more steps once every table has
thousands of rows more, which a plan alone does not show (a range of all rows is a "SEARCH" too).
"""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import apsw
import pytest
from starlette.routing import Route
from tests.lab import budgets
from tests.support import fine_tuning_rows, jobs, servers
from tests.support.jobs import Workplace

from tunewarden import app as composition
from tunewarden.api import server
from tunewarden.api.direct import Direct
from tunewarden.api.operations import Operations
from tunewarden.api.routes import ROUTERS
from tunewarden.audit import refusals, retention
from tunewarden.deletion.requests import Attempt
from tunewarden.finetuning.runner import Runner
from tunewarden.finetuning.states import State
from tunewarden.identity.policy import Caller
from tunewarden.ids import token
from tunewarden.recovery_at_start import recover
from tunewarden.registry import artifacts, bases, model_lookup, models
from tunewarden.registry.file_rules import Description
from tunewarden.registry.usage import COMPLETIONS
from tunewarden.server import runner as background

# They stay small: what an operator makes by hand, one row a shard of the keyring, versions.
SMALL = {
    "organizations",
    "users",
    "projects",
    "bases",
    "base_names",
    "replicas",
    "migrations",
    "log_seen",
    "keyring_seen",
    "clock_seen",
    "swap_seen",
    "audit_retention",
}
# Parts of statements that may read all of something, and why that is not much.
ALLOWED = {
    "FROM models ORDER BY n DESC LIMIT 100": "at start; a hundred rows",
    "SELECT 1 FROM api_keys LIMIT 1": "at start; one row",
    "SELECT 1 FROM deletions LIMIT 1": "at start; one row",
    "SELECT internal_id FROM drafts WHERE kind = :kind": "at start; a draft is work that goes on",
    "status <> 'pending' AND is_tidy = 0": "what is left to do, by a partial index",
    "SELECT id FROM deletions WHERE blobs_erased_at IS NULL": "what is left to do, by a partial index",
    "SELECT id FROM deletions WHERE deleted_at IS NULL": "what is left to do, by a partial index",
    "SELECT n FROM deletion_cases WHERE finished_at IS NULL": "what is left to do, by a partial index",
    "WHERE d.deleted_at IS NULL AND d.": "what is under way, by a partial index; 32 rows",
    "SELECT organization_id FROM aliases WHERE name = :name": "the operator names a base; aliases are few",
    "LIKE '%unrecognized key %'": "a migration; once",
    "SET loaded_by = 'unknown'": "a migration; once",
    "INSERT INTO replica_loads (replica_n, model_n, loaded_by) SELECT": "a migration; once",
    "SET loaded_by = NULL": "a migration; once",
    "INSERT INTO stored_bytes SELECT": "a migration; once",
    "UPDATE stored_bytes SET files": "a migration; once",
    "UPDATE drafts SET project_id": "a migration; once",
    "SET listed_in = (SELECT": "a migration; once",
    "UPDATE models SET suffix = ''": "a migration; once",
    "SET salt = sha256(": "a migration; once",
    "FROM usage_by_model": "a migration; once",
    "SELECT organization_id, 86400": "a migration; once",
    "SET fenced_at = NULL": "a migration; once",
    "FROM audit_events WHERE n > :n ORDER BY n LIMIT :limit": "once a day; pages of a thousand",
    "WHERE log_index IS NULL ORDER BY sequence": "what is left to do, by a partial index",
    "finished_at FROM jobs WHERE finished_at IS NULL": "what is left to do, by a partial index",
}
FILLED = budgets.count(4_000, 40_000)
# How many steps more a statement may take: a page that was not full before takes some hundred more.
SLACK = 1.5, 2_000


class Recorder:
    """Every statement that runs on connections that are opened within it, and its most steps."""

    def __init__(self) -> None:
        self.steps: dict[str, int] = {}

    def __call__(self, connection: apsw.Connection) -> None:
        connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, self._ran)

    def _ran(self, event: dict[str, Any]) -> None:
        sql = " ".join(event["sql"].split())
        if "sqlite_stat" in sql:  # ANALYZE, in a migration
            return
        if sql.startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")):
            steps = int(event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"])
            self.steps[sql] = max(steps, self.steps.get(sql, 0))


Recorded = tuple[Recorder, Recorder, list[str]]


@contextmanager
def _recording() -> Iterator[Recorder]:
    recorder = Recorder()
    apsw.connection_hooks.append(recorder)
    try:
        yield recorder
    finally:
        apsw.connection_hooks.remove(recorder)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """What the scenario ran with next to nothing there, what with much; and the schema."""
    directory = tmp_path_factory.mktemp("hot")
    with _recording() as few:
        place = Workplace(directory)
        _live(place)
    _fill(place)
    with _recording() as many:
        place.app = composition.open_app(place.config)
        _live(place)
    schema = apsw.Connection(str(place.config.database)).execute(
        "SELECT sql FROM sqlite_schema WHERE sql <> '' AND name NOT LIKE 'sqlite%'"
        " ORDER BY type = 'trigger', type DESC"  # tables before their indexes and triggers
    )
    return few, many, [str(row[0]) for row in schema]


def test_no_statement_reads_a_growing_table_from_end_to_end(
    recorded: Recorded,
) -> None:
    few, many, schema = recorded
    connection = apsw.Connection(":memory:")
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    connection.create_scalar_function("sha256", lambda *_: b"", 1)  # as the migrations have it
    for statement in schema:
        connection.execute(statement)
    found = [
        f"{step}: {sql}"
        for sql in few.steps.keys() | many.steps.keys()
        if not _is_allowed(sql)
        for step in _scans(connection, sql)
    ]
    assert found == []


def test_no_statement_takes_more_steps_where_there_is_more(
    recorded: Recorded,
) -> None:
    few, many, _ = recorded
    factor, more = SLACK
    slower = {
        sql: (before, many.steps[sql])
        for sql, before in few.steps.items()
        if many.steps.get(sql, 0) > factor * before + more and not _is_allowed(sql)
    }
    assert slower == {}
    assert len(few.steps.keys() & many.steps.keys()) > 80, "the scenario runs next to nothing"


def test_a_scan_and_a_range_of_everything_are_noticed() -> None:
    """The control: without it, both tests above could pass on nothing."""
    with _recording() as recorder:
        connection = apsw.Connection(":memory:")
        connection.execute("CREATE TABLE things (n INTEGER PRIMARY KEY, name TEXT)")
        seen = []
        for count in (10, FILLED):
            for _ in range(count):
                connection.execute("INSERT INTO things (name) VALUES ('x')")
            connection.execute("SELECT n FROM things t WHERE n > 0 AND name = 'y'").fetchall()
            seen.append(max(recorder.steps.values()))
    assert seen[1] > SLACK[0] * seen[0] + SLACK[1]
    assert _scans(connection, "SELECT * FROM things t WHERE name = 'y'") == ["SCAN things"]
    assert _scans(connection, "SELECT * FROM things t WHERE n = 1") == []


def _is_allowed(sql: str) -> bool:
    return any(part in sql for part in ALLOWED)


def _scans(connection: apsw.Connection, sql: str) -> list[str]:
    """Return what a statement reads from end to end of tables that grow."""
    named = re.findall(r"(?:FROM|JOIN) (\w+) (?!WHERE|ON|JOIN|LEFT|ORDER|LIMIT)(\w+)", sql)
    tables = {alias: table for table, alias in named}
    bound = dict.fromkeys(re.findall(r":(\w+)", sql))
    found = []
    for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {sql}", bound):
        scanned = re.match(r"SCAN (\w+)", step)
        if scanned and "CONSTANT" not in step:
            table = tables.get(scanned[1], scanned[1])
            if table not in SMALL:
                found.append(f"SCAN {table}")
    return found


def _live(place: Workplace) -> None:
    """Use everything that is served, and everything that runs by itself."""
    app, caller = place.app, place.caller
    operations = composition.serving(app)
    model = servers.import_adapter(app, place.key)
    job = fine_tuning_rows.make_job(app, place.key, status="running", started_at=1)
    fine_tuning_rows.tell(app, job, "hello")
    checkpoint = fine_tuning_rows.make_checkpoint(app, place.key, job, 3, {})
    file = place.file()
    gone = servers.import_adapter(app, place.key)
    deletion = app.executor.delete(caller, artifacts.ArtifactKind.MODEL, gone.id, Attempt())
    _upload(place, caller)
    with app.database.read() as tx:
        assert model_lookup.may_be_used(tx, caller, model.n)
    target = model_lookup.meaning(app.database, model.id)
    assert target is not None
    assert artifacts.is_active(app.database, model.n)
    operations.usage.add(caller, target, COMPLETIONS, (1, 1, 0))
    operations.usage.flush()
    ids = {"deletion_id": deletion.id, "job_id": job, "file_id": file}
    _ask_everything(operations, place.key, {**ids, "model_id": model.id})
    _ask_everything(operations, place.key, {**ids, "model_id": checkpoint.id})
    _in_the_background(place, job)


def _ask_everything(operations: Operations, key: str, ids: dict[str, str]) -> None:
    """Ask every route that takes no body, in pages where it has any; last what deletes."""
    application = Direct(server.Server(operations))
    headers = {"authorization": f"Bearer {key}"}
    routes = [r for router in ROUTERS for r in router.routes]
    answered = 0
    for method in ("GET", "DELETE"):
        for route in routes:
            assert isinstance(route, Route)
            names = re.findall(r"{(\w+)}", route.path)
            if method not in (route.methods or ()) or not ids.keys() >= set(names):
                continue
            if route.path.endswith("/content"):  # It writes to its connection, which is not here.
                continue
            path = route.path
            for name in names:
                path = path.replace(f"{{{name}}}", ids[name])
            for after in ("", *ids.values()):
                query = f"?limit=2&after={quote(after)}" if after else ""
                status = application.ask(method, path + query, headers).status
                assert status < 500, (method, path, query)
                answered += status == 200
    assert answered > 40, answered
    application.close()


def _upload(place: Workplace, caller: Caller) -> None:
    uploads = place.app.uploads
    described = Description("a.txt", "user_data", None)
    content = jobs.chats(1)
    upload = uploads.create(caller, described, mime_type="text/plain", size=len(content))
    part = uploads.add_part(caller, upload.id, BytesIO(content))
    uploads.complete(caller, upload.id, [part.id])
    left = uploads.create(caller, described, mime_type="text/plain", size=1)
    uploads.cancel(caller, left.id)


def _in_the_background(place: Workplace, job: str) -> None:
    """Do once what the supervisor and the runner do each moment, and what a start does."""
    app = place.app
    recover(app)
    models.newest(app.database)
    bases.list_all(app.database)
    composition.expiry(app).run()
    composition.audit_digests(app).run()
    refusals.close_hours(app.database, app.clock)
    retention.apply(app.database, 0)
    app.executor.resume(last=background._last_step(app))
    app.executor.resume()
    fine_tuning_rows.set_job(app, job, state=State.PAUSED)  # Nothing shall begin here.
    parts = composition.training(app)
    stopped = threading.Event()
    stopped.set()
    looking = Runner(parts, stopped)
    looking.look()
    looking.join()
    fine_tuning_rows.set_job(app, job, state=State.FAILED)


def _fill(place: Workplace) -> None:
    """Give every table that grows thousands of rows: of others, and of what is over."""
    connection = apsw.Connection(str(place.config.database))
    other = token(8)
    numbers = (
        f"WITH RECURSIVE c (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {FILLED}),"
        " own (o, p, k, u) AS (SELECT organization_id, project_id, id, user_id FROM api_keys LIMIT 1)"
    )
    key = "printf('k%06d-%024d', 500000 + i / 1000, i)"
    artifact = (
        f"{numbers} INSERT INTO artifacts (kind, id, internal_id, organization_id, project_id, state, epoch,"
        " key_id, manifest, manifest_sha256, created_by, created_at) SELECT '{kind}', '{what}-' || i,"
        " '{what}_' || i, {org}, {project}, '{state}', 1, " + key + ", '{{}}', '', k, i FROM c, own"
    )
    with connection:
        connection.execute(
            f"INSERT INTO organizations (id, name, created_at) VALUES ('{other}', '{other}', 1);"
            f"INSERT INTO projects (id, organization_id, name, is_default, created_at) VALUES ('{other}', '{other}', 'x', 1, 1), ('p2', (SELECT"
            " organization_id FROM api_keys LIMIT 1), 'y', 0, 1)"
        )
        for kind in ("model", "file"):
            for what, org, project, state in (
                (f"other-{kind}", f"'{other}'", f"'{other}'", "active"),
                (f"gone-{kind}", "o", "p", "deleted"),
            ):
                made = artifact.replace("{kind}", kind).replace("{what}", what)
                made = made.replace("{org}", org).replace("{project}", project)
                connection.execute(made.replace("{state}", state).replace("{{}}", "{}"))
        connection.execute(
            "INSERT INTO models (n, base, suffix) SELECT n, 'tiny-base', '' FROM artifacts a WHERE"
            " kind = 'model' AND NOT EXISTS (SELECT 1 FROM models WHERE n = a.n)"
        )
        connection.execute(
            "INSERT INTO files (n, filename, purpose, bytes, expires_at) SELECT n, 'x', 'fine-tune', 1, CASE state WHEN 'active' THEN 1 << 60 END"
            " FROM artifacts a WHERE kind = 'file' AND NOT EXISTS (SELECT 1 FROM files WHERE n = a.n)"
        )
        connection.execute(
            "INSERT INTO blobs SELECT internal_id || '/x.age', n, 0, 1, 1, NULL FROM artifacts a WHERE"
            " NOT EXISTS (SELECT 1 FROM blobs WHERE artifact_n = a.n)"
        )
        connection.execute(
            "INSERT INTO deletions (id, artifact_n, organization_id, requested_by, request_id,"
            " requested_at, epoch, log_since, fenced_at, evicted_at, key_erased_at, log_index, deleted_at,"
            " blobs_erased_at) SELECT 'del-' || n, n, organization_id, 'x', '', 1, 2, 0, 1, 1, 1, n, 1, 1"
            " FROM artifacts a WHERE state = 'deleted'"
            " AND NOT EXISTS (SELECT 1 FROM deletions WHERE artifact_n = a.n)"
        )
        for project, ended in (("p2", "1"), ("p2", "NULL")):
            columns = "organization_id, project_id, status, model, base, training_n, method,"
            connection.execute(
                f"{numbers} INSERT INTO jobs (id, internal_id, {columns} hyperparameters, suffix, seed,"
                f" is_paused, created_by, created_at, started_at, finished_at) SELECT 'j{ended}-' || i,"
                f" 'j{ended}_' || i, o, '{project}', 'queued', 'tiny-base', 'tiny-base', (SELECT MIN(n)"
                " FROM files f WHERE filename = 'x'), 'supervised', '{}', '', 1, 1, k, i, i,"
                f" {ended} FROM c, own"
            )
        connection.execute(
            f"{numbers} INSERT INTO job_events (id, job_n, created_at, level, type, message) SELECT"
            " 'ev-' || i, (SELECT MAX(n) FROM jobs), i, 'info', 'message', 'x' FROM c"
        )
        for status, name, expires in (("cancelled", "u", 1), ("pending", "v", 2**62)):
            connection.execute(
                f"{numbers} INSERT INTO uploads (id, internal_id, organization_id, project_id, filename,"
                " purpose, mime_type, bytes, status, created_by, created_at, expires_at, is_tidy) SELECT"
                f" '{name}p-' || i, '{name}p_' || i, o, p, '', 'user_data', 'x', 1, '{status}', k, i,"
                f" {expires}, 1 FROM c, own"
            )
        connection.execute(
            f"{numbers} INSERT INTO drafts (internal_id, kind, key_id, created_at, is_claimed) SELECT 'vp_' || i, 'upload', 'x', i, 1 FROM c"
        )
        connection.execute(
            f"{numbers} INSERT INTO audit_events (id, type, effective_at, organization_id, resource_id,"
            " details) SELECT 'au-' || i, 'x', i, o, 'x', '{}' FROM c, own"
        )
        connection.execute(
            f"{numbers} INSERT INTO usage_series (organization_id, key_id, user_id, project_id, model_id,"
            " kind, last_used_at) SELECT o, 'x' || i, '', p, 'x' || i, 'completions', i FROM c, own"
        )
        connection.execute(
            f"{numbers} INSERT INTO usage SELECT o, 60, {time.time_ns() // 1000} - i,"
            " (SELECT MAX(n) FROM usage_series) - i % 1000, 1, 1, 0, 1 FROM c, own"
        )
        connection.execute(f"{numbers} INSERT INTO key_uses SELECT 'x' || i, o, i FROM c, own")
    connection.close()
    assert Path(place.config.database).stat().st_size > 100 * FILLED
