"""The origin of a file: other files here, and a description of an external source.

A deletion names what was made from what it deletes (I18). The words may hold a client's text, such as the suffix of a
model, so they are sealed under the file's key and go with it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tunewarden.artifacts.strict_json import is_text
from tunewarden.db import lists
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Caller
from tunewarden.registry import file_rows
from tunewarden.registry.file_rows import File

ORIGINS_MAX = 16
SOURCE_LENGTH_MAX = 1024


@dataclass(frozen=True, slots=True)
class Origin:
    """A client's statement of a file's origin: ids of files of its project, and a description."""

    file_ids: tuple[str, ...] = ()
    source: str | None = None

    @classmethod
    def checked(cls, file_ids: Sequence[str], source: str | None) -> "Origin":
        """Return the validated origin. Raises Error(INVALID)."""
        if len(file_ids) > ORIGINS_MAX:
            said = f"A file can be derived from at most {ORIGINS_MAX} files."
            raise Error(Kind.INVALID, said, param="derived_from")
        if source is not None and not (
            1 <= len(source) <= SOURCE_LENGTH_MAX and is_text(source) and source.isprintable()
        ):
            said = f"source must be 1 to {SOURCE_LENGTH_MAX} printable characters."
            raise Error(Kind.INVALID, said, param="source")
        return cls(tuple(dict.fromkeys(file_ids)), source)


def note(tx: Tx, caller: Caller, file: File, origin: Origin, sealed_source: bytes | None) -> None:
    """Store the origin of a new file, in the transaction that registers it.

    Raises Error(NOT_FOUND) if one of the files is not in the caller's project, or was deleted in the meantime.
    """
    for file_id in origin.file_ids:
        row = tx.row(
            "SELECT n FROM artifacts WHERE id = :id AND kind = 'file' AND state = 'active'"
            " AND organization_id = :organization AND project_id = :project",
            id=file_id,
            organization=caller.organization_id,
            project=caller.project_id,
        )
        if row is None:
            raise file_rows.missing(file_id)
        tx.run("INSERT INTO derivations VALUES (:n, :origin)", n=file.n, origin=row[0])
    if sealed_source is not None:
        tx.run("INSERT INTO file_sources VALUES (:n, :sealed)", n=file.n, sealed=sealed_source)


def derived_from(tx: Tx, n: int) -> tuple[str, ...]:
    """Return the ids of all active files derived from an artifact, directly or indirectly."""
    # One index look-up each, instead of a recursive statement that scans every artifact.
    found: dict[int, str] = {}
    seen, todo = {n}, [n]
    while todo:
        for made, file_id, state in tx.rows(
            "SELECT d.n, a.id, a.state FROM derivations d JOIN artifacts a ON a.n = d.n"
            " WHERE d.origin_n = :origin",
            origin=todo.pop(),
        ):
            if made not in seen:
                seen.add(made)
                todo.append(made)
                if state == "active":
                    found[made] = str(file_id)
    return tuple(found[made] for made in sorted(found))


def made_from(tx: Tx, n: int) -> list[int]:
    """Return the numbers of the files that were made from an artifact directly, in any state."""
    return [row[0] for row in tx.rows("SELECT n FROM derivations WHERE origin_n = :n", n=n)]


def makers_of(tx: Tx, n: int) -> list[int]:
    """Return the numbers of what a file was made from directly, in any state."""
    return [row[0] for row in tx.rows("SELECT origin_n FROM derivations WHERE n = :n", n=n)]


def origins_among(tx: Tx, numbers: Sequence[int]) -> set[int]:
    """Return from which of these artifacts a file was made, or a model is declared to have learned, in any state."""
    found: set[int] = set()
    for listed, values in lists.parts(numbers):
        rows = tx.rows(
            f"SELECT origin_n FROM derivations WHERE origin_n IN ({listed})"
            f" UNION SELECT origin_n FROM declared_origins WHERE origin_n IN ({listed})",
            **values,
        )
        found.update(int(row[0]) for row in rows)
    return found


def declare(tx: Tx, n: int, origins: Iterable[int]) -> bool:
    """Store what a model is declared to have been trained on, in place of what was; return whether that is a change."""
    before, wanted = set(declared_origins_of(tx, n)), set(origins)
    for origin in before - wanted:
        sql = "DELETE FROM declared_origins WHERE n = :n AND origin_n = :origin"
        tx.run(sql, n=n, origin=origin)
    for origin in wanted - before:
        tx.run("INSERT INTO declared_origins VALUES (:n, :origin)", n=n, origin=origin)
    return before != wanted


def declared_origins_of(tx: Tx, n: int) -> list[int]:
    """Return the numbers of what a model is declared to have been trained on."""
    return [row[0] for row in tx.rows("SELECT origin_n FROM declared_origins WHERE n = :n", n=n)]


def declared_to_learn_from(tx: Tx, n: int) -> list[int]:
    """Return the numbers of the models that are declared to have been trained on an artifact."""
    return [row[0] for row in tx.rows("SELECT n FROM declared_origins WHERE origin_n = :n", n=n)]


def origins_of(database: Database, n: int) -> tuple[tuple[str, ...], bytes | None]:
    """Return the ids of a file's origins, deleted ones too, and its sealed source."""
    with database.read() as tx:
        rows = tx.rows(
            "SELECT a.id FROM derivations d JOIN artifacts a ON a.n = d.origin_n WHERE d.n = :n"
            " ORDER BY a.n",
            n=n,
        )
        found = tx.row("SELECT sealed FROM file_sources WHERE n = :n", n=n)
    return tuple(str(row[0]) for row in rows), bytes(found[0]) if found else None


def forget(tx: Tx, numbers: Sequence[int]) -> None:
    """Clear personal data in the origins of deleted files; no-op for numbers of other artifacts."""
    for listed, values in lists.parts(numbers):
        tx.run(f"DELETE FROM file_sources WHERE n IN ({listed})", **values)
