"""Pauses expiry after the wall clock jumped, ahead or back, until an operator resumes it: expiry deletes for good.

While the runner lives, the wall clock is compared with the clock since boot; at its start, with the last stored
time: a restored database, a wrong clock and a long downtime cannot be told apart, and all pause. A clock that is
set back pauses too: what is made by it is due too early once it is right again.
"""

from dataclasses import dataclass

from tunewarden import audit
from tunewarden.clock import Clock, to_micros
from tunewarden.db.database import Database, Tx
from tunewarden.deletion.recovery import HighWaterMark
from tunewarden.registry import retention_pause
from tunewarden.registry.retention_pause import PauseReason

JUMP_MICROS = 24 * 3600 * 1_000_000
# How often the time is stored: each time costs a commit.
NOTE_MICROS = 600 * 1_000_000


@dataclass(frozen=True, slots=True)
class Pause:
    """When expiry was paused (microseconds since 1970, by the clock that jumped), and the jump: negative if back."""

    since: int
    jumped_micros: int


def pause_of(database: Database) -> Pause | None:
    """Return the pause, if there is one."""
    row = database.peek(
        "SELECT paused_at, jumped_micros FROM clock_seen WHERE paused_at IS NOT NULL"
    )
    return Pause(int(row[0]), int(row[1])) if row else None


def resume(database: Database, clock: Clock) -> bool:
    """Resume expiry by the present clock; False if it was not paused."""
    with database.write(below_floor=True) as tx:
        was_paused = bool(
            tx.run(
                "UPDATE clock_seen SET paused_at = NULL, jumped_micros = 0, seen_at = :now"
                " WHERE paused_at IS NOT NULL",
                now=to_micros(clock.now()),
            )
        )
        if was_paused:
            _record(tx, audit.EventType.EXPIRY_RESUMED)
            # Also of organizations whose first rule is newer: an Owner checks the dates that the clock has left.
            retention_pause.pause_all(tx, PauseReason.CLOCK)
    return was_paused


def untrusted(database: Database, clock: Clock, mark: HighWaterMark) -> PauseReason | None:
    """Return why what ages by the clock must wait; None if nothing is known against it.

    For work outside of a runner. `mark` is of `clock_seen.mark`: an older database is a restored one (I10).
    """
    if was_restored(database, mark):
        return PauseReason.RESTORE
    row = database.peek("SELECT seen_at, paused_at FROM clock_seen")
    if row is None:
        return None
    is_jump = _is_jump(to_micros(clock.now()) - int(row[0]))
    return PauseReason.CLOCK if is_jump or row[1] is not None else None


def was_restored(database: Database, mark: HighWaterMark) -> bool:
    """Return whether the database is older than the mark says, by more than NOTE_MICROS; if so, retention is paused."""
    row = database.peek("SELECT mark FROM clock_seen")
    marked = mark.read()
    if marked == 0 or (row is not None and row[0] >= marked):
        return False
    with database.write(below_floor=True) as tx:
        retention_pause.pause_all(tx, PauseReason.RESTORE)
        # Paused once: an Owner who resumes has seen it.
        tx.run(
            "INSERT INTO clock_seen (one, seen_at, jumped_micros, mark) VALUES (1, :marked, 0, :marked)"
            " ON CONFLICT (one) DO UPDATE SET seen_at = excluded.seen_at, mark = excluded.mark"
            " WHERE clock_seen.mark < excluded.mark",
            marked=marked,
        )
    return True


class ClockWatch:
    """Compares the clocks for one runner. `mark` is raised to `clock_seen.mark`."""

    def __init__(self, database: Database, clock: Clock, mark: HighWaterMark) -> None:
        self._database = database
        self._clock = clock
        self._mark = mark
        # Wall time minus time since boot, at this runner's start or the last resume.
        self._difference: int | None = None

    def trusted_now(self) -> int | None:
        """Return the wall time in microseconds; None while expiry is paused."""
        if self._difference is None:
            was_restored(self._database, self._mark)
        now = to_micros(self._clock.now())
        difference = now - int(self._clock.monotonic() * 1_000_000)
        row = self._database.peek("SELECT seen_at, paused_at FROM clock_seen")
        if row is not None and row[1] is not None:
            self._difference = None
            return None
        seen_at = now if row is None else int(row[0])
        if self._difference is None:
            self._difference = difference
            jumped = now - seen_at
        else:
            jumped = difference - self._difference
        is_jump = _is_jump(jumped)
        if row is None or is_jump or abs(now - seen_at) > NOTE_MICROS:
            with self._database.write(below_floor=True) as tx:
                mark = _note(tx, now if not is_jump else seen_at, now if is_jump else None, jumped)
                if is_jump:
                    _record(tx, audit.EventType.EXPIRY_PAUSED)
                    retention_pause.pause_all(tx, PauseReason.CLOCK)
            if is_jump:
                self._difference = None  # also if somebody resumes before the next look
            else:
                self._mark.raise_to(mark)  # after the commit: a crash leaves the database ahead
        return None if is_jump else now


def _record(tx: Tx, event: audit.EventType) -> None:
    """Record it among the operator's events: it concerns all organizations."""
    audit.record(tx, event, organization_id="", actor=audit.SERVER, resource_id="expiry")


def _is_jump(micros: int) -> bool:
    return abs(micros) > JUMP_MICROS


def _note(tx: Tx, seen_at: int, paused_at: int | None, jumped_micros: int) -> int:
    """Note the time and the pause; return the new mark, which grows with each note, also by a clock that was set back."""
    row = tx.row("SELECT mark FROM clock_seen")
    mark = max(seen_at, 0 if row is None else int(row[0]) + 1)
    tx.run(
        "INSERT INTO clock_seen (one, seen_at, paused_at, jumped_micros, mark)"
        " VALUES (1, :seen_at, :paused_at, :jumped, :mark) ON CONFLICT (one) DO UPDATE"
        " SET seen_at = excluded.seen_at, paused_at = excluded.paused_at,"
        " jumped_micros = excluded.jumped_micros, mark = excluded.mark",
        seen_at=seen_at,
        mark=mark,
        paused_at=paused_at,
        jumped=jumped_micros if paused_at is not None else 0,
    )
    return mark
