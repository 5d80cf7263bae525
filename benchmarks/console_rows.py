"""Rows for the console's benchmark: of 100,000 models a few that differ, 10,000 API keys with their use, a job that measured much."""

import json
from pathlib import Path

import apsw
from tests.support import fine_tuning_rows
from tests.support.servers import LOCAL_BASE

from tunewarden.app import App
from tunewarden.finetuning.states import State

# What few models have, what half of them have, and what most have; the last one nobody asks for.
RARE, HALF, USUAL, NEVER = "rare-name", "half-of-them", "usual-name", "nothing-is-called-so"
RARE_BASE, NEW_BASE = "rare-base", "new-base"
FEW = 5
METRICS = 6_000
DAY_MICROS = 86_400_000_000
PEOPLE = 1_000


def vary_models(data: Path) -> None:
    """Give models names, bases and states: the few stand among the oldest, where a look at the newest finds none."""
    with _opened(data) as connection:
        connection.execute(
            "UPDATE models SET suffix = CASE WHEN n % 2 THEN :half ELSE :usual END",
            {"half": HALF, "usual": USUAL},
        )
        for base in (RARE_BASE, NEW_BASE):
            connection.execute(
                "INSERT INTO bases (name, kind, location, engine_model, modules, created_at)"
                " SELECT :name, kind, location, engine_model, modules, created_at FROM bases"
                " WHERE name = :like",
                {"name": base, "like": LOCAL_BASE},
            )
        first = {"first": 100, "few": FEW}
        old = "n IN (SELECT n FROM models WHERE n > :first ORDER BY n LIMIT :few)"
        connection.execute(f"UPDATE models SET suffix = :rare WHERE {old}", {"rare": RARE, **first})
        first["first"] += FEW
        connection.execute(
            f"UPDATE models SET base = :base WHERE {old}", {"base": RARE_BASE, **first}
        )
        first["first"] += FEW
        connection.execute(f"UPDATE artifacts SET state = 'archived' WHERE {old}", first)


def add_keys(data: Path, count: int) -> None:
    """Add people, API keys of theirs in the default project, and what each key used today and in this hour."""
    with _opened(data) as connection:
        connection.execute(
            "WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < :people)"
            " INSERT INTO users (id, organization_id, name, role, created_at, email)"
            " SELECT printf('user-%024d', i), o.id, 'Person ' || i, 'reader', 1760000000000000 + i,"
            " printf('p%d@example.com', i) FROM numbers, (SELECT organization_id AS id FROM api_keys LIMIT 1) o",
            {"people": PEOPLE},
        )
        connection.execute(
            "WITH RECURSIVE numbers (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < :count)"
            " INSERT INTO api_keys (id, organization_id, project_id, user_id, name, secret_sha256, scopes, created_at)"
            " SELECT printf('key_%024d', i), o.organization_id, o.project_id,"
            " printf('user-%024d', 1 + i % :people), 'Key ' || i, randomblob(32), '', 1760000000000000 + i"
            " FROM numbers, (SELECT organization_id, project_id FROM api_keys LIMIT 1) o",
            {"count": count, "people": PEOPLE},
        )
        connection.execute(
            "INSERT INTO usage_series (organization_id, key_id, user_id, project_id, model_id, kind, last_used_at)"
            " SELECT k.organization_id, k.id, k.user_id, k.project_id, a.id, 'completions',"
            " CAST(strftime('%s') AS INTEGER) * 1000000 FROM api_keys k"
            " JOIN artifacts a ON a.n = 200 + CAST(substr(k.id, 5) AS INTEGER) WHERE k.id LIKE 'key_0000%'"
        )
        for seconds in (3600, 86_400):
            connection.execute(
                "INSERT INTO usage SELECT organization_id, :seconds,"
                " (CAST(strftime('%s') AS INTEGER) / :seconds) * :seconds * 1000000, n, 7, 700, 0, 70 FROM usage_series",
                {"seconds": seconds},
            )


def make_measured_job(app: App, key: str) -> str:
    """Make a job that has ended and measured so many steps; return its id."""
    job_id = fine_tuning_rows.make_job(app, key, state=State.SUCCEEDED)
    n = fine_tuning_rows.job_n(app, job_id)
    data = [
        json.dumps(
            {"step": step, "total_steps": METRICS, "train_loss": 2.0 / step + step % 7 / 100}
            | {
                "train_mean_token_accuracy": 1 - 1 / (step + 1),
                "valid_loss": 2.5 / (step // 60 + 1),
            }
        )
        for step in range(1, METRICS + 1)
    ]
    with _opened(app.config.data) as connection:
        connection.executemany(
            "INSERT INTO job_events (id, job_n, created_at, level, type, message, data)"
            " VALUES (printf('ftevent-%024d', ?), ?, 1760000000000000, 'info', 'metrics', ?, ?)",
            [(at, n, f"Step {at + 1}/{METRICS}", one) for at, one in enumerate(data)],
        )
    return job_id


def _opened(data: Path) -> apsw.Connection:
    """A connection whose block is one transaction."""
    connection = apsw.Connection(str(data / "tunewarden.sqlite"))
    connection.execute("PRAGMA busy_timeout = 10000")
    return connection
