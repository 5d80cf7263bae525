"""Deletion plans, with what is known of a model's use and what its engines say now."""

from dataclasses import replace

from tunewarden.api import deletion_schemas, views
from tunewarden.api.parameters import Context
from tunewarden.deletion import plan
from tunewarden.identity.policy import Action
from tunewarden.registry import usage
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden.registry.models import Model


def shown(
    context: Context,
    kind: ArtifactKind,
    artifact_id: str,
    needed: Action | None = None,
    *,
    if_match: str | None = None,
) -> deletion_schemas.DeletionPlan:
    """Return the plan of deleting a model or a file. Blocks until the engines have answered.

    Raises Error(FORBIDDEN), Error(NOT_FOUND), Error(CONFLICT) for an alias, Error(PRECONDITION_FAILED) if it is not the
    plan that `if_match` names. `needed`: what the caller must be allowed to do, beside reading.
    """
    of = context.operations
    found = plan.plan(
        of.database,
        context.caller,
        kind,
        artifact_id,
        needed=needed,
        is_served=of.executor.is_served,
    )
    plan.check_seen(found, if_match)
    said = views.plan_object(found)
    model = found.artifact
    if isinstance(model, Model):
        with of.database.read() as tx:
            used = usage.of_model(tx, model.organization_id, model.id)
            if of.executor.is_served(model):
                used = replace(used, last_used_at=tx.now_micros)
        said.usage = views.usage_object(model.id, used)
        said.engines = views.engines_object(of.adapter_states.of(model)).data
    return said
