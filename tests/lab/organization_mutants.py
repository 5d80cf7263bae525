"""Deletion in an organization, broken on purpose: each is the product with one thing wrong."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.lab.mutants import RecoveryWithoutTheLog
from tests.lab.organization_ground import Interrupted, Interruptible
from tests.lab.world import Parts

from tunewarden.deletion import blockers, plan, replay, together
from tunewarden.deletion.blockers import BlockerType
from tunewarden.deletion.executor import Joined
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.requests import Attempt
from tunewarden.deletion.retention.acting import Acting, Row
from tunewarden.errors import Error
from tunewarden.identity import keys
from tunewarden.identity.policy import Action, Caller
from tunewarden.registry import alias_rows, artifacts
from tunewarden.registry.artifacts import Artifact, ArtifactKind

Patch = Callable[[object, str, Any], None]
Mutant = Callable[[Patch], Parts]


def a_rule_does_not_look_again(patch: Patch) -> Parts:
    """What blocks is not read again in the transaction that commits (D3)."""
    patch(Acting, "on", lambda acting, row: acting._done(_model_of(acting, row), row))
    return Interrupted()


def _model_of(acting: Acting, row: Row) -> Artifact:
    """Return the model of a row."""
    found = artifacts.find_any(
        acting.tx, ArtifactKind.MODEL, acting.rule.organization_id, row.candidate.id
    )
    assert found is not None
    return found


def holds_block_no_model(patch: Patch) -> Parts:
    """Bulks and rules delete what is on hold."""
    of = plan.of

    def without_holds(*given: Any) -> plan.Plan:
        found = of(*given)
        left = tuple(one for one in found.blockers if one.type is not BlockerType.HOLD)
        return replace(found, blockers=left)

    patch(plan, "of", without_holds)
    return Interrupted()


def force_overrides_holds(patch: Patch) -> Parts:
    """`force` deletes what is on hold."""
    patch(blockers.Blocker, "is_forcible", property(lambda _: True))
    return Interrupted()


def aliases_block_nothing(patch: Patch) -> Parts:
    """A deletion without `force` takes what an alias means."""
    patch(alias_rows, "that_point_to", lambda _tx, _n: [])
    return Interrupted()


def a_role_is_not_read_again(patch: Patch) -> Parts:
    """Whoever was an Owner when the request was authenticated deletes."""
    patch(keys, "authorize_now", lambda _tx, _caller, _action: None)
    return Interrupted()


def checkpoints_stay(patch: Patch) -> Parts:
    """A model's checkpoints are not deleted with it."""
    patch(together, "_with_parents", lambda _tx, chosen: [(one, None) for one in chosen])
    return Interrupted()


def a_restore_keeps_aliases(patch: Patch) -> Parts:
    """What the log says was deleted stays what an older database's alias means."""
    patch(replay, "detach", lambda *_, **__: None)
    return Interrupted()


class _TwoTransactions(Interruptible):
    def begin(
        self, caller: Caller, kind: ArtifactKind, artifact_id: str, attempt: Attempt
    ) -> Deletion | Joined:
        if attempt.with_models and kind is ArtifactKind.FILE:
            self._first(caller, artifact_id)
        return super().begin(caller, kind, artifact_id, attempt)

    def _first(self, caller: Caller, file_id: str) -> None:
        """Commit the member that learned last alone."""
        try:
            found = plan.plan(self._database, caller, ArtifactKind.FILE, file_id)
            with self._database.write() as tx:
                keys.authorize_now(tx, caller, Action.DELETE)
                assert found.cascade is not None
                last = [one.artifact for one in found.cascade.learned.members][-1:]
                if not blockers.of(tx, last, with_jobs=False):
                    asked = together.Asked(
                        requested_by=caller.key_id, actor=caller.actor, log_size=0
                    )
                    together.commit_all(tx, last, asked)
        except Error:
            return


class _InTwoTransactions(Interrupted):
    executor_type = _TwoTransactions


def a_case_has_two_transactions(_patch: Patch) -> Parts:
    """One member is committed before the others."""
    return _InTwoTransactions()


class _WithoutTheLog(Interrupted, RecoveryWithoutTheLog):
    pass


def a_restore_forgets_the_log(_patch: Patch) -> Parts:
    """The log's deletions are not replayed."""
    return _WithoutTheLog()


# Those of the short form first: they are caught within a few runs.
MUTANTS: tuple[Mutant, ...] = (
    holds_block_no_model,
    force_overrides_holds,
    a_role_is_not_read_again,
    checkpoints_stay,
    a_rule_does_not_look_again,
    aliases_block_nothing,
    a_restore_keeps_aliases,
    a_case_has_two_transactions,
    a_restore_forgets_the_log,
)
