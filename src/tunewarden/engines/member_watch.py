"""Counts out members whose leases are not renewed, by this process's own clock (`engine_protocol/lease.py`)."""

from collections.abc import Iterable

from tunewarden.clock import Clock
from tunewarden.db.database import Database
from tunewarden.engine_protocol.lease import ended_seconds
from tunewarden.registry import members
from tunewarden.registry.members import Member, MemberState


class MemberWatch:
    """What one process has seen of the members of a replica. It begins with what it sees first."""

    def __init__(self, database: Database, clock: Clock, replica_n: int) -> None:
        self._database = database
        self._clock = clock
        self._replica_n = replica_n
        # By member: its count of renewals, and when it was first seen.
        self._seen: dict[str, tuple[int, float]] = {}

    def look(self) -> list[Member]:
        """Read the members, count out those whose time is over, and return those that have not ended."""
        found = [one for one in self.members() if one.state is not MemberState.ENDED]
        now = self._clock.monotonic()  # after the read: what was counted by then is older
        self._seen = {
            one.id: seen
            if (seen := self._seen.get(one.id)) and seen[0] == one.renewals
            else (one.renewals, now)
            for one in found
        }
        return [one for one in found if not (self._is_over(one) and self._count_out(one))]

    def members(self) -> list[Member]:
        """Return the members of the replica, ended ones among them."""
        return members.of(self._database, self._replica_n)

    def left_seconds(self, open_members: Iterable[Member]) -> float:
        """Return after how long the last of these is over, if none is renewed."""
        now = self._clock.monotonic()
        return max((self._end_of(one) - now for one in open_members), default=0.0)

    def _is_over(self, member: Member) -> bool:
        return self._clock.monotonic() >= self._end_of(member)

    def _end_of(self, member: Member) -> float:
        return self._seen[member.id][1] + ended_seconds(member.lease_seconds)

    def _count_out(self, member: Member) -> bool:
        return members.count_out(self._database, member)
