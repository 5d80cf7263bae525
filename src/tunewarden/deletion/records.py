"""The intent log of deletions: one row each, with the request, the steps done, and their results."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from tunewarden.db import cursors, lists
from tunewarden.db.database import Database, Row, Tx
from tunewarden.deletion import protocol, reports
from tunewarden.deletion.protocol import Stage, Step
from tunewarden.deletion.reports import BlobsReport, EvictReport, FenceReport, KeyReport
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.registry.artifacts import Artifact

COLUMNS = (
    "d.n, d.id, d.organization_id, d.requested_by, d.request_id, d.idempotency_key, d.requested_at,"
    " d.epoch, d.log_since, d.fenced_at, d.fence_report, d.evicted_at, d.evict_report,"
    " d.key_erased_at, d.key_report, d.statement, d.log_index, d.logged_at, d.receipt, d.deleted_at, d.blobs_report,"
    " d.blobs_log_since, d.blobs_log_index, d.blobs_erased_at,"
    " a.n, a.kind, a.id, a.internal_id, a.key_id, a.manifest_sha256, a.salt,"
    " (SELECT p.id FROM deletions p WHERE p.n = d.parent_n)"
)
FROM = "FROM deletions d JOIN artifacts a ON a.n = d.artifact_n"


# An artifact whose blobs and key may exist: it can be served, or its deletion is unfinished.
_LIVE = (
    "FROM artifacts a WHERE (a.state IN ('active', 'archived') OR EXISTS"
    " (SELECT 1 FROM deletions d WHERE d.artifact_n = a.n AND d.blobs_erased_at IS NULL))"
)


_OF_ORGANIZATION = "d.organization_id = :organization"
# The rows of each status. Unfinished ones are few on the whole server and have indexes of their own, which the
# concatenation leads to: the organization's index would be read to its end.
_OF_FEW = "d.organization_id || '' = :organization"
STATUSES = {
    "deleting": f"d.deleted_at IS NULL AND {_OF_FEW}",
    "deleted": f"d.blobs_erased_at IS NULL AND d.deleted_at IS NOT NULL AND {_OF_FEW}",
    "erased": f"d.blobs_erased_at IS NOT NULL AND {_OF_ORGANIZATION}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What the commit point stores. `requested_at` is in microseconds since 1970."""

    deletion_id: str
    requested_by: str
    requested_at: int
    epoch: int
    log_since: int
    request_id: str = ""
    idempotency_key: str | None = None


# A struct: each step copies it, and that of a dataclass with so many fields takes ten times as long.
class Deletion(Struct, frozen=True):
    """A deletion and its artifact. Times are microseconds since 1970.

    Each field is written by one step: `fence_report` and `fenced_at` by D4, the next two by D5, `key_*` by D6, `statement`
    to `receipt` by D7, `deleted_at` by D8, `blobs_*` by D9; earlier fields by D3. D10 may write in their place.
    """

    n: int
    id: str
    organization_id: str
    requested_by: str
    request_id: str
    idempotency_key: str | None
    requested_at: int
    epoch: int
    log_since: int
    fenced_at: int | None
    fence_report: FenceReport | None
    evicted_at: int | None
    evict_report: EvictReport | None
    key_erased_at: int | None
    key_report: KeyReport | None
    statement: bytes | None
    log_index: int | None
    # None if the leaf was found in the log (D10).
    logged_at: int | None
    receipt: bytes | None
    deleted_at: int | None
    blobs_report: BlobsReport | None
    blobs_log_since: int | None
    blobs_log_index: int | None
    blobs_erased_at: int | None
    artifact_n: int
    kind: str
    artifact_id: str
    internal_id: str
    key_id: str
    manifest_sha256: str
    salt: bytes
    # The id of the deletion that includes this one.
    parent: str | None

    @property
    def stage(self) -> Stage:
        """Its state, from the marks of its steps."""
        return protocol.stage_of(
            self.fenced_at,
            self.evicted_at,
            self.key_erased_at,
            self.log_index,
            self.deleted_at,
            self.blobs_erased_at,
        )

    @property
    def next_step(self) -> Step | None:
        """The next step; None if nothing is left."""
        return protocol.NEXT.get(self.stage)

    @property
    def step_micros(self) -> dict[Step, int]:
        """How long each step took whose end and whose predecessor's end are known; a clock that was set back counts as 0.

        From the end of one step to the end of the next: waiting for a group of deletions, or for a restart, is in it.
        """
        ends = (
            self.requested_at,
            self.fenced_at,
            self.evicted_at,
            self.key_erased_at,
            self.logged_at,
            self.deleted_at,
            self.blobs_erased_at,
        )
        return {
            step: max(0, end - begin)
            for step, begin, end in zip(Step, ends, ends[1:], strict=False)
            if begin is not None and end is not None
        }

    @property
    def is_from_log(self) -> bool:
        """Whether D10 made the row from the log, so that how it was asked for is not known. Who asked may be."""
        return not self.request_id and self.idempotency_key is None

    @property
    def is_deleted(self) -> bool:
        """Whether a 200 may be sent."""
        return self.deleted_at is not None


# Where a row has reports, and what decodes them.
_REPORTS = [(Deletion.__struct_fields__.index(name), one) for name, one in reports.DECODERS.items()]


def from_row(row: Row) -> Deletion:
    """Convert a row of COLUMNS; the only place that decodes reports."""
    values = list(row)
    for at, decoder in _REPORTS:
        if values[at] is not None:
            values[at] = decoder.decode(values[at])
    return Deletion(*values)


def find(database: Database, deletion_id: str) -> Deletion | None:
    """Return a deletion by its id, or None."""
    row = database.peek(f"SELECT {COLUMNS} {FROM} WHERE d.id = :id", id=deletion_id)
    return from_row(row) if row else None


def find_own(database: Database, caller: Caller, deletion_id: str) -> Deletion:
    """Return a deletion of the caller's organization. Raises Error(FORBIDDEN, NOT_FOUND); NOT_FOUND for foreign ones too."""
    authorize(caller, Action.READ_DELETIONS)
    deletion = find(database, deletion_id)
    if deletion is None or deletion.organization_id != caller.organization_id:
        raise Error(
            Kind.NOT_FOUND,
            f"The deletion '{deletion_id[:100]}' does not exist.",
            param="deletion_id",
            code="deletion_not_found",
        )
    return deletion


def of_artifact(database: Database, caller: Caller, artifact_id: str) -> Deletion | None:
    """Return the deletion of an artifact of the caller's organization, or None. Raises Error(FORBIDDEN)."""
    authorize(caller, Action.READ_DELETIONS)
    row = database.peek(
        f"SELECT {COLUMNS} {FROM} WHERE a.id = :id AND a.organization_id = :organization",
        id=artifact_id,
        organization=caller.organization_id,
    )
    return from_row(row) if row else None


def receipt_of(deletion: Deletion) -> bytes:
    """Return the exact stored bytes of the receipt. Raises Error(NOT_FOUND) before D8."""
    if deletion.receipt is None:
        raise Error(
            Kind.NOT_FOUND,
            f"The deletion {deletion.id} is not finished, so it has no receipt yet.",
            param="deletion_id",
            code="receipt_not_ready",
        )
    return deletion.receipt


def find_of(tx: Tx, artifact_n: int) -> Deletion | None:
    """Return the deletion of an artifact, or None."""
    row = tx.row(f"SELECT {COLUMNS} {FROM} WHERE d.artifact_n = :n", n=artifact_n)
    return from_row(row) if row else None


def is_deleted(database: Database, n: int) -> bool:
    """Return whether a deletion is done up to D8: one read by primary key."""
    row = database.peek("SELECT deleted_at FROM deletions WHERE n = :n", n=n)
    return row is not None and row[0] is not None


def stored(database: Database, numbers: Sequence[int]) -> list[Deletion]:
    """Return deletions as they are now, by their numbers, in this order."""
    found: dict[int, Deletion] = {}
    with database.read() as tx:
        for listed, values in lists.parts(numbers):
            rows = tx.rows(f"SELECT {COLUMNS} {FROM} WHERE d.n IN ({listed})", **values)
            found |= {int(row[0]): from_row(row) for row in rows}
    return [found[n] for n in numbers if n in found]


def with_parts(database: Database, numbers: Sequence[int]) -> list[int]:
    """Return the numbers of deletions, each after those that it includes."""
    parts: dict[int, list[int]] = {n: [] for n in numbers}
    with database.read() as tx:
        for listed, values in lists.parts(numbers):
            sql = f"SELECT parent_n, n FROM deletions WHERE parent_n IN ({listed}) ORDER BY n"
            for parent_n, n in tx.rows(sql, **values):
                parts[parent_n].append(int(n))
    return [found for n in numbers for found in (*parts[n], n)]


def parts_of(database: Database, deletion: Deletion) -> list[Deletion]:
    """Return the deletions that this one includes."""
    with database.read() as tx:
        rows = tx.rows(f"SELECT {COLUMNS} {FROM} WHERE d.parent_n = :n ORDER BY d.n", n=deletion.n)
    return [from_row(row) for row in rows]


def of_case(tx: Tx, case_n: int, *, after: int, limit: int) -> list[Deletion]:
    """Return up to `limit` deletions of a case, after a number, in the order in which they are deleted."""
    rows = tx.rows(
        f"SELECT {COLUMNS} {FROM} JOIN case_members m ON m.deletion_n = d.n"
        " WHERE m.case_n = :case AND d.n > :after ORDER BY d.n LIMIT :limit",
        case=case_n,
        after=after,
        limit=limit,
    )
    return [from_row(row) for row in rows]


def page(
    database: Database,
    caller: Caller,
    *,
    after: str | None,
    limit: int,
    status: str | None = None,
) -> Sequence[Deletion]:
    """Return the deletions of the caller's organization, newest first; `after` is the cursor, one of them.

    `status`: one of STATUSES. A foreign cursor is refused: its position would reveal when another organization deleted. Raises
    Error(FORBIDDEN, INVALID).
    """
    authorize(caller, Action.READ_DELETIONS)
    condition = _OF_ORGANIZATION if status is None else STATUSES[status]
    with database.read() as tx:
        before = cursors.position(
            tx.row,
            "SELECT n FROM deletions WHERE id = :after AND organization_id = :organization",
            after=after,
            first=cursors.AFTER_ALL,
            organization=caller.organization_id,
        )
        rows: list[Row] = tx.rows(
            f"SELECT {COLUMNS} {FROM} WHERE {condition} AND d.n < :before ORDER BY d.n DESC LIMIT :limit",
            organization=caller.organization_id,
            before=before,
            limit=limit,
        )
    return [from_row(row) for row in rows]


def exist(database: Database) -> bool:
    """Return whether anything was ever deleted."""
    return database.peek("SELECT 1 FROM deletions LIMIT 1") is not None


def is_live(database: Database, internal_id: str) -> bool:
    """Return whether blobs below this internal id belong to an artifact or a draft."""
    row = database.peek(
        f"SELECT 1 {_LIVE} AND a.internal_id = :id"
        " UNION ALL SELECT 1 FROM drafts WHERE internal_id = :id LIMIT 1",
        id=internal_id,
    )
    return row is not None


def live_keys(database: Database, first: str, end: str) -> set[str]:
    """Return the keys in use, of the ids from `first` up to but excluding `end`."""
    with database.read() as tx:
        rows = tx.rows(
            f"SELECT a.key_id {_LIVE} AND a.key_id >= :first AND a.key_id < :end"
            " UNION SELECT key_id FROM drafts WHERE key_id >= :first AND key_id < :end",
            first=first,
            end=end,
        )
    return {str(row[0]) for row in rows}


def insert(tx: Tx, intents: Sequence[tuple[Artifact, Intent]]) -> list[Deletion]:
    """Insert deletions of artifacts; return them in this order."""
    tx.run_each(
        "INSERT INTO deletions (id, artifact_n, organization_id, requested_by, request_id,"
        " idempotency_key, requested_at, epoch, log_since) VALUES (:id, :artifact, :organization, :by,"
        " :request, :key, :at, :epoch, :since)",
        [
            {
                "id": intent.deletion_id,
                "artifact": artifact.n,
                "organization": artifact.organization_id,
                "by": intent.requested_by,
                "request": intent.request_id,
                "key": intent.idempotency_key,
                "at": intent.requested_at,
                "epoch": intent.epoch,
                "since": intent.log_since,
            }
            for artifact, intent in intents
        ],
    )
    written: dict[int, Deletion] = {}
    for listed, values in lists.parts([artifact.n for artifact, _ in intents]):
        rows = tx.rows(f"SELECT {COLUMNS} {FROM} WHERE d.artifact_n IN ({listed})", **values)
        written |= {one.artifact_n: one for one in map(from_row, rows)}
    return [written[artifact.n] for artifact, _ in intents]


def note_parent(tx: Tx, part: Deletion, parent: Deletion) -> None:
    """Store which deletion includes `part`."""
    tx.run("UPDATE deletions SET parent_n = :parent WHERE n = :n", parent=parent.n, n=part.n)


def record_facts(tx: Tx, deletions: Iterable[Deletion], *fields: str) -> None:
    """Store the results of a step: these fields of each deletion."""
    assignments = ", ".join(f"{name} = :{name}" for name in fields)
    tx.run_each(
        f"UPDATE deletions SET {assignments} WHERE n = :n",
        [
            {"n": one.n} | {name: _stored(name, getattr(one, name)) for name in fields}
            for one in deletions
        ],
    )


def _stored(field: str, value: Any) -> Any:
    """Encode a field's value for its column."""
    return reports.encoded(value) if field in reports.DECODERS and value is not None else value


def record_blobs_leaf(tx: Tx, deletion_id: str, index: int) -> None:
    """Store the index of a deletion's second leaf; no-op if the deletion is unknown here."""
    tx.run("UPDATE deletions SET blobs_log_index = :at WHERE id = :id", at=index, id=deletion_id)
