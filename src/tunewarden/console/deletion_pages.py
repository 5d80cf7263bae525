"""Deletions: what was deleted, step by step as it was recorded, and the receipt with how it is verified."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from starlette.responses import Response

from tunewarden.api import views
from tunewarden.api.deletion_schemas import Deletion as Shown
from tunewarden.console import following, lists, rendering, tables
from tunewarden.console.following import Mark
from tunewarden.console.paths import Page
from tunewarden.console.requests import Visit
from tunewarden.console.tables import Table
from tunewarden.deletion import records, unfinished
from tunewarden.deletion.protocol import Step
from tunewarden.deletion.records import Deletion
from tunewarden_receipts import receipt, summary

SECOND = 1_000_000
# What each step is, in the words of the protocol (deletion/protocol.py).
SAID = {
    Step.FENCE: "Fenced: no request begins on it, those in flight have ended",
    Step.EVICT: "Evicted: each engine was asked",
    Step.ERASE_KEY: "Key erased: no copy of it can be decrypted",
    Step.LOG: "In the log: the receipt is an entry of it",
    Step.FINISH: "Deleted: the answer to the request",
    Step.ERASE_BLOBS: "Sealed files erased",
}


@dataclass(frozen=True, slots=True)
class Moment:
    """A step of a deletion as it was recorded. `at` and `took` in seconds, None if it is not done or not known."""

    step: str
    said: str
    at: float | None
    took: float | None
    is_done: bool


def _read(visit: Visit, after: str | None, limit: int) -> tuple[Sequence[Shown], str | None]:
    found = records.page(
        visit.operations.database,
        visit.caller,
        after=after,
        limit=limit + 1,
        status=_status(visit) or None,
    )
    rows, cursor = lists.cut(found, lambda one: one.id, limit)
    return [views.deletion_object(one) for one in rows], cursor


def _status(visit: Visit) -> str:
    return visit.asked.asked_choice("state", records.STATUSES)


DELETIONS = Table[Shown](
    "deletions",
    _read,
    {
        "id": lambda one: one.id,
        "model": lambda one: one.model or None,
        "file": lambda one: one.file or None,
        "status": lambda one: one.status,
        "requested_at": lambda one: tables.moment(one.requested_at),
        "requested_by": lambda one: one.requested_by,
        "deleted_at": lambda one: tables.moment(one.deleted_at),
        "blobs_erased_at": lambda one: tables.moment(one.blobs_erased_at),
        "log_index": lambda one: one.log_index,
        "blobs_log_index": lambda one: one.blobs_log_index,
    },
)


@tables.also_as(DELETIONS)
def list_deletions(visit: Visit) -> Response:
    """Return a page of deletions, the newest first, all or those in one state."""
    _, values = DELETIONS.page(visit)
    values |= {
        "state": _status(visit),
        "states": list(records.STATUSES),
        "counts": unfinished.counted_of(visit.operations.database, visit.caller),
    }
    return rendering.page(visit, "deletions.html", values)


def show_deletion(visit: Visit) -> Response:
    """Return one deletion: its recorded steps, each worker and engine, what remains, the receipt."""
    deletion = _find(visit)
    lines = _receipt_lines(visit, deletion)
    values = {
        "deletion": views.deletion_object(deletion),
        "artifact": deletion.artifact_id,
        "moments": list(timeline(deletion)),
        "parts": [
            views.deletion_object(one)
            for one in records.parts_of(visit.operations.database, deletion)
        ],
        "lines": lines,
        "fingerprint": dict(lines).get("log key", ""),
    }
    return rendering.page(visit, "deletion.html", values)


async def follow_deletion(visit: Visit) -> Response:
    """Tell the browser whenever a deletion has come further."""
    return await following.follow(visit, _mark)


def _mark(visit: Visit) -> Mark:
    """Return how far a deletion is. A page without the receipt follows it up to the answer, and is then another page."""
    deletion = _find(visit)
    is_answered = visit.asked.asked_for("until") == "answer" and deletion.is_deleted
    return Mark(is_answered or deletion.next_step is None, deletion.stage.name)


def download_receipt(visit: Visit) -> Response:
    """Return the receipt: the exact bytes that are stored with the deletion."""
    deletion = _find(visit)
    stored = records.receipt_of(deletion)
    headers = {"content-disposition": f'attachment; filename="{deletion.id}.receipt.json"'}
    return Response(stored, media_type=receipt.media_type_of(stored), headers=headers)


def timeline(deletion: Deletion) -> Iterator[Moment]:
    """Yield the request, and each step that follows its commit point."""
    at = deletion.requested_at / SECOND
    yield Moment(
        "D1-D3",
        "Requested, checked and committed: from here it goes on",
        at,
        took=None,
        is_done=True,
    )
    ends = (
        deletion.fenced_at,
        deletion.evicted_at,
        deletion.key_erased_at,
        deletion.logged_at,
        deletion.deleted_at,
        deletion.blobs_erased_at,
    )
    took = deletion.step_micros
    for step, end in zip(Step, ends, strict=True):
        seconds = took[step] / SECOND if step in took else None
        moment = None if end is None else end / SECOND
        yield Moment(step.value, SAID[step], moment, seconds, step.is_done_in(deletion.stage))


def _receipt_lines(visit: Visit, deletion: Deletion) -> list[tuple[str, str]]:
    """Return what the receipt says, verified with this server's own keys; nothing while there is none."""
    if deletion.receipt is None:
        return []
    _, signer = visit.operations.open_log()
    return summary.lines(signer.chain.verified(deletion.receipt))


def _find(visit: Visit) -> Deletion:
    deletion_id = visit.asked.segments["deletion_id"]
    return records.find_own(visit.operations.database, visit.caller, deletion_id)


PAGES = (
    Page("GET", "/console/deletions", list_deletions),
    Page("GET", "/console/deletions/{deletion_id}", show_deletion),
    Page("GET", "/console/deletions/{deletion_id}/receipt", download_receipt),
    Page("GET", "/console/deletions/{deletion_id}/changes", follow_deletion),
)
