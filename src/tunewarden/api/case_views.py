"""JSON representations of what learned from a file, and of cases."""

from collections.abc import Sequence

from msgspec import UNSET

from tunewarden.api import deletion_schemas as schemas
from tunewarden.deletion.blockers import Blocker
from tunewarden.deletion.case_rows import Case, CaseMember
from tunewarden.deletion.cases.cascade import Cascade
from tunewarden.registry.artifacts import ArtifactKind


def blocker_objects(found: Sequence[Blocker]) -> list[schemas.Blocker]:
    """Return what blocks a deletion."""
    return [
        schemas.Blocker(one.type.value, one.id, one.artifact_id, one.is_forcible) for one in found
    ]


def learned_object(found: Cascade) -> schemas.Learned:
    """Return everything that learned from a file."""
    learned = found.learned
    return schemas.Learned(
        models=found.ids(ArtifactKind.MODEL),
        checkpoints=found.ids(ArtifactKind.MODEL, are_checkpoints=True),
        files=found.ids(ArtifactKind.FILE),
        jobs=list(found.jobs),
        declared=[one.artifact.id for one in learned.members if one.is_declared],
        deleting=len(learned.under_way),
        hidden=learned.hidden,
        hidden_jobs=found.hidden_jobs,
        whole=learned.is_whole,
        blobs=found.blobs,
        bytes=found.sealed_bytes,
        blockers=blocker_objects(found.blockers),
    )


def outcome(case: Case) -> schemas.CaseOutcome:
    """Return a finished case for the answer to its request."""
    return schemas.CaseOutcome(case.id, case.status, case.size, case.hidden)


def case_object(case: Case, members: Sequence[CaseMember] | None = None) -> schemas.DeletionCase:
    """Return a case, with its members if they are given."""
    return schemas.DeletionCase(
        id=case.id,
        object="deletion.case",
        status=case.status,
        members=case.size,
        hidden=case.hidden,
        requested_by=case.requested_by,
        requested_at=case.requested_at / 1_000_000,
        finished_at=_seconds(case.finished_at),
        log_index=case.log_index,
        file=UNSET if case.origin_id is None else case.origin_id,
        data=UNSET if members is None else [_member_object(one) for one in members],
    )


def _member_object(member: CaseMember) -> schemas.CaseMember:
    is_model = member.kind == ArtifactKind.MODEL
    is_erased = member.blobs_erased_at is not None
    return schemas.CaseMember(
        deletion=member.deletion_id,
        object=f"{member.kind}.deletion",
        status="erased" if is_erased else "deleted" if member.deleted_at else "deleting",
        deleted_at=_seconds(member.deleted_at),
        blobs_erased_at=_seconds(member.blobs_erased_at),
        log_index=member.log_index,
        model=member.artifact_id if is_model else UNSET,
        file=UNSET if is_model else member.artifact_id,
    )


def _seconds(micros: int | None) -> float | None:
    return None if micros is None else micros / 1_000_000
