"""Members: the leases of engines that adapters are pushed to (`engine_protocol/lease.py`), one row each.

A replica has at most one `live` member, to which adapters are pushed. A deletion that has fenced its model waits for
every member that has not ended: who pushed the model had read a live member before, so that its row is seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from tunewarden.db.database import Database, Row, Tx
from tunewarden.errors import Error, Kind

COLUMNS = (
    "id, replica_n, incarnation, certificate, lease_seconds, renewals, state, joined_at, ended_at"
)


class MemberState(StrEnum):
    """The state of a member; it changes in this order."""

    JOINING = "joining"  # the engine drops every adapter
    LIVE = "live"
    ENDED = "ended"  # its lease is over; an engine needs another member to serve adapters again


@dataclass(frozen=True, slots=True)
class Member:
    """One lease. `certificate` is the SHA-256 of the engine's certificate, empty without TLS. Times are in microseconds."""

    id: str
    replica_n: int
    incarnation: str
    certificate: str
    lease_seconds: float
    renewals: int
    state: MemberState
    joined_at: int
    ended_at: int | None = None


def join(database: Database, member: Member) -> None:
    """Insert a member before its engine hears of it, so that no deletion overlooks it.

    Raises Error(NOT_FOUND) for a replica that was removed.
    """
    with database.write(survives=False, below_floor=True) as tx:
        if not tx.run(
            f"INSERT INTO members ({COLUMNS})"
            " SELECT :id, n, :incarnation, :certificate, :seconds, 0, 'joining', :now, NULL"
            " FROM replicas WHERE n = :replica",
            id=member.id,
            replica=member.replica_n,
            incarnation=member.incarnation,
            certificate=member.certificate,
            seconds=member.lease_seconds,
            now=tx.now_micros,
        ):
            raise Error(Kind.NOT_FOUND, "The replica was removed.")


def has_begun(database: Database, member: Member, replaced: Sequence[str]) -> None:
    """Note that the engine has dropped the adapters of the members that this one replaces: those of its process end."""
    with database.write(survives=False, below_floor=True) as tx:
        for member_id in replaced:
            tx.run(
                "UPDATE members SET state = 'ended', ended_at = :now"
                " WHERE id = :id AND incarnation = :incarnation AND state <> 'ended'",
                now=tx.now_micros,
                id=member_id,
                incarnation=member.incarnation,
            )


def go_live(database: Database, member: Member) -> Member | None:
    """Let adapters be pushed to a member; None if it has ended. Rows of members that ended before are removed."""
    with database.write(survives=False, below_floor=True) as tx:
        if not tx.run(
            "UPDATE members SET state = 'live' WHERE id = :id AND state = 'joining'", id=member.id
        ):
            return None
        tx.run(
            "DELETE FROM members WHERE replica_n = :replica AND state = 'ended'",
            replica=member.replica_n,
        )
    return replace(member, state=MemberState.LIVE)


def count_renewal(database: Database, member_id: str) -> bool:
    """Count a nonce before it is sent; False if the member has ended, and it must not be sent.

    A power cut may undo it: by then its lease is as old as the cut, and deleters begin to watch after it.
    """
    with database.write(survives=False, below_floor=True) as tx:
        return bool(
            tx.run(
                "UPDATE members SET renewals = renewals + 1 WHERE id = :id AND state <> 'ended'",
                id=member_id,
            )
        )


def count_out(database: Database, member: Member) -> bool:
    """End a member whose count is still the one that was seen; False if it was renewed or has ended."""
    with database.write(survives=False, below_floor=True) as tx:
        return bool(
            tx.run(
                "UPDATE members SET state = 'ended', ended_at = :now"
                " WHERE id = :id AND renewals = :seen AND state <> 'ended'",
                now=tx.now_micros,
                id=member.id,
                seen=member.renewals,
            )
        )


def of(database: Database, replica_n: int) -> list[Member]:
    """Return the members of a replica, oldest first; of those that ended some."""
    with database.read() as tx:
        rows = tx.rows(
            f"SELECT {COLUMNS} FROM members WHERE replica_n = :replica ORDER BY joined_at, id",
            replica=replica_n,
        )
    return [_member(row) for row in rows]


def live(database: Database, replica_n: int) -> Member | None:
    """Return the member of a replica to which adapters are pushed, or None."""
    row = database.peek(
        f"SELECT {COLUMNS} FROM members WHERE replica_n = :replica AND state = 'live'"
        " ORDER BY joined_at DESC, id",
        replica=replica_n,
    )
    return _member(row) if row else None


def newest(database: Database, replica_n: int) -> Member | None:
    """Return the member of a replica that joined last, or None."""
    found = of(database, replica_n)
    return found[-1] if found else None


def forget(tx: Tx, replica_n: int) -> None:
    """Remove the members of a replica that has left."""
    tx.run("DELETE FROM members WHERE replica_n = :replica", replica=replica_n)


def _member(row: Row) -> Member:
    member_id, replica_n, incarnation, certificate, seconds, renewals, state, *times = row
    return Member(
        member_id,
        replica_n,
        incarnation,
        certificate,
        seconds,
        renewals,
        MemberState(state),
        *times,
    )
