"""What a preview of a rule says that the rule does: a run that is bound to it does that, or less."""

import hashlib

from tunewarden.deletion.bulk.bulk_deletions import ITEMS_MAX
from tunewarden.deletion.bulk.results import Outcome
from tunewarden.deletion.plan import Plan
from tunewarden.errors import Error, Kind
from tunewarden.registry.criteria import Reason
from tunewarden.registry.retention_rules import Rule

ACTS = frozenset({Outcome.DELETE, Outcome.ARCHIVE, Outcome.ANNOUNCE})
NOT_PREVIEWED = Reason("not_previewed", "The preview that this run is bound to did not say so.")


class Fingerprint:
    """A digest of what a rule would do: equal while it is the same rule and does the same with the same models."""

    def __init__(self, rule: Rule) -> None:
        self._digest = hashlib.sha256(f"{rule.id} {rule.version}\n".encode())

    def add(self, model_id: str, outcome: Outcome, plan: Plan | None) -> None:
        """Add what the rule does with a model; what it leaves as it is does not count."""
        if outcome in ACTS:
            self._digest.update(_said(model_id, outcome, plan))

    def text(self) -> str:
        """Return it in hex."""
        return self._digest.hexdigest()


class Previewed:
    """The acts of one preview, the newest models first; `has_more`: it had more than a run does."""

    def __init__(self, rule: Rule) -> None:
        self._version = rule.version
        self._acts: set[bytes] = set()
        self.has_more = False

    def add(self, model_id: str, outcome: Outcome, plan: Plan | None) -> None:
        """Add what the rule does with a model."""
        if outcome not in ACTS:
            return
        if len(self._acts) == ITEMS_MAX:
            self.has_more = True
        else:
            self._acts.add(_said(model_id, outcome, plan))

    def __len__(self) -> int:
        """How many models it acts on."""
        return len(self._acts)

    def allows(self, model_id: str, outcome: Outcome, plan: Plan | None) -> bool:
        """Return whether a run may do this."""
        return outcome not in ACTS or _said(model_id, outcome, plan) in self._acts

    def check_rule(self, rule: Rule) -> None:
        """Check that the rule says what it said when it was previewed. Raises Error(PRECONDITION_FAILED)."""
        if rule.version != self._version:
            raise Error(
                Kind.PRECONDITION_FAILED,
                f"The retention rule '{rule.id}' was changed since it was previewed, and nothing was done. Preview it"
                " again.",
                param="If-Match",
                code="plan_changed",
            )


def _said(model_id: str, outcome: Outcome, plan: Plan | None) -> bytes:
    """Return a digest of what is done with a model, and with which checkpoints."""
    checkpoints = () if plan is None else (one.id for one in plan.checkpoints)
    return hashlib.sha256("\0".join((model_id, outcome.value, *checkpoints)).encode()).digest()
