"""What deleting a file with everything that learned from it would do: members, jobs, blockers (DESIGN, section 8)."""

from dataclasses import dataclass, replace

from tunewarden.db.database import Tx
from tunewarden.deletion import blockers, lineage
from tunewarden.deletion.blockers import Blocker
from tunewarden.deletion.lineage import Learned
from tunewarden.deletion.use import IsServed, not_seen
from tunewarden.finetuning import jobs
from tunewarden.identity.policy import Caller
from tunewarden.registry import artifacts
from tunewarden.registry.artifacts import Artifact, ArtifactKind


@dataclass(frozen=True, slots=True)
class Cascade:
    """Everything that learned from a file, and what deleting all of it with the file would do.

    `jobs` are those of the caller's project that have not ended: they are cancelled, as are `hidden_jobs` of others.
    `blockers` are of any member and of the file; none of them is a job. `blobs` and `sealed_bytes` are of the members.
    """

    learned: Learned
    jobs: tuple[str, ...]
    hidden_jobs: int
    blockers: tuple[Blocker, ...]
    blobs: int = 0
    sealed_bytes: int = 0

    @property
    def said(self) -> list[object]:
        """What a plan says of it, for the plan's fingerprint."""
        members = [
            (one.artifact.id, one.artifact.epoch, one.artifact.state, one.is_declared)
            for one in self.learned.members
        ]
        blocking = blockers.said(self.blockers)
        return [members, self.jobs, self.hidden_jobs, blocking, self.learned.hidden]

    def ids(self, kind: ArtifactKind, *, are_checkpoints: bool = False) -> list[str]:
        """Return the ids of members of a kind."""
        return [
            one.artifact.id
            for one in self.learned.members
            if one.kind is kind and one.is_checkpoint is are_checkpoints
        ]


def of(tx: Tx, caller: Caller, origin: Artifact, is_served: IsServed = not_seen) -> Cascade:
    """Return what deleting a file with its models would do; `is_served` sees use that has no rows yet."""
    learned = lineage.learned_from(tx, caller, origin)
    everything = [origin, *(one.artifact for one in learned.members)]
    own: dict[str, None] = {}
    foreign: set[str] = set()
    for one in everything:
        for job in jobs.unfinished_that_need(tx, one.n):
            if job.project_id == caller.project_id:
                own[job.id] = None
            else:
                foreign.add(job.id)
    blocking = blockers.of(tx, everything, is_served, with_jobs=False)
    return Cascade(learned, tuple(own), len(foreign), blocking)


def measured(tx: Tx, found: Cascade) -> Cascade:
    """Return it with the number and the size of the sealed blobs."""
    members = [one.artifact.n for one in found.learned.members]
    sizes = [blob.sealed_bytes for n in members for blob in artifacts.blobs_of(tx, n)]
    return replace(found, blobs=len(sizes), sealed_bytes=sum(sizes))
