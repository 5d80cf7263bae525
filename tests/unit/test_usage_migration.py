"""Usage that was counted by model only is kept when its table gets more columns."""

from pathlib import Path

import apsw
from tests.fakes.clock import HandClock

from tunewarden.db import migrations
from tunewarden.db.sqlite import SqliteDatabase
from tunewarden.registry.usage import DAY, HOUR, SECOND

OF_USAGE = next(version for version, name, _ in migrations.found() if name.endswith("_usage.sql"))
NOW = 1_800_000_000 // DAY * DAY
ROWS = [
    ("org_1", "ft:base:o::1", NOW, 3, 30, 9),
    ("org_1", "ft:base:o::1", NOW + HOUR, 2, 20, 6),
    ("org_1", "ft:base:o::1", NOW + DAY, 5, 50, 0),
    ("org_1", "base", NOW, 7, 70, 7),
    ("org_2", "base", NOW, 1, 0, 0),
]


def _older(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.create_scalar_function("sha256", lambda *_: b"", 1)  # as the migrations have it
    connection.execute(
        "CREATE TABLE migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INTEGER NOT NULL)"
    )
    for version, name, sql in migrations.found():
        if version < OF_USAGE:
            connection.execute(sql)
            connection.execute("INSERT INTO migrations VALUES (?, ?, 1)", (version, name))
    for number in (1, 2):
        connection.execute(f"INSERT INTO organizations VALUES ('org_{number}', 'o{number}', 1)")
    connection.execute(
        "INSERT INTO projects (id, organization_id, name, is_default, created_at)"
        " VALUES ('proj_1', 'org_1', 'x', 1, 1), ('proj_9', 'org_1', 'y', 0, 1)"
    )
    for organization, model, hour, requests, given, said in ROWS:
        connection.execute(
            "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?)",
            (organization, model, hour * SECOND, requests, given, said, hour * SECOND + 5),
        )
    connection.close()


def test_older_counts_are_kept_by_hour_and_day(tmp_path: Path) -> None:
    path = tmp_path / "older.sqlite"
    _older(path)
    database = SqliteDatabase(path, HandClock(), migrate=True)
    with database.read() as tx:
        for seconds in (HOUR, DAY):
            found = tx.rows(
                "SELECT s.organization_id, s.model_id, s.kind, u.began_at, u.requests, u.input_tokens, u.output_tokens"
                " FROM usage u JOIN usage_series s ON s.n = u.series_n WHERE u.seconds = :seconds"
                " ORDER BY 1, 2, 4",
                seconds=seconds,
            )
            counts = [(row[0], row[1], row[3] // SECOND, *row[4:]) for row in found]
            if seconds == HOUR:
                assert counts == sorted(ROWS)
            else:
                assert counts == [
                    ("org_1", "base", NOW, 7, 70, 7),
                    ("org_1", "ft:base:o::1", NOW, 5, 50, 15),
                    ("org_1", "ft:base:o::1", NOW + DAY, 5, 50, 0),
                    ("org_2", "base", NOW, 1, 0, 0),
                ]
            kinds = {(row[1], row[3] // SECOND): row[2] for row in found}
            assert kinds["ft:base:o::1", NOW + DAY] == "embeddings", "input and no output"
            assert kinds["ft:base:o::1", NOW] == kinds["base", NOW] == "completions"
        ids = tx.rows(
            "SELECT DISTINCT organization_id, project_id, key_id, user_id FROM usage_series ORDER BY 1"
        )
        last = tx.row("SELECT MAX(last_used_at) FROM usage_series WHERE organization_id = 'org_1'")
    assert ids == [("org_1", "proj_1", "", ""), ("org_2", "", "", "")]
    assert last == ((NOW + DAY) * SECOND + 5,)
