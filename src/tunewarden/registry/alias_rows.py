"""SQL on aliases: an organization's names for its models, by versions."""

from collections.abc import Sequence
from dataclasses import dataclass

from tunewarden.db import cursors, lists
from tunewarden.db.database import Database, Row, Tx

# Of the history that is read; older versions stay.
VERSIONS_SHOWN_MAX = 100
# Of the organizations that have an alias of one name.
ORGANIZATIONS_SHOWN_MAX = 5


@dataclass(frozen=True, slots=True)
class AliasTarget:
    """A model that an alias points to, and its weight."""

    model_n: int
    model_id: str
    weight: int


@dataclass(frozen=True, slots=True)
class AliasVersion:
    """One version of an alias. `changed_at` is in microseconds since 1970, `changed_by` a key's id."""

    version: int
    changed_by: str
    changed_at: int
    targets: tuple[AliasTarget, ...]


@dataclass(frozen=True, slots=True)
class Alias:
    """An alias and its current version."""

    n: int
    organization_id: str
    name: str
    created_at: int
    current: AliasVersion


def find(tx: Tx, organization_id: str, name: str) -> Alias | None:
    """Return an organization's alias, or None."""
    row = tx.row(
        "SELECT n, organization_id, name, created_at, version FROM aliases"
        " WHERE organization_id = :organization AND name = :name AND deleted_at IS NULL",
        organization=organization_id,
        name=name,
    )
    return _of_row(tx, row) if row else None


def exists(database: Database, organization_id: str, name: str) -> bool:
    """Return whether an organization has this alias: one index look-up."""
    row = database.peek(
        "SELECT 1 FROM aliases WHERE organization_id = :organization AND name = :name AND deleted_at IS NULL",
        organization=organization_id,
        name=name,
    )
    return row is not None


def organizations_with(tx: Tx, name: str) -> list[str]:
    """Return the ids of organizations that have this alias, at most ORGANIZATIONS_SHOWN_MAX.

    It looks at every alias, so it is for the operator, who adds a base or names one.
    """
    rows = tx.rows(
        "SELECT organization_id FROM aliases WHERE name = :name AND deleted_at IS NULL"
        " ORDER BY organization_id LIMIT :limit",
        name=name,
        limit=ORGANIZATIONS_SHOWN_MAX,
    )
    return [str(row[0]) for row in rows]


def page(tx: Tx, organization_id: str, *, after: str | None, limit: int) -> list[Alias]:
    """Return an organization's aliases by name; `after` is the cursor, one of them. Raises Error(INVALID)."""
    # A name that was deleted since is a cursor too: the order is by name.
    rows = tx.rows(
        "SELECT n, organization_id, name, created_at, version FROM aliases"
        " WHERE organization_id = :organization AND deleted_at IS NULL AND name > :after"
        " ORDER BY name LIMIT :limit",
        organization=organization_id,
        after=after or "",
        limit=limit,
    )
    return [_of_row(tx, row) for row in rows]


def count(tx: Tx, organization_id: str) -> int:
    """Return how many aliases an organization has."""
    row = tx.row(
        "SELECT COUNT(*) FROM aliases WHERE organization_id = :organization AND deleted_at IS NULL",
        organization=organization_id,
    )
    assert row is not None, "an aggregate has one row"
    return int(row[0])


def versions(
    tx: Tx, alias_n: int, *, before: int | None = None, limit: int = VERSIONS_SHOWN_MAX
) -> list[AliasVersion]:
    """Return up to `limit` versions of an alias, newest first; with `before`, only those before that one."""
    rows = tx.rows(
        "SELECT version FROM alias_versions WHERE alias_n = :n AND version < :before"
        " ORDER BY version DESC LIMIT :limit",
        n=alias_n,
        before=cursors.AFTER_ALL if before is None else before,
        limit=limit,
    )
    return [version for row in rows if (version := version_of(tx, alias_n, row[0]))]


def version_of(tx: Tx, alias_n: int, version: int) -> AliasVersion | None:
    """Return one version of an alias, or None."""
    row = tx.row(
        "SELECT changed_by, changed_at FROM alias_versions WHERE alias_n = :n AND version = :version",
        n=alias_n,
        version=version,
    )
    if row is None:
        return None
    targets = tx.rows(
        "SELECT t.model_n, a.id, t.weight FROM alias_targets t JOIN artifacts a ON a.n = t.model_n"
        " WHERE t.alias_n = :n AND t.version = :version ORDER BY t.model_n",
        n=alias_n,
        version=version,
    )
    return AliasVersion(version, row[0], row[1], tuple(AliasTarget(*one) for one in targets))


def that_point_to(tx: Tx, model_n: int) -> list[tuple[str, str]]:
    """Return the organizations and names of the aliases that point to a model now: by an index."""
    rows = tx.rows(
        "SELECT a.organization_id, a.name FROM alias_targets t JOIN aliases a ON a.n = t.alias_n"
        " AND a.version = t.version WHERE t.model_n = :n AND a.deleted_at IS NULL ORDER BY a.name",
        n=model_n,
    )
    return [(str(row[0]), str(row[1])) for row in rows]


def targets_among(tx: Tx, numbers: Sequence[int]) -> set[int]:
    """Return to which of these models an alias points now."""
    found: set[int] = set()
    for listed, values in lists.parts(numbers):
        rows = tx.rows(
            "SELECT DISTINCT t.model_n FROM alias_targets t JOIN aliases a ON a.n = t.alias_n"
            f" AND a.version = t.version WHERE t.model_n IN ({listed}) AND a.deleted_at IS NULL",
            **values,
        )
        found.update(int(row[0]) for row in rows)
    return found


def insert(tx: Tx, organization_id: str, name: str) -> int:
    """Insert an alias without a version; return its number."""
    tx.run(
        "INSERT INTO aliases (organization_id, name, version, created_at)"
        " VALUES (:organization, :name, 0, :now)",
        organization=organization_id,
        name=name,
        now=tx.now_micros,
    )
    row = tx.row(
        "SELECT n FROM aliases WHERE organization_id = :organization AND name = :name AND deleted_at IS NULL",
        organization=organization_id,
        name=name,
    )
    assert row is not None, "the row was written in this transaction"
    return int(row[0])


def add_version(tx: Tx, alias_n: int, targets: Sequence[AliasTarget], *, changed_by: str) -> int:
    """Point an alias to these models; return the new version."""
    row = tx.row("SELECT version + 1 FROM aliases WHERE n = :n", n=alias_n)
    assert row is not None, "an alias's row is never removed"
    version = int(row[0])
    tx.run(
        "INSERT INTO alias_versions VALUES (:n, :version, :by, :now)",
        n=alias_n,
        version=version,
        by=changed_by,
        now=tx.now_micros,
    )
    for target in targets:
        tx.run(
            "INSERT INTO alias_targets VALUES (:n, :version, :model, :weight)",
            n=alias_n,
            version=version,
            model=target.model_n,
            weight=target.weight,
        )
    tx.run("UPDATE aliases SET version = :version WHERE n = :n", version=version, n=alias_n)
    return version


def end(tx: Tx, alias_n: int) -> None:
    """Delete an alias; its history stays, and its name can be used again."""
    tx.run("UPDATE aliases SET deleted_at = :now WHERE n = :n", now=tx.now_micros, n=alias_n)


def _of_row(tx: Tx, row: Row) -> Alias:
    n, organization_id, name, created_at, version = row
    current = version_of(tx, n, version)
    assert current is not None, "an alias has the version that its row names"
    return Alias(n, organization_id, name, created_at, current)
