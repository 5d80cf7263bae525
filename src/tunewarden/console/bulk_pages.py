"""Deleting many models that were selected, by one plan and one sentence: what is blocked is spared, and why is said."""

from collections.abc import Iterable, Sequence

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tunewarden import problems
from tunewarden.console import confirming, rendering
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.deletion.bulk.bulk_deletions import Wanted
from tunewarden.deletion.bulk.results import Outcome, Result, Summary
from tunewarden.deletion.requests import Attempt
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Action, authorize

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
    attempt = Attempt(
        idempotency_key=visit.asked.sent("attempt") or None,
        if_match=visit.asked.sent("fingerprint"),
    )
    work = visit.asked.services.long_work
    try:
        with work.held(visit.caller.organization_id):
            groups = visit.operations.bulk_deletions.delete(visit.caller, _wanted(visit), attempt)
            results, summary = _parted(one for group in groups for one in group)
    except Error as refused:
        if refused.kind is Kind.PRECONDITION_FAILED:
            said = "Something has changed since you saw this. Nothing was deleted."
            return _page(visit, said, problems.WIRE[refused.kind][0])
        raise
    return rendering.page(visit, "deleted.html", {"results": results, "summary": summary})


def _page(visit: Visit, message: str, status: int) -> Response:
    authorize(visit.caller, Action.DELETE)
    if not _selected(visit):
        return rendering.to("/console/models")
    results, summary = _planned(visit)
    values = {
        "results": results,
        "summary": summary,
        "count": summary.counts[Outcome.DELETE],
        "sentence": _sentence(summary),
        "message": message,
        **confirming.form(visit),
    }
    return rendering.page(visit, "delete_many.html", values, status=status)


def _planned(visit: Visit) -> tuple[Sequence[Result], Summary]:
    return _parted(visit.operations.bulk_deletions.plan(visit.caller, _wanted(visit)))


def _parted(found: Iterable[Result | Summary]) -> tuple[Sequence[Result], Summary]:
    """Return the results, and the summary that ends them."""
    results: list[Result] = []
    summary = Summary()
    for one in found:
        if isinstance(one, Summary):
            summary = one
        else:
            results.append(one)
    return results, summary


def _sentence(summary: Summary) -> str:
    count = summary.counts[Outcome.DELETE]
    return f"delete {count} model{'' if count == 1 else 's'}"


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
