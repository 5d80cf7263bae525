"""Deleting a model or a file, as a page of its own: what goes, what blocks it and what lifts that, what to type.

The form carries the fingerprint of the plan that was shown: what has changed since is shown, and nothing is deleted.
A file goes alone, or as one case with everything that learned from it.
"""

from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tunewarden import problems
from tunewarden.api import plans
from tunewarden.api.deletion_schemas import DeletionPlan
from tunewarden.console import confirming, rendering
from tunewarden.console.model_pages import found_model
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.console.shown import segment
from tunewarden.deletion import case_rows, records
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.requests import Attempt
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Action
from tunewarden.registry.artifacts import ArtifactKind


@dataclass(frozen=True, slots=True)
class Target:
    """What a page deletes: a model or a file by its id, `with_models` everything that learned from the file too."""

    kind: ArtifactKind
    id: str
    with_models: bool = False

    @property
    def page(self) -> str:
        """The page about it."""
        return f"/console/{self.kind.value}s/{segment(self.id)}"


def show(visit: Visit) -> Response:
    """Return the plan, with the form if nothing blocks it."""
    return _page(visit, "", 200)


async def delete(visit: Visit) -> Response:
    """Delete, and lead to the deletion or the case, which is done then or goes on."""
    target = _target(visit)
    # Of a case as the form says it: what has changed since, the fingerprint finds.
    sentence = visit.asked.sent("sentence") if target.with_models else target.id
    refused = await confirming.refusal(visit, sentence, _page)
    if refused is not None:
        return refused
    try:
        fingerprint = confirming.fingerprint(visit)
    except Error as error:
        return await run_in_threadpool(_refused, visit, target, error)
    attempt = Attempt(
        idempotency_key=visit.asked.sent("attempt") or None,
        if_match=fingerprint,
        force=confirming.is_forced(visit),
        with_models=target.with_models,
    )
    deleting = visit.asked.services.deleting
    try:
        done = await deleting.delete(visit.caller, target.kind, target.id, attempt)
    except Error as error:
        return await run_in_threadpool(_refused, visit, target, error)
    return await run_in_threadpool(_done, visit, target, done)


def _done(visit: Visit, target: Target, deletion: Deletion) -> Response:
    if target.with_models:
        with visit.operations.database.read() as tx:
            case = case_rows.of_origin(tx, deletion.artifact_n)
        if case is not None:
            return rendering.to(f"/console/cases/{case.id}")
    return rendering.to(f"/console/deletions/{deletion.id}")


def _refused(visit: Visit, target: Target, refused: Error) -> Response:
    """Return the page of a deletion that did not begin, or lead to one that goes on after its bound."""
    if refused.kind in {Kind.PRECONDITION_FAILED, Kind.CONFLICT}:
        why = "" if refused.kind is Kind.PRECONDITION_FAILED else f" {refused.message}"
        return _page(visit, f"Nothing was deleted.{why}", problems.WIRE[refused.kind][0])
    if refused.kind is Kind.UNAVAILABLE:
        found = records.of_artifact(visit.operations.database, visit.caller, target.id)
        if found is not None:
            return _done(visit, target, found)
    raise refused


def _page(visit: Visit, message: str, status: int) -> Response:
    target = _target(visit)
    if target.kind is ArtifactKind.MODEL:
        found_model(visit)
    plan = _plan(visit, target)
    learned = plan.learned or None
    blockers = learned.blockers if target.with_models and learned else plan.blockers
    values: dict[str, Any] = {
        "target": target,
        "plan": plan,
        "learned": learned,
        "message": message,
        "sentence": _sentence(target, plan),
        "seen": confirming.seen(plan),
        "changed": [],
        **confirming.parted(visit, blockers),
        **confirming.form(visit),
    }
    if status == problems.WIRE[Kind.PRECONDITION_FAILED][0]:
        values["typed"] = ""  # for something else than what is shown now
        values["changed"] = confirming.changed(visit.asked.sent("seen"), plan)
    return rendering.page(visit, "delete.html", values, status=status)


def _plan(visit: Visit, target: Target) -> DeletionPlan:
    return plans.shown(visit.context, target.kind, target.id, Action.DELETE)


def _sentence(target: Target, plan: DeletionPlan) -> str:
    """Return what is to be typed: the id, or one sentence for many."""
    if not target.with_models or not plan.learned:
        return target.id
    learned = plan.learned
    count = len({target.id, *learned.models, *learned.checkpoints, *learned.files})
    return f"delete {count} models and files"


def _target(visit: Visit) -> Target:
    segments = visit.asked.segments
    if "model_id" in segments:
        return Target(ArtifactKind.MODEL, segments["model_id"])
    is_case = "models" in {visit.asked.asked_for("with"), visit.asked.sent("with")}
    return Target(ArtifactKind.FILE, segments["file_id"], with_models=is_case)


PAGES = (
    Page("GET", "/console/models/{model_id}/delete", show),
    Page("POST", "/console/models/{model_id}/delete", delete),
    Page("GET", "/console/files/{file_id}/delete", show),
    Page("POST", "/console/files/{file_id}/delete", delete),
)
