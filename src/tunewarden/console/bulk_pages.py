"""Deleting many models that were selected, by one plan and one sentence: what is blocked is spared, and why is said."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tunewarden import problems
from tunewarden.api import views
from tunewarden.console import confirming, rendering
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.deletion import records
from tunewarden.deletion.bulk.bulk_deletions import Wanted
from tunewarden.deletion.bulk.results import Outcome, Result, Summary
from tunewarden.deletion.requests import Attempt
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Action, authorize
from tunewarden.registry import export_rows, usage
from tunewarden.registry.artifacts import Artifact, ArtifactKind
from tunewarden.registry.models import Model

# What one page of a list can select, with room.
SELECTED_MAX = 100


def show(visit: Visit) -> Response:
    """Return what would go and what would be spared."""
    return _page(visit, "", 200)


async def delete(visit: Visit) -> Response:
    """Delete what the plan says; return what became of each."""
    # As the form says it: what has changed since, the fingerprint finds.
    refused = await confirming.refusal(visit, visit.asked.sent("sentence"), _page)
    if refused is not None:
        return refused
    return await run_in_threadpool(_deleted, visit)


def _deleted(visit: Visit) -> Response:
    authorize(visit.caller, Action.DELETE)
    work = visit.asked.services.long_work
    try:
        attempt = Attempt(
            idempotency_key=visit.asked.sent("attempt") or None,
            if_match=confirming.fingerprint(visit),
        )
        with work.held(visit.caller.organization_id):
            groups = visit.operations.bulk_deletions.delete(visit.caller, _wanted(visit), attempt)
            results, summary = parted(one for group in groups for one in group)
    except Error as refused:
        if refused.kind is Kind.PRECONDITION_FAILED:
            said = "Something has changed since you saw this. Nothing was deleted."
            return _page(visit, said, problems.WIRE[refused.kind][0])
        raise
    return outcome(visit, results, summary, ("/console/models", "Models"))


def outcome(
    visit: Visit, results: Sequence[Result], summary: Summary, way: tuple[str, str]
) -> Response:
    """Return what became of each. `way`: where one was, and its name."""
    values = {
        "results": results,
        "summary": summary,
        "went": _went(visit, results),
        "way": way,
        "spared": summary.counts[Outcome.SPARED]
        - sum(one.outcome is Outcome.SPARED for one in results),
    }
    return rendering.page(visit, "deleted.html", values)


def _went(visit: Visit, results: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """Return of each deletion the ids of the checkpoints that went with it, and of the exports that stay."""
    database = visit.operations.database
    begun = [records.find(database, one.deletion_id) for one in results if one.deletion_id]
    found = {}
    for one in begun:
        if one is None:
            continue
        parts = records.parts_of(database, one)
        with database.read() as tx:
            exports = [
                made.id
                for n in (one.artifact_n, *(part.artifact_n for part in parts))
                for made in export_rows.of(tx, n)
            ]
        found[one.id] = {"checkpoints": [part.artifact_id for part in parts], "exports": exports}
    return found


def _page(visit: Visit, message: str, status: int) -> Response:
    authorize(visit.caller, Action.DELETE)
    if not _selected(visit):
        said = "Nothing is selected, and nothing was deleted. Tick the models in their list first."
        back = rendering.ours(visit.asked.asked_for("then"), "/console/models")
        return rendering.refusal(Error(Kind.INVALID, said), visit, (back, "Go back to the list"))
    results, summary = _planned(visit)
    plans = {one.artifact_id: one.plan for one in results if one.plan is not None}
    going = _Going.of(results)
    values = {
        "results": results,
        "summary": summary,
        "plans": {artifact_id: views.plan_object(found) for artifact_id, found in plans.items()},
        "known": _known(visit, [one.artifact for one in plans.values()]),
        "count": summary.counts[Outcome.DELETE],
        "going": going,
        "sentence": going.sentence,
        "message": message,
        **confirming.form(visit),
    }
    if status == problems.WIRE[Kind.PRECONDITION_FAILED][0]:
        values["typed"] = ""  # for something else than what is shown now
    return rendering.page(visit, "delete_many.html", values, status=status)


@dataclass(frozen=True, slots=True)
class _Going:
    """What would go, by kind, each once: a checkpoint that was selected goes with its model too."""

    models: int
    checkpoints: int
    files: int
    bytes: int

    @staticmethod
    def of(results: Sequence[Result]) -> "_Going":
        plans = [
            one.plan for one in results if one.outcome is Outcome.DELETE and one.plan is not None
        ]
        checkpoints = {part.n for one in plans for part in one.checkpoints}
        alone = [one for one in plans if one.artifact.n not in checkpoints]
        kinds = Counter(one.kind for one in alone)
        return _Going(
            models=kinds[ArtifactKind.MODEL],
            checkpoints=len(checkpoints),
            files=kinds[ArtifactKind.FILE],
            bytes=sum(one.sealed_bytes for one in alone),
        )

    @property
    def sentence(self) -> str:
        """What is to be typed."""
        kinds = ((self.models, "model"), (self.checkpoints, "checkpoint"), (self.files, "file"))
        said = [f"{count} {name}{'' if count == 1 else 's'}" for count, name in kinds if count]
        return f"delete {' and '.join(said) or 'nothing'}"


def _known(visit: Visit, artifacts: Sequence[Artifact]) -> dict[str, dict[str, Any]]:
    """Return of models how they were used, and what their engines say now, by their ids."""
    of = visit.operations
    models = [one for one in artifacts if isinstance(one, Model)]
    engines = of.adapter_states.of_many(models)
    with of.database.read() as tx:
        used = {one.n: usage.of_model(tx, one.organization_id, one.id) for one in models}
        for one in models:
            if of.executor.is_served(one):
                used[one.n] = replace(used[one.n], last_used_at=tx.now_micros)
    return {
        one.id: {
            "usage": views.usage_object(one.id, used[one.n]),
            "engines": views.engines_object(engines[one.n]).data,
        }
        for one in models
    }


def _planned(visit: Visit) -> tuple[Sequence[Result], Summary]:
    return parted(visit.operations.bulk_deletions.plan(visit.caller, _wanted(visit)))


def parted(found: Iterable[Result | Summary]) -> tuple[Sequence[Result], Summary]:
    """Return the results, and the summary that ends them."""
    results: list[Result] = []
    summary = Summary()
    for one in found:
        if isinstance(one, Summary):
            summary = one
        else:
            results.append(one)
    return results, summary


def _wanted(visit: Visit) -> Wanted:
    return Wanted(ids=tuple(_selected(visit)))


def _selected(visit: Visit) -> list[str]:
    """Return the ids that were selected, each once. Raises Error(INVALID) for too many."""
    sent = visit.asked.form.get("id") or visit.asked.request.query_params.getlist("id")
    found = list(dict.fromkeys(sent))
    if len(found) > SELECTED_MAX:
        said = f"Select at most {SELECTED_MAX}. More go by `tunewarden deletions create`."
        raise Error(Kind.INVALID, said)
    return found


PAGES = (
    Page("GET", "/console/delete", show),
    Page("POST", "/console/delete", delete),
)
