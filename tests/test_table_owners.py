"""Who owns a table is one module's business, and only that module writes SQL on it (DESIGN, section 4).

Its neighbours in the same package may join the table in a SELECT, since one statement is then what
keeps a request at one query. Every other module calls a function of the owner. What is left apart
from that is listed here with its reason; a line that is not needed any more fails, so that the lists
only shrink.
"""

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.support import statements

ROOT = Path(__file__).parent.parent
MIGRATIONS = ROOT / "src" / "tunewarden" / "db" / "migrations"
OWNERS = {
    "organizations": "identity/organizations.py",
    "users": "identity/users.py",
    "projects": "identity/projects.py",
    "invites": "identity/invite_rows.py",
    "project_members": "identity/project_members.py",
    "api_keys": "identity/key_rows.py",
    "admin_api_keys": "identity/admin_keys.py",
    "key_attempts": "identity/key_attempts.py",
    "sessions": "identity/session_rows.py",
    "sign_in_links": "identity/session_rows.py",
    "bases": "registry/bases.py",
    "members": "registry/members.py",
    "base_names": "registry/bases.py",
    "replicas": "registry/replicas.py",
    "replica_loads": "registry/replicas.py",
    "artifacts": "registry/artifacts.py",
    "blobs": "registry/artifacts.py",
    "models": "registry/models.py",
    "holds": "registry/holds.py",
    "retention_rules": "registry/retention_rules.py",
    "retention_notices": "registry/retention_notices.py",
    "retention_pauses": "registry/retention_pause.py",
    "bulk_deletions": "deletion/bulk/bulk_rows.py",
    "bulk_deletion_items": "deletion/bulk/bulk_rows.py",
    "bulk_deletion_members": "deletion/bulk/bulk_rows.py",
    "exports": "registry/export_rows.py",
    "deletion_settings": "registry/deletion_settings.py",
    "aliases": "registry/alias_rows.py",
    "alias_versions": "registry/alias_rows.py",
    "alias_targets": "registry/alias_rows.py",
    "files": "registry/file_rows.py",
    "derivations": "registry/lineage.py",
    "file_sources": "registry/lineage.py",
    "declared_origins": "registry/lineage.py",
    "drafts": "registry/drafts.py",
    "uploads": "registry/upload_rows.py",
    "upload_parts": "registry/upload_parts.py",
    "stored_bytes": "registry/quota.py",
    "project_quotas": "registry/quota.py",
    "rate_limits": "registry/rate_limits.py",
    "key_rate_limits": "registry/rate_limits.py",
    "log_seen": "registry/restore_marks.py",
    "keyring_seen": "registry/restore_marks.py",
    "swap_seen": "registry/restore_marks.py",
    "usage": "registry/usage.py",
    "usage_series": "registry/usage.py",
    "key_uses": "registry/usage.py",
    "jobs": "finetuning/transitions.py",
    "job_events": "finetuning/events.py",
    "job_checkpoints": "finetuning/checkpoints.py",
    "checkpoint_permissions": "finetuning/permissions.py",
    "deletions": "deletion/records.py",
    "deletion_cases": "deletion/case_rows.py",
    "case_members": "deletion/case_rows.py",
    "canary_runs": "canary/runs.py",
    "clock_seen": "deletion/retention/expiry_pause.py",
    "webhook_endpoints": "webhooks/endpoint_rows.py",
    "webhook_deliveries": "webhooks/outbox.py",
    "audit_events": "audit/events.py",
    "audit_digests": "audit/digests.py",
    "audit_parts": "audit/digests.py",
    "audit_retention": "audit/retention.py",
    "audit_refusals": "audit/refusals.py",
    "reserved": "db/sqlite.py",
    "migrations": "db/sqlite.py",
}
# Who else changes rows of a table, and why.
WRITES = {
    "finetuning/older_texts.py": {
        "files": "a migration that needs keys: once, for data of 0.1",
        "uploads": "the same",
        "jobs": "the same",
        "?": "its statements are the tuples above them",
    },
    "db/sqlite.py": {"?": "the driver runs everybody's statements"},
}
# Who reads a table of another package, and why.
READS = {
    "deletion/case_rows.py": {
        "artifacts": "a case with what it began with, and its members with what they are of, in one statement",
    },
    "deletion/records.py": {
        "artifacts": "a deletion with what it is of, in one statement",
        "drafts": "whether bytes or a key belong to anything, in one snapshot",
    },
    "deletion/unfinished.py": {
        "artifacts": "by `records.FROM`: a deletion with what it is of",
    },
    "deletion/bulk/bulk_rows.py": {
        "artifacts": "what a filter chose with its ids, in one statement",
    },
    "finetuning/checkpoints.py": {
        "artifacts": "a checkpoint with its model's id, in one statement",
    },
    "finetuning/job_lineage.py": {
        "models": "the job that made an artifact, in one statement",
    },
    "finetuning/jobs.py": {
        "artifacts": "a job with the ids of its files, in one statement",
        "models": "which jobs need an artifact, in one statement",
    },
    "finetuning/transitions.py": {
        "drafts": "a job is finished only if its saved state is gone, in one statement",
        "projects": "one look into an index of jobs for each project",
    },
    "finetuning/older_texts.py": {
        "artifacts": "a migration that needs keys: once, for data of 0.1",
        "drafts": "the same",
        "files": "the same",
        "uploads": "the same",
    },
    "registry/usage.py": {
        "api_keys": "when users last used a key of theirs, in one statement",
    },
    "registry/model_pages.py": {
        "checkpoint_permissions": "who sees a model: by `models.SEEN_BY`",
    },
    "registry/models.py": {
        "checkpoint_permissions": "who sees a model, in the query that finds it",
    },
    "registry/model_lookup.py": {
        "checkpoint_permissions": "the same, for each request: by `models.SEEN_BY`",
    },
    "registry/old_models.py": {
        "checkpoint_permissions": "who sees a model: by `models.SEEN_BY`",
    },
    "registry/retention_pause.py": {
        "organizations": "after a restore all are paused, in one statement",
    },
    "registry/holds.py": {
        "checkpoint_permissions": "who sees a model that is held: by `models.IS_SEEN`",
    },
    "registry/quota.py": {
        "projects": "what an organization has stored, in one statement",
    },
}
# What is put into a statement and is no constant, and why that is no table.
UNSAID = {
    "deletion/bulk/bulk_rows.py": {"listed": "names of parameters"},
    "audit/listing.py": {
        "order": "ASC or DESC",
        "one.condition": "compares one column with a value",
        "of.condition": "the same",
        "search.others": "compares columns with lists of parameters",
    },
    "identity/key_rows.py": {"listed": "names of parameters"},
    "identity/project_members.py": {"of_each": "a constant, once for each user"},
    "finetuning/job_lineage.py": {"listed": "names of parameters"},
    "finetuning/jobs.py": {
        "is_in_stage": "of `stages.STAGES`, or empty",
        "listed": "names of parameters",
    },
    "registry/alias_rows.py": {"listed": "names of parameters"},
    "registry/artifacts.py": {"listed": "names of parameters"},
    "registry/export_rows.py": {"listed": "names of parameters"},
    "registry/holds.py": {"listed": "names of parameters"},
    "registry/lineage.py": {"listed": "names of parameters"},
    "registry/models.py": {"listed": "names of parameters"},
    "registry/model_pages.py": {
        "way.first": "a constant",
        "way.joined": "a constant",
        "way.condition": "compares columns with parameters, and the state with its values",
        "way.n": "the column with the order",
        "_in(chosen.state)": "compares the state with its values",
    },
    "registry/quota.py": {"listed": "names of parameters"},
    "registry/replicas.py": {"listed": "names of parameters"},
    "registry/retention_notices.py": {"listed": "names of parameters"},
    "registry/upload_rows.py": {"listed": "names of parameters"},
    "registry/usage.py": {"asked": "names of parameters"},
    "registry/usage_reports.py": {
        "COLUMNS[by]": "of COLUMNS",
        "columns": "of COLUMNS, or empty texts",
        "grouped": "of COLUMNS",
        "narrowed": "compares COLUMNS with lists of parameters",
    },
    "deletion/records.py": {
        "assignments": "columns, by the names of a struct",
        "condition": "of STATUSES, or the organization's",
        "listed": "names of parameters",
    },
    "finetuning/transitions.py": {"assignments": "columns, by the names of a dataclass"},
    "finetuning/older_texts.py": {
        "select": "one of its statements, whole",
        "update": "one of its statements, whole",
    },
    "finetuning/permissions.py": {"compared": "< or >", "order": "ASC or DESC"},
    "db/cursors.py": {
        "self.cursors or self.rows": "the rows that a cursor of a list may name",
        "self.columns": "of a list, in the module of its table's owner",
        "self.rows": "the same, with the tables",
        "self.time": "one of these columns",
        "self.id": "the same",
        "only": "a condition on these columns, from that module",
        "compared": "< or >",
        "order": "ASC or DESC",
    },
    "registry/file_rows.py": {
        "listed": "names of parameters",
        "sign": "< or >",
        "order": "ASC or DESC",
    },
}
# A name may be quoted, and may have that of a schema before it.
CHANGED = re.compile(
    r"\b(?:(?:INSERT|REPLACE)(?:\s+OR\s+\w+)?\s+INTO|(?<!DO )UPDATE(?:\s+OR\s+\w+)?|DELETE\s+FROM)\s+"
    r"(?:\w+\.)?[\"`\[]?([a-z_]\w*)",
    re.IGNORECASE,
)
UNNAMED = re.compile(r"\b(?:FROM|JOIN|INTO|UPDATE)\s+\{\}|^\s*\{\}", re.IGNORECASE)


class Use(NamedTuple):
    """A table in the SQL of a module."""

    module: str
    table: str
    is_written: bool


def uses(module: str, tree: ast.Module) -> set[Use]:
    """Return which tables the SQL of a module reads and changes; `?` is a table that is not named."""
    found = set()
    for text, _, _ in statements.texts(tree):
        changed = {table.lower() for table in CHANGED.findall(text)}
        read = set(re.findall(r"[a-z_]+", re.sub(r"'[^']*'", "''", text).lower())) & OWNERS.keys()
        found |= {Use(module, table, is_written=True) for table in changed}
        found |= {Use(module, table, is_written=False) for table in read - changed}
        if UNNAMED.search(text):
            found.add(Use(module, "?", is_written=True))
    return found


def borrowed(module: str, tree: ast.Module) -> list[str]:
    """Return the names of other packages that are put into the SQL of a module: their tables would not show."""
    imported = {
        alias.asname or alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    names = (
        ast.unparse(value)
        for one in statements.texts(tree)
        for value in one.put
        if any(
            (imported.get(node.id) or "").startswith("tunewarden")
            and _room_of(imported[node.id]) != module.split("/", maxsplit=1)[0]
            for node in ast.walk(value)
            if isinstance(node, ast.Name)
        )
    )
    return [f"{module}: {name}" for name in names]


def _room_of(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


@cache
def _used() -> set[Use]:
    return {use for module, tree in statements.modules() for use in uses(module, tree)}


def _pairs(listed: dict[str, dict[str, str]]) -> set[tuple[str, str]]:
    return {(module, table) for module, tables in listed.items() for table in tables}


def _is_a_neighbour(use: Use) -> bool:
    owner = OWNERS.get(use.table, "")
    return "/" in owner and use.module.split("/")[0] == owner.split("/")[0]


def test_only_its_owner_changes_a_table() -> None:
    others = {
        (use.module, use.table)
        for use in _used()
        if use.is_written and use.module != OWNERS.get(use.table)
    }
    assert others == _pairs(WRITES)


def test_other_packages_read_a_table_through_its_owner() -> None:
    others = {
        (use.module, use.table)
        for use in _used()
        if not use.is_written and not _is_a_neighbour(use) and use.module != OWNERS[use.table]
    }
    assert others == _pairs(READS)


def test_no_module_puts_another_packages_constants_into_its_sql() -> None:
    assert [name for module, tree in statements.modules() for name in borrowed(module, tree)] == []


def test_what_is_put_into_sql_is_constant() -> None:
    put = {
        (module, ast.unparse(value))
        for module, tree in statements.modules()
        for one in statements.texts(tree)
        for value in one.unsaid
    }
    assert {one for one in put if not one[0].startswith(statements.DRIVER)} == _pairs(UNSAID)


def test_deletion_alone_takes_an_artifact_through_its_last_states() -> None:
    steps = {"begin_deletions", "end_deletions", "note_blobs_erased"}
    callers = {
        (node.attr, module.split("/")[0])
        for module, tree in statements.modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in steps
    }
    assert callers == {(step, "deletion") for step in steps}


def test_every_table_has_an_owner_that_uses_it() -> None:
    created = re.findall(
        r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)",
        "".join(path.read_text("utf-8") for path in sorted(MIGRATIONS.glob("*.sql"))),
    )
    assert {*created, "migrations"} == OWNERS.keys()  # which db/sqlite.py makes itself
    assert OWNERS.items() <= {(use.table, use.module) for use in _used()}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('tx.run("UPDATE jobs SET n = 1")', {("jobs", True)}),
        ('tx.run(f"DELETE FROM jobs WHERE {which}")', {("jobs", True)}),
        ('tx.run("INSERT INTO jobs SELECT n FROM files")', {("jobs", True), ("files", False)}),
        ('FROM = "FROM artifacts a, swap_seen"', {("artifacts", False), ("swap_seen", False)}),
        ('tx.row("SELECT 1 WHERE EXISTS (SELECT 1 FROM jobs)")', {("jobs", False)}),
        ('tx.run(f"UPDATE {table} SET n = 1")', {("?", True)}),
        ('tx.run("update jobs set n = 1")', {("jobs", True)}),
        ('tx.run("insert into jobs select n from files")', {("jobs", True), ("files", False)}),
        ('tx.run("UPDATE OR IGNORE main.jobs SET n = 1")', {("jobs", True)}),
        ("tx.run('DELETE FROM \"jobs\"')", {("jobs", True)}),
        ('tx.run("DELETE FROM " + "jobs")', {("jobs", True)}),
        ('tx.run("DELETE FROM jobs" + which)', {("jobs", True)}),
        ('tx.run("DELETE FROM " + table)', {("?", True)}),
        ('sql = "UPDATE "\nsql += "jobs SET n = 1"\ntx.run(sql)', {("?", True)}),
        ('tx.run("DELETE FROM %s" % "jobs")', {("jobs", True)}),
        ('tx.run("DELETE FROM %(t)s WHERE n = %(n)s" % names)', {("?", True)}),
        ('tx.run("DELETE FROM {}".format("jobs"))', {("jobs", True)}),
        ('tx.run("DELETE FROM {t} WHERE n = {n}".format(**names))', {("?", True)}),
        ('tx.run(" ".join(["DELETE FROM", "jobs"]))', {("jobs", True)}),
        ('tx.run(" ".join(words))', {("?", True)}),
        ('tx.run(sql_of("jobs"))', {("?", True)}),
        ('cursors.position(tx.row, sql_of("jobs"), after=None, first=0)', {("?", True)}),
        ('cursors.ByTime("n", sql_of("jobs"))', {("?", True)}),
        ('T = "jobs"\ntx.run(f"DELETE FROM {T}")', {("jobs", True)}),
        ('T = "jobs"\nV = f"DELETE FROM {T}"\ntx.run(V)', {("jobs", True)}),
        ('tx.run(f"{verb} jobs SET n = 1")', {("?", True), ("jobs", False)}),
        ("tx.run(f\"{'DELETE FROM'} jobs\")", {("jobs", True)}),
        ('"""DELETE FROM jobs is nothing that anybody does."""', set()),
        ("tx.row(\"SELECT n FROM files WHERE purpose = 'jobs'\")", {("files", False)}),
    ],
)
def test_control_the_rule_sees_the_tables_of_a_statement(
    source: str, found: set[tuple[str, bool]]
) -> None:
    assert uses("here.py", ast.parse(source)) == {Use("here.py", *use) for use in found}


def test_control_the_rule_sees_what_is_borrowed() -> None:
    source = """
from tunewarden.registry import models
from tunewarden.registry.models import FROM
tx.row(f"SELECT n {models.FROM}")
tx.row(f"SELECT n {FROM}")
"""
    assert borrowed("deletion/records.py", ast.parse(source)) == [
        "deletion/records.py: models.FROM",
        "deletion/records.py: FROM",
    ]
    assert borrowed("registry/model_lookup.py", ast.parse(source)) == []
