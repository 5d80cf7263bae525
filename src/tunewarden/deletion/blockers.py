"""D2: what blocks a deletion, what lifts each blocker, and which of them `force` overrides."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tunewarden.db.database import Tx
from tunewarden.deletion import use
from tunewarden.deletion.use import IsServed, not_seen
from tunewarden.errors import Error, Kind
from tunewarden.finetuning import jobs
from tunewarden.registry import alias_rows, holds, models
from tunewarden.registry.artifacts import Artifact

NAMED_MAX = 5


class BlockerType(StrEnum):
    """What a blocker is; answers use these words."""

    HOLD = "hold"
    PROTECTED = "protected"
    ALIAS = "alias"
    JOB = "fine_tuning.job"
    IN_USE = "in_use"


# Code of the error, and what to do about it.
LIFTED_BY = {
    BlockerType.HOLD: (
        "on_hold",
        "An Owner must lift the hold first; `force` does not override it.",
    ),
    BlockerType.PROTECTED: ("protected", "Lift the protection, or delete with `force=true`."),
    BlockerType.ALIAS: (
        "alias_target",
        "Point the alias to another model first; or delete with `force=true`, which takes the model out of it.",
    ),
    BlockerType.JOB: (
        "needed_by_job",
        "Cancel it or wait for it, then delete; or delete with `force=true`, which cancels it.",
    ),
    BlockerType.IN_USE: (
        "in_use",
        "Your organization keeps models for a while after their last use. Wait, or delete with `force=true`.",
    ),
}
WHAT = {
    BlockerType.HOLD: "is on hold",
    BlockerType.PROTECTED: "is protected",
    BlockerType.ALIAS: "is what an alias means",
    BlockerType.JOB: "is needed by a fine-tuning job that has not ended",
    BlockerType.IN_USE: "is in use",
}


@dataclass(frozen=True, slots=True, order=True)
class Blocker:
    """One blocker: `id` of the hold, the job, or the model that is protected or in use, or an alias's name; and the artifact that it is about."""

    type: BlockerType
    id: str
    artifact_id: str

    @property
    def is_forcible(self) -> bool:
        """Whether `force` overrides it."""
        return self.type is not BlockerType.HOLD


def of(
    tx: Tx,
    artifacts: Sequence[Artifact],
    is_served: IsServed = not_seen,
    *,
    with_jobs: bool = True,
) -> tuple[Blocker, ...]:
    """Return what blocks the deletion of artifacts that go together, sorted; `is_served` sees use that has no rows yet."""
    blocked = _blocked(tx, artifacts, is_served)
    found = set()
    for one in artifacts:
        if one.n in blocked[BlockerType.HOLD]:
            held = holds.in_force_on(tx, one.n)
            found |= {Blocker(BlockerType.HOLD, hold, one.id) for hold in held}
        if with_jobs and one.n in blocked[BlockerType.JOB]:
            found |= {Blocker(BlockerType.JOB, job, one.id) for job in jobs.that_need(tx, one.n)}
        if one.n in blocked[BlockerType.ALIAS]:
            aliases = alias_rows.that_point_to(tx, one.n)
            found |= {Blocker(BlockerType.ALIAS, name, one.id) for _, name in aliases}
        for kind in (BlockerType.PROTECTED, BlockerType.IN_USE):
            if one.n in blocked[kind]:
                found.add(Blocker(kind, one.id, one.id))
    return tuple(sorted(found))


def free_among(
    tx: Tx, artifacts: Sequence[Artifact], is_served: IsServed = not_seen
) -> list[Artifact]:
    """Return those that nothing blocks."""
    blocked = set().union(*_blocked(tx, artifacts, is_served).values())
    return [one for one in artifacts if one.n not in blocked]


def _blocked(
    tx: Tx, artifacts: Sequence[Artifact], is_served: IsServed
) -> dict[BlockerType, set[int]]:
    """Return the numbers of what is blocked, by the type of its blockers: one statement each for all."""
    numbers = [one.n for one in artifacts]
    return {
        BlockerType.HOLD: holds.held_among(tx, numbers),
        BlockerType.JOB: jobs.needed_among(tx, numbers),
        BlockerType.ALIAS: alias_rows.targets_among(tx, numbers),
        BlockerType.PROTECTED: models.protected_among(tx, numbers),
        BlockerType.IN_USE: use.used_among(tx, artifacts, is_served),
    }


def said(blockers: Sequence[Blocker]) -> list[tuple[str, str, str]]:
    """Return what a plan's fingerprint says of blockers: nothing of use, or it would change with each request."""
    return [
        (one.type, one.id, one.artifact_id)
        for one in blockers
        if one.type is not BlockerType.IN_USE
    ]


def check(artifact_id: str, blockers: Sequence[Blocker], *, force: bool) -> None:
    """Check that nothing blocks the deletion of an artifact. Raises Error(CONFLICT), naming the first kind of blocker."""
    same = _in_the_way(blockers, force=force)
    if not same:
        return
    first = same[0]
    code, advice = LIFTED_BY[first.type]
    about = f"'{artifact_id}'"
    if first.artifact_id != artifact_id:
        about += f" has a checkpoint, '{first.artifact_id}', that"
    named = ""
    if first.type not in {BlockerType.PROTECTED, BlockerType.IN_USE}:
        ids = sorted({one.id for one in same})
        more = f" and {len(ids) - NAMED_MAX} more" if len(ids) > NAMED_MAX else ""
        named = f": {', '.join(ids[:NAMED_MAX])}{more}"
    raise Error(Kind.CONFLICT, f"{about} {WHAT[first.type]}{named}. {advice}", code=code)


def check_members(artifact_id: str, blockers: Sequence[Blocker], *, force: bool) -> None:
    """Check that nothing blocks the deletion of a file with what learned from it.

    Raises Error(CONFLICT), naming the members that the first kind of blocker is about.
    """
    same = _in_the_way(blockers, force=force)
    if not same:
        return
    code, advice = LIFTED_BY[same[0].type]
    of_member: dict[str, list[str]] = {}
    for one in same:
        of_member.setdefault(one.artifact_id, []).append(one.id)
    named = [
        f"'{member}'" + (f" ({', '.join(ids[:NAMED_MAX])})" if ids != [member] else "")
        for member, ids in of_member.items()
    ]
    more = f" and {len(named) - NAMED_MAX} more" if len(named) > NAMED_MAX else ""
    raise Error(
        Kind.CONFLICT,
        f"Nothing was deleted: of '{artifact_id}' and what learned from it, this {WHAT[same[0].type]}:"
        f" {', '.join(named[:NAMED_MAX])}{more}. {advice}",
        code=code,
    )


def _in_the_way(blockers: Sequence[Blocker], *, force: bool) -> list[Blocker]:
    """Return the blockers that are left, of one kind; holds first: nothing else needs doing while one is in force."""
    left = [one for one in blockers if not (force and one.is_forcible)]
    first = next((one for one in left if not one.is_forcible), left[0] if left else None)
    return [one for one in left if first is not None and one.type is first.type]
