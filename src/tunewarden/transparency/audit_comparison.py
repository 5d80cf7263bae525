"""How events are compared with what a digest keeps of them: by the server, and by who checks over HTTP."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tunewarden.audit.digests import Entry
from tunewarden.audit.events import EventType
from tunewarden.audit.retention import DAY_MICROS, DAYS_MIN
from tunewarden.clock import to_micros

# Writers take turns, so that times follow numbers; but a clock may be adjusted by a little.
LATE_MICROS = 3600 * 1_000_000
BACKDATED = (
    "an event is older than those of earlier digests: it was back-dated, or the clock was set back"
)
# Of a line without a time: no event has such a line, and its hash says so.
NO_TIME = 2**62
_EXPIRED = EventType.AUDIT_EXPIRED.value.encode()


@dataclass(frozen=True, slots=True)
class _Gone:
    """A part that lacks events, the first of them, and when its digest was made, which the log says."""

    number: int
    digest: int
    event_id: str
    digested_at: int


class Expiries:
    """Whether an organization's events are gone because of its retention period. That a part has expired proves nothing.

    Parts expire oldest first, each with an event that names it. Those events expire too, but that of the last part has
    not: it is later than every part that has. And no part expires before its digest has the age of the shortest period.
    """

    def __init__(self) -> None:
        self._gone: list[_Gone] = []
        self._said: list[tuple[int, int]] = []

    def add_gone(
        self, number: int, digest: int, event_id: str, digested_at: datetime | None
    ) -> None:
        """Note the first event that an expired part lacks; without a leaf of its digest nothing may be gone."""
        at = NO_TIME if digested_at is None else to_micros(digested_at)
        self._gone.append(_Gone(number, digest, event_id, at))

    def add_line(self, line: bytes) -> None:
        """Note what an event says, if it is that of a part that expired."""
        if _EXPIRED not in line:
            return
        event = read(line)
        details = event.get("details")
        number = details.get("part") if isinstance(details, dict) else None
        if event.get("type") == EventType.AUDIT_EXPIRED and isinstance(number, int):
            self._said.append((number, time_of(line)))

    def unjustified(self, now: int) -> Iterator[tuple[str, int, str]]:
        """Yield what is wrong, the digest and the event, of each part whose events no retention period deleted."""
        for gone in self._gone:
            times = [
                at for number, at in self._said if number >= gone.number and at <= now + LATE_MICROS
            ]
            if not times:
                yield (
                    "an event is missing, and none says that it expired",
                    gone.digest,
                    gone.event_id,
                )
            elif max(times) - gone.digested_at < DAYS_MIN * DAY_MICROS:
                what = f"an event is missing that cannot have expired: it was not kept for {DAYS_MIN} days"
                yield what, gone.digest, gone.event_id


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


def first_gone(entries: list[Entry], found: list[Entry]) -> str | None:
    """Return the id of the first event that is not there; None if all are."""
    there = {event.id for event in found}
    return next((entry.id for entry in entries if entry.id not in there), None)


def oldest_allowed(newest_at: int) -> int:
    """Return how old an event may be that comes after one of this time; both in microseconds since 1970."""
    return newest_at - LATE_MICROS


def first_backdated(times: Iterable[tuple[str, int]], newest_at: int) -> str | None:
    """Return the first event, of ids and times, that is too old to come after one of a time; None if none is."""
    oldest = oldest_allowed(newest_at)
    return next((event_id for event_id, at in times if at < oldest), None)


def time_of(line: bytes) -> int:
    """Return when the event of a line happened, in microseconds since 1970; NO_TIME if it does not say."""
    try:
        return to_micros(datetime.fromisoformat(read(line)["effective_at"]))
    except (KeyError, TypeError, ValueError):
        return NO_TIME


def read(line: bytes) -> dict[str, Any]:
    """Return the event of a line; without members if it is not one."""
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
