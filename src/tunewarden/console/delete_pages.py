"""Deleting a model, as a page of its own: what goes, what blocks it and what lifts that, the typed id, the deletion.

The form carries the fingerprint of the plan that was shown: what has changed since is shown, and nothing is deleted.
"""

import json
from collections.abc import Iterator
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tunewarden import problems
from tunewarden.api import plans
from tunewarden.api.deletion_schemas import DeletionPlan
from tunewarden.console import rendering
from tunewarden.console.model_pages import found_model
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.deletion import records
from tunewarden.deletion.requests import Attempt
from tunewarden.errors import Error, Kind
from tunewarden.identity import key_format, sessions
from tunewarden.identity.policy import Action
from tunewarden.ids import token
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden.registry.models import Model

KEY_LENGTH = 32
# What a plan says that may change until it is confirmed, in a person's words.
PARTS = {
    "checkpoints": "Checkpoints",
    "blobs": "Sealed files",
    "bytes": "Bytes",
    "blockers": "Blockers",
    "aliases": "Aliases",
    "jobs": "Jobs",
    "derived_files": "Files made from it",
    "exports": "Exports",
}


def show(visit: Visit) -> Response:
    """Return the plan of deleting a model, with the form if nothing blocks it."""
    return _page(visit, found_model(visit))


async def delete(visit: Visit) -> Response:
    """Delete a model, and lead to its deletion, which is done then or goes on."""
    asked, model_id = visit.asked, visit.asked.segments["model_id"]
    if asked.sent("confirmation").strip() != model_id:
        said = "What you typed is not the id of this model. Nothing was deleted."
        return await run_in_threadpool(_again, visit, said, 400)
    try:
        await run_in_threadpool(_prove, visit)
    except Error as refused:
        if refused.kind is not Kind.UNAUTHENTICATED:
            raise
        asked.services.sign_ins.take(asked.operations.clock)
        return await run_in_threadpool(_again, visit, refused.message, 403)
    attempt = Attempt(
        # The form sent twice, by its button or by going back, is one request.
        idempotency_key=asked.sent("attempt") or None,
        if_match=asked.sent("fingerprint"),
        force=_is_forced(visit),
    )
    try:
        done = await asked.services.deleting.delete(
            visit.caller, ArtifactKind.MODEL, model_id, attempt
        )
        return rendering.to(f"/console/deletions/{done.id}")
    except Error as refused:
        return await run_in_threadpool(_refused, visit, refused)


def _refused(visit: Visit, refused: Error) -> Response:
    """Return the page of a deletion that did not begin, or lead to one that goes on after its bound."""
    if refused.kind in {Kind.PRECONDITION_FAILED, Kind.CONFLICT}:
        return _again(visit, "Nothing was deleted.", problems.WIRE[refused.kind][0])
    if refused.kind is Kind.UNAVAILABLE:
        model_id = visit.asked.segments["model_id"]
        found = records.of_artifact(visit.operations.database, visit.caller, model_id)
        if found is not None:
            return rendering.to(f"/console/deletions/{found.id}")
    raise refused


def _again(visit: Visit, message: str, status: int) -> Response:
    return _page(visit, found_model(visit), message, status)


def _prove(visit: Visit) -> None:
    """Check that the caller has shown its key lately, or shows it now. Raises Error(UNAUTHENTICATED)."""
    if visit.session.has_fresh_proof:
        return
    presented = key_format.present(visit.asked.sent("key").strip())
    sessions.prove(visit.operations.database, visit.session, presented)


def _page(visit: Visit, model: Model, message: str = "", status: int = 200) -> Response:
    plan = plans.shown(visit.context, ArtifactKind.MODEL, model.id, Action.DELETE)
    is_forced = _is_forced(visit)
    blockers = [one for one in plan.blockers if not (is_forced and one.forcible)]
    values = {
        "model": model,
        "plan": plan,
        "message": message,
        "blockers": blockers,
        "overridden": [one for one in plan.blockers if is_forced and one.forcible],
        "can_force": bool(blockers) and all(one.forcible for one in blockers),
        "is_forced": is_forced,
        "needs_proof": not visit.session.has_fresh_proof,
        "attempt": token(KEY_LENGTH),
        "seen": json.dumps(_seen(plan)),
        "changed": list(_changed(visit.asked.sent("seen"), plan)) if status == 412 else [],
    }
    return rendering.page(visit, "delete.html", values, status=status)


def _is_forced(visit: Visit) -> bool:
    return "yes" in {visit.asked.sent("force"), visit.asked.asked_for("force")}


def _seen(plan: DeletionPlan) -> dict[str, Any]:
    """Return of a plan what its fingerprint covers, as the form takes it along."""
    whole = msgspec.to_builtins(plan)
    return {part: whole[part] for part in PARTS}


def _changed(seen: str, plan: DeletionPlan) -> Iterator[tuple[str, str, str]]:
    """Yield what has changed since a plan was shown: its name, what it was, what it is."""
    try:
        before = json.loads(seen)
    except ValueError:
        return
    if not isinstance(before, dict):
        return
    for part, now in _seen(plan).items():
        if part in before and before[part] != now:
            yield PARTS[part], _said(before[part]), _said(now)


def _said(value: object) -> str:
    if not isinstance(value, list):
        return str(value)
    return ", ".join(_named(one) for one in value) or "none"


def _named(one: object) -> str:
    if not isinstance(one, dict):
        return str(one)
    return " ".join(str(one[part]) for part in ("type", "id") if part in one)


PAGES = (
    Page("GET", "/console/models/{model_id}/delete", show),
    Page("POST", "/console/models/{model_id}/delete", delete),
)
