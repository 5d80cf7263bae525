"""The report of what deleting a file with its models would do now: also for who was refused because something is held.

A refused case leaves no row, so this is made from the plan when it is asked for. It says first that nothing was deleted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from tunewarden import __version__
from tunewarden.clock import Clock, from_micros, iso
from tunewarden.db.database import Database
from tunewarden.deletion import plan
from tunewarden.deletion.blockers import LIFTED_BY, Blocker, BlockerType
from tunewarden.deletion.cases import not_reached
from tunewarden.deletion.cases.cascade import Cascade
from tunewarden.deletion.cases.case_report import Found, ReportedExport
from tunewarden.deletion.cases.not_reached import NotReached
from tunewarden.deletion.plan import Plan
from tunewarden.deletion.use import IsServed
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden.registry.holds import Hold, Holds

Outcome = Literal["refused", "partial", "complete"]

NOTHING = "Nothing was deleted: this is the plan of a case, as of when the report was made. "
SAID: dict[Outcome, str] = {
    "refused": "Asked for now, the case would be refused, all of it: it deletes every member or none.",
    "partial": "Asked for now, the case would delete all members; what is in other projects would stay.",
    "complete": "Asked for now, the case would delete all members.",
}
TOO_LARGE = " There is more than one case can delete: delete models first."


class PlannedMember(Struct, frozen=True):
    """What the case would delete. `is_declared`: only an Owner's `trained_on` says that it learned from the file."""

    kind: str
    artifact: str
    is_checkpoint: bool
    is_declared: bool
    exports: list[ReportedExport]


class HoldInForce(Struct, frozen=True):
    """A hold on a member. `reason` is null for who is no Owner."""

    id: str
    artifact: str
    placed_at: str
    placed_by: str
    reason: str | None


class ReportedBlocker(Struct, frozen=True):
    """What else blocks the case: the type and id of a plan's blocker, the member, and the act that lifts it."""

    type: str
    id: str
    artifact: str
    forcible: bool
    lifted_by: str


class PlanReport(Struct, frozen=True):
    """The report of the plan of a case. `outcome` is what would become of it now, without `force`.

    `deleting` members of it are being deleted already. `jobs` would be cancelled, as would `hidden_jobs` of other
    projects. `fingerprint` is the plan's.
    """

    object: Literal["file.deletion_plan.report"]
    statement: str
    outcome: Outcome
    file: str
    made_at: str
    made_by: str
    software: str
    fingerprint: str
    found: Found
    members: list[PlannedMember]
    deleting: int
    jobs: list[str]
    hidden_jobs: int
    held: list[HoldInForce]
    blockers: list[ReportedBlocker]
    not_reached: list[NotReached]


@dataclass(frozen=True, slots=True)
class PlanReports:
    """Makes reports."""

    database: Database
    clock: Clock
    holds: Holds
    is_served: IsServed

    def of(self, caller: Caller, file_id: str) -> PlanReport:
        """Return the report of deleting a file with its models. Raises Error(FORBIDDEN, NOT_FOUND)."""
        authorize(caller, Action.READ_HOLDS)
        found = plan.plan(
            self.database, caller, ArtifactKind.FILE, file_id, is_served=self.is_served
        )
        cascade = found.cascade
        assert cascade is not None, "that of a file has one"
        held = [one.id for one in cascade.blockers if one.type is BlockerType.HOLD]
        members = list(_members(found, cascade))
        outcome = _outcome(cascade)
        return PlanReport(
            object="file.deletion_plan.report",
            statement=NOTHING + SAID[outcome] + ("" if cascade.learned.is_whole else TOO_LARGE),
            outcome=outcome,
            file=found.artifact.id,
            made_at=iso(self.clock.now()),
            made_by=caller.key_id,
            software=f"tunewarden {__version__}",
            fingerprint=found.fingerprint,
            found=Found(
                len(members),
                sum(one.kind == ArtifactKind.MODEL for one in members),
                sum(one.kind == ArtifactKind.FILE for one in members),
                cascade.learned.hidden,
            ),
            members=members,
            deleting=len(cascade.learned.under_way),
            jobs=list(cascade.jobs),
            hidden_jobs=cascade.hidden_jobs,
            held=[_hold(one) for one in self.holds.named(caller, held)],
            blockers=[_blocker(one) for one in cascade.blockers if one.is_forcible],
            not_reached=[
                *not_reached.counted(cascade.learned.hidden, len(found.exports)),
                *not_reached.unknown(),
            ],
        )


def _outcome(cascade: Cascade) -> Outcome:
    if cascade.blockers or not cascade.learned.is_whole:
        return "refused"
    return "partial" if cascade.learned.hidden else "complete"


def _members(found: Plan, cascade: Cascade) -> Iterator[PlannedMember]:
    exports: dict[str, list[ReportedExport]] = {}
    for model, made in found.exports:
        at = iso(from_micros(made.exported_at))
        exports.setdefault(model, []).append(ReportedExport(at, made.exported_by))
    yield PlannedMember(
        found.kind, found.artifact.id, is_checkpoint=False, is_declared=False, exports=[]
    )
    for one in cascade.learned.members:
        name = one.artifact.id
        made_of = exports.get(name, [])
        yield PlannedMember(one.kind, name, one.is_checkpoint, one.is_declared, made_of)


def _hold(hold: Hold) -> HoldInForce:
    placed = iso(from_micros(hold.placed_at))
    return HoldInForce(hold.id, hold.artifact_id, placed, hold.placed_by, hold.reason)


def _blocker(one: Blocker) -> ReportedBlocker:
    _, lifted_by = LIFTED_BY[one.type]
    return ReportedBlocker(one.type, one.id, one.artifact_id, one.is_forcible, lifted_by)
