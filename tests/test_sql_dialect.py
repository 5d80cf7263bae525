"""SQL is written once, in the dialect that SQLite and PostgreSQL share (DESIGN, section 4).

What only one of them takes stands in its driver.
"""

import ast
import re

import pytest
from tests.support import statements

ONLY_SQLITE = {
    "MAX and MIN of two values": re.compile(
        r"\b(?:MAX|MIN)\([^()]*(?:\([^()]*\)[^()]*)*,", re.IGNORECASE
    ),
    "a parameter whose type nothing tells": re.compile(
        r":\w+ IS (?:NOT )?NULL|COALESCE\(:\w+, :\w+\)", re.IGNORECASE
    ),
    "a function or a clause of SQLite": re.compile(
        r"\b(?:(?:INSERT|UPDATE) OR|REPLACE INTO|GLOB|zeroblob|strftime|json_\w+|last_insert_rowid|rowid|IFNULL|PRAGMA)\b",
        re.IGNORECASE,
    ),
    "a parameter that is not :name": re.compile(r"\?|@\w|\$\w"),
}
# The driver itself, and the check of its file.
OF_SQLITE = (statements.DRIVER, "cli/doctor.py")


def _found(tree: ast.Module) -> list[str]:
    return [
        f"{what}: {text}"
        for text, _, _ in statements.texts(tree)
        for what, pattern in ONLY_SQLITE.items()
        if pattern.search(re.sub(r"'[^']*'", "''", text))
    ]


def test_every_statement_is_of_both_databases() -> None:
    found = {
        module: said
        for module, tree in statements.modules()
        if not module.startswith(OF_SQLITE) and (said := _found(tree))
    }
    assert found == {}


def test_control_the_rule_sees_sql_however_it_is_written() -> None:
    sources = (
        'tx.run("insert or ignore into things select 1")',
        'tx.run("UPDATE OR IGNORE things SET n = 1")',
        'tx.rows("SELECT n FROM things " + "WHERE n = ?")',
        'CLAUSE = "ifnull(n, 0)"\ntx.rows(f"SELECT {CLAUSE} FROM things")',
        'tx.rows(" ".join(["SELECT n FROM things", "WHERE n GLOB :n"]))',
        'database.peek("pragma quick_check")',
    )
    assert [source for source in sources if not _found(ast.parse(source))] == []


@pytest.mark.parametrize(
    ("sql", "is_found"),
    [
        ("UPDATE things SET n = MAX(0, n - 1)", True),
        ("UPDATE things SET n = MAX(things.n, excluded.n)", True),
        ("SELECT n FROM things WHERE (:a IS NULL OR n = :a)", True),
        ("SELECT n FROM things WHERE n > COALESCE(:after, :start)", True),
        ("INSERT OR IGNORE INTO things SELECT 1", True),
        ("SELECT n FROM things WHERE n = ?", True),
        ("SELECT MAX(n), MIN(n) FROM things", False),
        ("SELECT n FROM things WHERE CAST(:a AS TEXT) IS NULL", False),
        ("SELECT n FROM things WHERE a IS NULL AND b = '?'", False),
        ("SELECT n FROM things WHERE n > COALESCE(:after, 0)", False),
    ],
)
def test_control_the_rule_sees_what_one_database_refuses(sql: str, is_found: bool) -> None:
    assert bool(_found(ast.parse(f"tx.rows({sql!r})"))) is is_found
