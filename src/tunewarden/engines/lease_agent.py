"""Holds the lease of one replica: begins it, and renews it as long as the replica answers. For the runner.

The engine needs no way to reach the gateway, and a runner that is killed or frozen costs nothing until the lease ends: the
next one goes on with the member in the row.
"""

import logging
import threading
from dataclasses import dataclass

from tunewarden.clock import Clock, Throttle
from tunewarden.db.database import Database
from tunewarden.engine_protocol.lease import renewal_seconds
from tunewarden.engine_protocol.messages import Renewal
from tunewarden.engines.member_watch import MemberWatch
from tunewarden.engines.port import Leasable, LeaseRefused, Seen
from tunewarden.errors import Error
from tunewarden.ids import token
from tunewarden.registry import members
from tunewarden.registry.members import Member, MemberState

RETRY_SECONDS = 0.25

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Held:
    """The member whose lease is renewed. `nonce` is the engine's newest that was counted, empty if there is none."""

    member: Member
    nonce: str = ""


class LeaseAgent:
    """One replica's. For one thread."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        replica_n: int,
        engine: Leasable,
        *,
        lease_seconds: float,
    ) -> None:
        self._database = database
        self._replica_n = replica_n
        self._engine = engine
        self._lease_seconds = lease_seconds
        self._watch = MemberWatch(database, clock, replica_n)
        self._logged = Throttle(clock)
        self._held: _Held | None = None
        self._refused = ""  # the member whose lease the engine does not have

    def run(self, stop: threading.Event) -> None:
        """Hold the lease until `stop`."""
        pause = 0.0
        while not stop.wait(pause):
            pause = self.step()

    def step(self) -> float:
        """Renew the lease, or begin one; count out members that are not renewed. Returns the pause until the next step."""
        pause = RETRY_SECONDS
        try:
            if self._held is None:
                self._held = self._found() or self._joined()
            if self._renewed(self._held):
                pause = renewal_seconds(self._held.member.lease_seconds)
            else:
                self._held = None
        except LeaseRefused:
            self._refused = "" if self._held is None else self._held.member.id
            self._held = None
        except Error as error:
            if self._logged.allows(error.message):
                logger.warning("%s", error.message)
        try:
            self._watch.look()
        except Error as error:
            if self._logged.allows(error.message):
                logger.warning("%s", error.message)
        return pause

    def _found(self) -> _Held | None:
        """Go on with a member of an earlier runner: the engine refuses if its lease has ended."""
        member = members.live(self._database, self._replica_n)
        return None if member is None or member.id == self._refused else _Held(member)

    def _joined(self) -> _Held:
        """Begin a new lease. Raises Error, LeaseRefused."""
        seen = self._engine.seen()
        member = Member(
            token(24),
            self._replica_n,
            seen.incarnation,
            seen.certificate,
            self._lease_seconds,
            0,
            MemberState.JOINING,
            0,
        )
        # Leases of other replicas at the same address go on.
        replaced = [one.id for one in self._watch.look()]
        members.join(self._database, member)
        held = _Held(member)
        begun = Renewal(member.id, member.lease_seconds, begins=True, replaces=replaced)
        try:
            self._take(held, begun)
        except (Error, LeaseRefused):
            # Without a renewal its lease was never held.
            members.count_out(self._database, member)
            raise
        members.has_begun(self._database, member, replaced)
        return held

    def _renewed(self, held: _Held) -> bool:
        """Renew; False if the member has ended. Raises Error, LeaseRefused."""
        member = held.member
        if not held.nonce and not self._take(held, Renewal(member.id, member.lease_seconds)):
            return False
        if not self._take(held, Renewal(member.id, member.lease_seconds, held.nonce)):
            return False
        if member.state is MemberState.JOINING:
            held.member = members.go_live(self._database, member) or member
        return True

    def _take(self, held: _Held, renewal: Renewal) -> bool:
        """Send a renewal, and count the nonce in its answer before it can be sent; False if the member has ended.

        Counted at once and not when it is sent, so that the count of an engine stands still as soon as it is silent.
        """
        nonce = self._nonce(renewal, held.member)
        if not members.count_renewal(self._database, held.member.id):
            return False
        held.nonce = nonce
        return True

    def _nonce(self, renewal: Renewal, member: Member) -> str:
        """Send a renewal; return the engine's nonce. Raises Error, LeaseRefused."""
        nonce, seen = self._engine.renew(renewal)
        if seen != Seen(member.incarnation, member.certificate):
            raise LeaseRefused
        return nonce
