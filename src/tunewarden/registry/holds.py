"""Holds: while one is in force, nothing deletes its model or file: no request, no expiry, no retention.

Owners place and lift them in all projects, with a reason that is sealed under the artifact's key and goes with it.
Reasons are personal: only Owners read them. Others read the holds, without reasons, of what their project may see.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunewarden import audit
from tunewarden.artifacts import sealed_text
from tunewarden.artifacts.keyring import KeyErased, Keyring
from tunewarden.artifacts.strict_json import is_text
from tunewarden.db import cursors, lists
from tunewarden.db.database import Database, Row, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import keys
from tunewarden.identity.policy import Action, Caller, Role, authorize
from tunewarden.ids import Prefix, mint, shown
from tunewarden.registry import artifacts, file_rows, file_rules, models
from tunewarden.registry.artifacts import VISIBLE, Artifact, ArtifactKind

REASON_LENGTH_MAX = 1000
# In force on one artifact at a time: several matters may need the same model.
IN_FORCE_MAX = 100
# In a report, of one artifact.
LISTED_MAX = 1000
NAMED_AT_ONCE = 200
COLUMNS = (
    "h.n, h.id, a.kind, a.id, a.internal_id, a.key_id, h.placed_by, h.placed_at, h.lifted_by, h.lifted_at,"
    " h.sealed_reason"
)
FROM = "FROM holds h JOIN artifacts a ON a.n = h.artifact_n"
IS_READ = (
    "h.organization_id = :organization AND"
    f" (:is_owner = 1 OR {models.IS_SEEN} OR (a.kind = 'file' AND a.project_id = :project))"
)
MISSING = {ArtifactKind.MODEL: models.missing, ArtifactKind.FILE: file_rows.missing}


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold. Times are microseconds since 1970; `reason` is None once the artifact was deleted, and for who is no Owner."""

    n: int
    id: str
    kind: ArtifactKind
    artifact_id: str
    placed_by: str
    placed_at: int
    lifted_by: str | None
    lifted_at: int | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Holds:
    """The operations on holds."""

    database: Database
    keyring: Keyring

    def place(self, caller: Caller, kind: ArtifactKind, artifact_id: str, reason: str) -> Hold:
        """Place a hold on a model or a file of any project of the organization.

        Raises Error(FORBIDDEN), Error(NOT_FOUND), Error(INVALID) for a reason that is none, Error(CONFLICT) for too many.
        """
        authorize(caller, Action.HOLD)
        check_reason(reason)
        with self.database.read() as tx:
            artifact = _present(tx, caller, kind, artifact_id)
        try:
            secret = sealed_text.key_of(self.keyring, artifact.key_id)
        except KeyErased as error:
            raise MISSING[kind](artifact_id) from error
        with self.database.write() as tx:
            keys.authorize_now(tx, caller, Action.HOLD)
            _present(tx, caller, kind, artifact_id)
            if len(in_force_on(tx, artifact.n)) >= IN_FORCE_MAX:
                raise Error(
                    Kind.CONFLICT,
                    f"'{artifact_id}' has {IN_FORCE_MAX} holds. Lift one first.",
                    code="too_many_holds",
                )
            hold_id = mint(Prefix.HOLD)
            tx.run(
                "INSERT INTO holds (id, organization_id, artifact_n, sealed_reason, placed_by, placed_at)"
                " VALUES (:id, :organization, :n, :reason, :by, :now)",
                id=hold_id,
                organization=caller.organization_id,
                n=artifact.n,
                reason=sealed_text.seal(secret, artifact.internal_id, reason),
                by=caller.key_id,
                now=tx.now_micros,
            )
            _record(tx, caller, audit.EventType.HOLD_PLACED, artifact_id, hold_id)
        return self._found(caller, hold_id)

    def lift(self, caller: Caller, hold_id: str) -> Hold:
        """Lift a hold; idempotent. Raises Error(FORBIDDEN), Error(NOT_FOUND)."""
        authorize(caller, Action.HOLD)
        with self.database.write(below_floor=True) as tx:
            keys.authorize_now(tx, caller, Action.HOLD)
            row = tx.row(
                f"SELECT {COLUMNS} {FROM} WHERE h.id = :id AND {IS_READ}",
                id=hold_id,
                **_reader(caller),
            )
            if row is None:
                raise missing(hold_id)
            if tx.run(
                "UPDATE holds SET lifted_by = :by, lifted_at = :now WHERE id = :id AND lifted_at IS NULL",
                by=caller.key_id,
                now=tx.now_micros,
                id=hold_id,
            ):
                _record(tx, caller, audit.EventType.HOLD_LIFTED, row[3], hold_id)
        return self._found(caller, hold_id)

    def find(self, caller: Caller, hold_id: str) -> Hold:
        """Return a hold that the caller may read. Raises Error(FORBIDDEN), Error(NOT_FOUND)."""
        authorize(caller, Action.READ_HOLDS)
        return self._found(caller, hold_id)

    def named(self, caller: Caller, hold_ids: Sequence[str]) -> Iterator[Hold]:
        """Yield some holds, those that the caller may read. Raises Error(FORBIDDEN)."""
        authorize(caller, Action.READ_HOLDS)
        for start in range(0, len(hold_ids), NAMED_AT_ONCE):
            ids = {f"id{n}": one for n, one in enumerate(hold_ids[start : start + NAMED_AT_ONCE])}
            listed = ", ".join(f":{name}" for name in ids)
            with self.database.read() as tx:
                rows = tx.rows(
                    f"SELECT {COLUMNS} {FROM} WHERE h.id IN ({listed}) AND {IS_READ} ORDER BY h.n",
                    **ids,
                    **_reader(caller),
                )
            yield from self._opened(caller, rows)

    def _found(self, caller: Caller, hold_id: str) -> Hold:
        row = self.database.peek(
            f"SELECT {COLUMNS} {FROM} WHERE h.id = :id AND {IS_READ}",
            id=hold_id,
            **_reader(caller),
        )
        if row is None:
            raise missing(hold_id)
        [found] = self._opened(caller, [row])
        return found

    def page(
        self,
        caller: Caller,
        *,
        artifact_id: str | None,
        is_in_force: bool | None,
        after: str | None,
        limit: int,
    ) -> Sequence[Hold]:
        """Return the holds that the caller may read, newest first; of one artifact if it is named.

        Raises Error(FORBIDDEN), Error(INVALID).
        """
        authorize(caller, Action.READ_HOLDS)
        with self.database.read() as tx:
            before = cursors.position(
                tx.row,
                f"SELECT h.n {FROM} WHERE h.id = :after AND {IS_READ}",
                after=after,
                first=cursors.AFTER_ALL,
                organization=caller.organization_id,
                project=caller.project_id,
                is_owner=int(caller.role is Role.OWNER),
            )
            rows = tx.rows(
                f"SELECT {COLUMNS} {FROM} WHERE {IS_READ} AND h.n < :before"
                " AND a.id = COALESCE(:artifact, a.id)"
                " AND (CASE WHEN h.lifted_at IS NULL THEN 1 ELSE 0 END)"
                "  = COALESCE(:in_force, CASE WHEN h.lifted_at IS NULL THEN 1 ELSE 0 END)"
                " ORDER BY h.n DESC LIMIT :limit",
                before=before,
                artifact=artifact_id,
                in_force=None if is_in_force is None else int(is_in_force),
                limit=limit,
                **_reader(caller),
            )
        return self._opened(caller, rows)

    def _opened(self, caller: Caller, rows: Sequence[Row]) -> list[Hold]:
        """Return holds of rows of COLUMNS, for Owners with their reasons, decrypted where the key exists."""
        is_owner = caller.role is Role.OWNER
        secrets = sealed_text.keys_of(self.keyring, {row[5] for row in rows if is_owner})
        found = []
        for row in rows:
            secret, sealed = secrets.get(row[5]), row[10]
            has_reason = secret is not None and sealed is not None
            reason = sealed_text.unseal(secret, row[4], sealed) if has_reason and secret else None
            found.append(
                Hold(
                    n=row[0],
                    id=row[1],
                    kind=ArtifactKind(row[2]),
                    artifact_id=row[3],
                    placed_by=row[6],
                    placed_at=row[7],
                    lifted_by=row[8],
                    lifted_at=row[9],
                    reason=reason,
                )
            )
        return found


@dataclass(frozen=True, slots=True)
class PastHold:
    """A hold on an artifact, without its reason. Times are microseconds since 1970."""

    id: str
    placed_by: str
    placed_at: int
    lifted_by: str | None
    lifted_at: int | None


def ever_on(tx: Tx, artifact_n: int) -> list[PastHold]:
    """Return the holds that an artifact ever had, oldest first; also of one that is deleted."""
    rows = tx.rows(
        "SELECT id, placed_by, placed_at, lifted_by, lifted_at FROM holds WHERE artifact_n = :n"
        " ORDER BY n LIMIT :limit",
        n=artifact_n,
        limit=LISTED_MAX,
    )
    return [PastHold(*row) for row in rows]


def in_force_on(tx: Tx, artifact_n: int) -> list[str]:
    """Return the ids of the holds in force on an artifact: one index look-up."""
    rows = tx.rows(
        "SELECT id FROM holds WHERE artifact_n = :n AND lifted_at IS NULL ORDER BY n", n=artifact_n
    )
    return [str(row[0]) for row in rows]


def held_among(tx: Tx, numbers: Sequence[int]) -> set[int]:
    """Return which of these artifacts have a hold in force."""
    found: set[int] = set()
    for listed, values in lists.parts(numbers):
        sql = f"SELECT DISTINCT artifact_n FROM holds WHERE artifact_n IN ({listed}) AND lifted_at IS NULL"
        found.update(int(row[0]) for row in tx.rows(sql, **values))
    return found


def forget(tx: Tx, numbers: Sequence[int]) -> None:
    """Clear the reasons of the holds that deleted artifacts had."""
    for listed, values in lists.parts(numbers):
        tx.run(f"UPDATE holds SET sealed_reason = NULL WHERE artifact_n IN ({listed})", **values)


def check_reason(reason: str) -> None:
    """Check the reason of a hold. Raises Error(INVALID)."""
    if not (len(reason.strip()) >= 1 and len(reason) <= REASON_LENGTH_MAX and is_text(reason)):
        raise Error(
            Kind.INVALID,
            f"'reason' must say in 1 to {REASON_LENGTH_MAX} characters why.",
            param="reason",
        )
    if not all(map(file_rules.is_fit, reason.split("\n"))):
        said = "'reason' must have no control characters and none that turn the direction of text."
        raise Error(Kind.INVALID, said, param="reason")


def missing(hold_id: str) -> Error:
    """Return the error for a hold that is unknown or foreign (I9)."""
    return Error(
        Kind.NOT_FOUND,
        f"The hold '{shown(hold_id)}' does not exist.",
        param="hold_id",
        code="hold_not_found",
    )


def _present(tx: Tx, caller: Caller, kind: ArtifactKind, artifact_id: str) -> Artifact:
    found = artifacts.find_any(tx, kind, caller.organization_id, artifact_id)
    if found is None or found.state not in VISIBLE:
        raise MISSING[kind](artifact_id)
    return found


def _reader(caller: Caller) -> dict[str, str | int]:
    """Return the parameters of IS_READ."""
    return {
        "organization": caller.organization_id,
        "project": caller.project_id,
        "is_owner": int(caller.role is Role.OWNER),
    }


def _record(tx: Tx, caller: Caller, event: audit.EventType, artifact_id: str, hold_id: str) -> None:
    audit.record(
        tx,
        event,
        organization_id=caller.organization_id,
        actor=caller.actor,
        resource_id=artifact_id,
        hold=hold_id,
    )
