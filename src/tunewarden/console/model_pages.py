"""The models of an organization, and one model with everything that hangs on it."""

from collections.abc import Sequence
from dataclasses import replace

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tunewarden.api import views
from tunewarden.console import confirming, lists, rendering, tables
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.console.shown import segment
from tunewarden.console.tables import Table
from tunewarden.deletion import records
from tunewarden.deletion.cases import artifact_lineage
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Action, allows
from tunewarden.registry import bases, catalog, model_pages
from tunewarden.registry.artifacts import ArtifactKind, State
from tunewarden.registry.holds import Hold
from tunewarden.registry.model_changes import Changes
from tunewarden.registry.model_pages import Chosen, ListedModel
from tunewarden.registry.models import Model

STATES = {state.value: state for state in (State.ACTIVE, State.ARCHIVED)}


def _read(visit: Visit, after: str | None, limit: int) -> tuple[Sequence[ListedModel], str | None]:
    of = visit.operations
    found = model_pages.page(
        of.database, visit.caller, _chosen(visit), after=after, limit=limit + 1
    )
    rows, cursor = lists.cut(found.models, lambda one: one.model.id, limit)
    # A request that is running has no row of its use yet: the list says of it what the API says.
    now = visit.session.now
    seen = [
        replace(one, last_used_at=now) if of.executor.is_served(one.model) else one for one in rows
    ]
    return seen, cursor or found.looked_to


def _chosen(visit: Visit) -> Chosen:
    asked = visit.asked
    return Chosen(
        base=asked.asked_for("base") or None,
        suffix=asked.asked_for("name").strip() or None,
        state=STATES.get(asked.asked_choice("state", STATES)),
    )


MODELS = Table[ListedModel](
    "models",
    _read,
    {
        "id": lambda one: one.model.id,
        "state": lambda one: one.model.state.value,
        "base": lambda one: one.model.base,
        "created_at": lambda one: tables.instant(one.model.created_at),
        "created_by": lambda one: one.model.created_by,
        "last_used_at": lambda one: tables.instant(one.last_used_at),
        "requests_last_day": lambda one: one.requests_last_day,
        "protected": lambda one: one.model.is_protected,
        "holds": lambda one: " ".join(one.holds),
        "aliases": lambda one: " ".join(one.aliases),
    },
)


@tables.also_as(MODELS)
def list_models(visit: Visit) -> Response:
    """Return a page of models, the newest first. An id in place of a name leads to that model."""
    database = visit.operations.database
    name = visit.asked.asked_for("name").strip()
    if name.startswith("ft:"):
        return rendering.to(f"/console/models/{segment(name)}")
    rows, values = MODELS.page(visit)
    values |= {
        "chosen": _chosen(visit),
        "now": visit.session.now,
        "may_delete": allows(visit.caller, Action.DELETE),
        "bases": [base.name for base in bases.list_all(database)],
        "looked_at": None if rows or values["next"] is None else model_pages.LOOKED_AT_MAX,
    }
    return rendering.page(visit, "models.html", values)


def show_model(visit: Visit) -> Response:
    """Return one model: its use, its names, what holds it, where it is loaded, what it learned from."""
    try:
        model = found_model(visit)
    except Error as refused:
        return _gone(visit, refused)
    of, caller = visit.operations, visit.caller
    used = catalog.usage_of(of.database, caller, model.id, of.executor.is_served)
    held: Sequence[Hold] = ()
    if allows(caller, Action.READ_HOLDS):
        held = of.holds.page(
            caller, artifact_id=model.id, is_in_force=True, after=None, limit=lists.PAGE_ROWS
        )
    listed: ListedModel = model_pages.one(of.database, caller, model)
    values = {
        "model": model,
        "listed": listed,
        "used": used,
        "held": held,
        "metadata": of.model_changes.metadata_of(model),
        "engines": views.engines_object(of.adapter_states.of(model)).data,
        "delete_action": Action.DELETE,
        "hold_action": Action.HOLD,
        "lineage": artifact_lineage.of_model(of.database, caller, model.id),
    }
    return rendering.page(visit, "model.html", values)


def _gone(visit: Visit, refused: Error) -> Response:
    """Return the refusal, with a link to the model's deletion if the caller may read it. Raises other errors."""
    if refused.kind is not Kind.NOT_FOUND or not allows(visit.caller, Action.READ_DELETIONS):
        raise refused
    model_id = visit.asked.segments["model_id"]
    deletion = records.of_artifact(visit.operations.database, visit.caller, model_id)
    if deletion is None:
        raise refused
    way_on = f"/console/deletions/{deletion.id}", "It was deleted: see its deletion"
    return rendering.refusal(refused, visit, way_on)


async def change_model(visit: Visit) -> Response:
    """Archive or protect a model, or undo that. Who takes its protection away proves who it is."""
    change = visit.asked.sent("change")
    changes = CHANGES.get(change)
    if changes is None:
        raise Error(Kind.INVALID, "The form does not say what to change.")
    if change == "unprotect":
        refused = await confirming.asked_again(visit, "Lift the protection")
        if refused is not None:
            return refused
    model_id = visit.asked.segments["model_id"]
    change_now = visit.operations.model_changes.change
    await run_in_threadpool(change_now, visit.caller, model_id, changes)
    return rendering.back(visit, f"/console/models/{segment(model_id)}")


@confirming.proved("Lift the hold")
def lift_hold(visit: Visit) -> Response:
    """Lift a hold, and go back to what it was on."""
    hold = visit.operations.holds.lift(visit.caller, visit.asked.segments["hold_id"])
    return rendering.back(visit, f"/console/{hold.kind.value}s/{segment(hold.artifact_id)}")


def place_hold(visit: Visit) -> Response:
    """Place a hold on a model."""
    model_id, reason = visit.asked.segments["model_id"], visit.asked.sent("reason").strip()
    visit.operations.holds.place(visit.caller, ArtifactKind.MODEL, model_id, reason)
    return rendering.to(f"/console/models/{segment(model_id)}")


def found_model(visit: Visit) -> Model:
    """Return the model of the path. Raises Error(NOT_FOUND), also for a base or an alias, which have no such page."""
    model_id = visit.asked.segments["model_id"]
    found = catalog.retrieve(visit.operations.database, visit.caller, model_id)
    if not isinstance(found, Model):
        said = (
            f"'{model_id[:100]}' is a base model or an alias. Only fine-tuned models have a page."
        )
        raise Error(Kind.NOT_FOUND, said)
    return found


CHANGES = {
    "archive": Changes(archived=True),
    "unarchive": Changes(archived=False),
    "protect": Changes(protected=True),
    "unprotect": Changes(protected=False),
}
PAGES = (
    Page("GET", "/console/models", list_models),
    Page("GET", "/console/models/{model_id}", show_model),
    Page("POST", "/console/models/{model_id}", change_model),
    Page("POST", "/console/models/{model_id}/holds", place_hold),
    Page("POST", "/console/holds/{hold_id}/lift", lift_hold),
)
