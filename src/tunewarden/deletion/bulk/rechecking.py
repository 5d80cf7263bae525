"""What D3 looks at once more of each member of a bulk deletion."""

from collections.abc import Mapping
from dataclasses import dataclass

from tunewarden.db.database import Tx
from tunewarden.deletion import plan
from tunewarden.deletion.bulk import choosing
from tunewarden.deletion.bulk.bulk_rows import SeenPlan
from tunewarden.deletion.use import IsServed
from tunewarden.identity.policy import Caller
from tunewarden.ids import Prefix
from tunewarden.registry.artifacts import Artifact, ArtifactKind
from tunewarden.registry.criteria import Criteria

Plans = Mapping[str, SeenPlan]
# No plan's fingerprint: of what was blocked when the plans were seen, and is free now.
NOT_SEEN = SeenPlan("-", 0)


@dataclass(frozen=True, slots=True)
class Recheck:
    """That the criteria choose it still, and that its plan is what was seen; `plans` are by ids."""

    caller: Caller
    criteria: Criteria | None
    now_micros: int
    plans: Plans | None
    is_served: IsServed

    @property
    def looks(self) -> bool:
        """Whether it looks at anything: ids that were sent without a plan are deleted whatever they are now."""
        return self.criteria is not None or self.plans is not None

    def __call__(self, tx: Tx, artifact: Artifact) -> None:
        """Raise Error(CONFLICT), Error(PRECONDITION_FAILED)."""
        if self.criteria is not None:
            choosing.check_still_chosen(
                tx, self.criteria, artifact, self.now_micros, self.is_served
            )
        if self.plans is None:
            return
        is_file = kind_of(artifact.id) is ArtifactKind.FILE
        now = (
            plan.with_cascade(tx, self.caller, artifact)
            if is_file
            else plan.of(tx, ArtifactKind.MODEL, artifact)
        )
        plan.check_seen(now, self.plans.get(artifact.id, NOT_SEEN).fingerprint)


def kind_of(artifact_id: str) -> ArtifactKind:
    """Return the kind that an id says; an alias or an unknown name counts as a model."""
    is_file = artifact_id.startswith(f"{Prefix.FILE}-")
    return ArtifactKind.FILE if is_file else ArtifactKind.MODEL
