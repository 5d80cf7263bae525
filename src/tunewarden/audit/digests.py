"""SQL on digests of the audit log and their parts. What a digest is: `tunewarden_receipts.audit_digest`.

A digest covers the events of all organizations up to an event's number. Writers take turns, and an event gets its
number while its transaction holds the turn: when an event can be read, no smaller number can come any more. So an
event whose transaction commits late never falls between two digests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunewarden.db.database import Database, Tx
from tunewarden_receipts.audit_digest import AuditPart, event_hash

# Ids are shorter; what follows one is filled with NUL.
ID_BYTES = 40
HASH_BYTES = 32
ENTRY_BYTES = ID_BYTES + HASH_BYTES
_PART_COLUMNS = (
    "organization_id, number, sequence, first_n, last_n, last_at, events, root, previous, salt, entries,"
    " expired_at"
)


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest's row. `statement` is None if it was found in the log and its events were lost in a restore.

    `log_index` is None until its leaf is in the log.
    """

    sequence: int
    last_n: int
    statement: bytes | None
    log_since: int
    log_index: int | None


@dataclass(frozen=True, slots=True)
class Entry:
    """What a part keeps of an event: its id, and the hash of its line."""

    id: str
    hash: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """A part's row. Times are in microseconds; `expired_at` is set before its events are deleted."""

    said: AuditPart
    sequence: int
    first_n: int
    last_n: int
    last_at: int
    salt: bytes
    packed: bytes
    expired_at: int | None

    @property
    def commitment(self) -> str:
        """The commitment to it in its digest, in hex."""
        return self.said.commitment(self.salt)

    def entries(self) -> list[Entry]:
        """Return its events' ids and hashes, oldest first."""
        return [
            Entry(
                _id_of(self.packed[at : at + ID_BYTES]), self.packed[at + ID_BYTES :][:HASH_BYTES]
            )
            for at in range(0, len(self.packed), ENTRY_BYTES)
        ]


def entry_of(event_id: str, line: bytes) -> Entry:
    """Return what a part keeps of an event."""
    return Entry(event_id, event_hash(line))


def pack(entries: Sequence[Entry]) -> bytes:
    """Return entries as a part's row holds them."""
    return b"".join(one.id.encode()[:ID_BYTES].ljust(ID_BYTES, b"\0") + one.hash for one in entries)


def _id_of(packed: bytes) -> str:
    return packed.rstrip(b"\0").decode(errors="replace")


def newest(tx: Tx) -> Digest | None:
    """Return the newest digest."""
    row = tx.row(
        "SELECT sequence, last_n, statement, log_since, log_index FROM audit_digests"
        " WHERE sequence = (SELECT MAX(sequence) FROM audit_digests)"
    )
    return Digest(*row) if row else None


def last_n(database: Database) -> int:
    """Return the number of the last event that a digest covers; 0 before the first digest."""
    row = database.peek(
        "SELECT last_n FROM audit_digests WHERE sequence = (SELECT MAX(sequence) FROM audit_digests)"
    )
    return int(row[0]) if row else 0


def pending(tx: Tx) -> list[Digest]:
    """Return the digests whose leaf may not be in the log yet, oldest first."""
    rows = tx.rows(
        "SELECT sequence, last_n, statement, log_since, log_index FROM audit_digests"
        " WHERE log_index IS NULL ORDER BY sequence"
    )
    return [Digest(*row) for row in rows]


def after(tx: Tx, sequence: int, limit: int) -> list[Digest]:
    """Return up to `limit` digests that follow one, oldest first."""
    rows = tx.rows(
        "SELECT sequence, last_n, statement, log_since, log_index FROM audit_digests"
        " WHERE sequence > :sequence ORDER BY sequence LIMIT :limit",
        sequence=sequence,
        limit=limit,
    )
    return [Digest(*row) for row in rows]


def find(tx: Tx, sequence: int) -> Digest | None:
    """Return a digest."""
    found = after(tx, sequence - 1, 1)
    return found[0] if found and found[0].sequence == sequence else None


def insert(tx: Tx, digest: Digest) -> None:
    """Insert a digest."""
    tx.run(
        "INSERT INTO audit_digests VALUES (:sequence, :last_n, :statement, :since, :index)",
        sequence=digest.sequence,
        last_n=digest.last_n,
        statement=digest.statement,
        since=digest.log_since,
        index=digest.log_index,
    )


def note_leaf(tx: Tx, sequence: int, log_index: int) -> None:
    """Store where a digest's leaf is in the log."""
    tx.run(
        "UPDATE audit_digests SET log_index = :index WHERE sequence = :sequence AND log_index IS NULL",
        index=log_index,
        sequence=sequence,
    )


def insert_part(tx: Tx, part: Part) -> None:
    """Insert a part."""
    tx.run(
        "INSERT INTO audit_parts VALUES (:organization, :number, :sequence, :first, :last, :last_at, :events,"
        " :root, :previous, :salt, :entries, NULL)",
        organization=part.said.organization_id,
        number=part.said.number,
        sequence=part.sequence,
        first=part.first_n,
        last=part.last_n,
        last_at=part.last_at,
        events=part.said.events,
        root=part.said.root,
        previous=part.said.previous,
        salt=part.salt,
        entries=part.packed,
    )


def newest_part(tx: Tx, organization_id: str) -> Part | None:
    """Return an organization's newest part."""
    row = tx.row(
        f"SELECT {_PART_COLUMNS} FROM audit_parts WHERE organization_id = :organization"
        " ORDER BY number DESC LIMIT 1",
        organization=organization_id,
    )
    return _part(*row) if row else None


def parts_in(tx: Tx, sequence: int) -> list[Part]:
    """Return the parts of a digest."""
    rows = tx.rows(
        f"SELECT {_PART_COLUMNS} FROM audit_parts WHERE sequence = :sequence"
        " ORDER BY organization_id, number",
        sequence=sequence,
    )
    return [_part(*row) for row in rows]


def parts_of(tx: Tx, organization_id: str, number: int, limit: int) -> list[Part]:
    """Return up to `limit` of an organization's parts that follow one, oldest first."""
    rows = tx.rows(
        f"SELECT {_PART_COLUMNS} FROM audit_parts WHERE organization_id = :organization"
        " AND number > :number ORDER BY number LIMIT :limit",
        organization=organization_id,
        number=number,
        limit=limit,
    )
    return [_part(*row) for row in rows]


def oldest_kept(tx: Tx, organization_id: str) -> Part | None:
    """Return an organization's oldest part that has not expired and whose leaf is in the log."""
    row = tx.row(
        f"SELECT {_PART_COLUMNS} FROM audit_parts WHERE organization_id = :organization"
        " AND expired_at IS NULL AND sequence IN (SELECT sequence FROM audit_digests WHERE log_index IS NOT NULL)"
        " ORDER BY last_n LIMIT 1",
        organization=organization_id,
    )
    return _part(*row) if row else None


def newest_expired(tx: Tx, organization_id: str) -> Part | None:
    """Return an organization's newest part that has expired."""
    row = tx.row(
        f"SELECT {_PART_COLUMNS} FROM audit_parts WHERE organization_id = :organization"
        " AND expired_at IS NOT NULL ORDER BY last_n DESC LIMIT 1",
        organization=organization_id,
    )
    return _part(*row) if row else None


def expire(tx: Tx, part: Part) -> None:
    """Mark a part as expired: its events may be deleted from now on."""
    tx.run(
        "UPDATE audit_parts SET expired_at = :now WHERE organization_id = :organization AND number = :number",
        now=tx.now_micros,
        organization=part.said.organization_id,
        number=part.said.number,
    )


def _part(*row: Any) -> Part:
    organization_id, number, sequence, first_n, last_n, last_at, *said, salt, packed, expired = row
    events, root, previous = said
    part = AuditPart(organization_id, number, events, root, previous)
    return Part(part, sequence, first_n, last_n, last_at, salt, packed, expired)
