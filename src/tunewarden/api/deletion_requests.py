"""The answer to DELETE for models and files, with the deletion's id in a header; or the plan, for a dry run."""

from starlette.concurrency import run_in_threadpool

from tunewarden.api import case_views, deletion_schemas, plans
from tunewarden.api.answers import JsonAnswer
from tunewarden.api.parameters import Context
from tunewarden.deletion import case_rows
from tunewarden.deletion.case_rows import Case
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.requests import Attempt
from tunewarden.identity.policy import Action
from tunewarden.registry.artifacts import ArtifactKind


async def answer(
    context: Context,
    kind: ArtifactKind,
    artifact_id: str,
    attempt: Attempt,
    *,
    is_dry_run: bool,
) -> JsonAnswer:
    """Answer a DELETE: delete the artifact, or say what that would do."""
    if is_dry_run:
        shown = await run_in_threadpool(
            plans.shown, context, kind, artifact_id, Action.DELETE, if_match=attempt.if_match
        )
        return JsonAnswer(
            deletion_schemas.DeleteAnswer(artifact_id, kind.value, deleted=False, plan=shown)
        )
    deletion = await context.services.deleting.delete(context.caller, kind, artifact_id, attempt)
    answered = deletion_schemas.DeleteAnswer(deletion.artifact_id, deletion.kind, deleted=True)
    headers = {"tunewarden-deletion": deletion.id}
    if attempt.with_models:
        case = await run_in_threadpool(_case_of, context, deletion)
        if case is not None:
            headers["tunewarden-deletion-case"] = case.id
            answered.deletion_case = case_views.outcome(case)
    return JsonAnswer(answered, headers=headers)


def _case_of(context: Context, deletion: Deletion) -> Case | None:
    with context.operations.database.read() as tx:
        return case_rows.of_origin(tx, deletion.artifact_n)
