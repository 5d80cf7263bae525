"""How events are compared with what a digest keeps of them: by the server, and by who checks over HTTP."""

from collections.abc import Iterable

from tunewarden.audit.digests import Entry

# Writers take turns, so that times follow numbers; but a clock may be adjusted by a little.
LATE_MICROS = 3600 * 1_000_000
BACKDATED = (
    "an event is older than those of earlier digests: it was back-dated, or the clock was set back"
)


def first_difference(
    entries: list[Entry], found: list[Entry], *, may_be_gone: bool
) -> tuple[str, str] | None:
    """Return what is wrong with the first event that is missing, changed or inserted, and its id; None if none is.

    `found` are the events that are there, in order. With `may_be_gone` events may be missing: their retention period
    deleted them.
    """
    kept = {entry.id for entry in entries}
    there = {event.id: event for event in found}
    for entry in entries:
        event = there.get(entry.id)
        if event is None:
            if may_be_gone:
                continue
            return "an event is missing", entry.id
        if event.hash != entry.hash:
            return "an event was changed", entry.id
    for event in found:
        if event.id not in kept:
            return "an event was inserted", event.id
    order = [event.id for event in found]
    expected = [entry.id for entry in entries if entry.id in there]
    for one, other in zip(order, expected, strict=True):
        if one != other:
            return "events are in another order", one
    return None


def oldest_allowed(newest_at: int) -> int:
    """Return how old an event may be that comes after one of this time; both in microseconds since 1970."""
    return newest_at - LATE_MICROS


def first_backdated(times: Iterable[tuple[str, int]], newest_at: int) -> str | None:
    """Return the first event, of ids and times, that is too old to come after one of a time; None if none is."""
    oldest = oldest_allowed(newest_at)
    return next((event_id for event_id, at in times if at < oldest), None)
