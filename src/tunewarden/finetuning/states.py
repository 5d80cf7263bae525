"""The states of a fine-tuning job and their transitions. Pure: `transitions.py` writes the rows.

What each event does (empty: nothing; the caller learns that the job has moved on):

    event          VALIDATING     HELD           QUEUED         PAUSED         RUNNING        PAUSING
    `VALIDATED`    -> QUEUED      -> PAUSED
    `STARTED`                                    -> RUNNING                    stays
    `PAUSE`        -> HELD        stays          -> PAUSED      stays          -> PAUSING     stays
    `PAUSED`                                                                                  -> PAUSED
    `RESUME`                      -> VALIDATING                 -> QUEUED
    `SUCCEEDED`                                                                -> SUCCEEDING  -> SUCCEEDING
    `FAILED`       -> FAILING     -> FAILING     -> FAILING     -> FAILING     -> FAILING     -> FAILING
    `CANCEL`       -> CANCELLING  -> CANCELLING  -> CANCELLING  -> CANCELLING  -> CANCELLING  -> CANCELLING

A job that ended is cleaned up: its trainer ends, its saved state is erased, and then it blocks no deletion any more.

    event          SUCCEEDING     FAILING        CANCELLING     SUCCEEDED      FAILED         CANCELLED
    `FINISHED`     -> SUCCEEDED   -> FAILED      -> CANCELLED
    `CANCEL`                                     stays                                        stays

PAUSE, RESUME and CANCEL come from callers (`commands.py`), the others from the runner, which holds the job's lock. A row
stores a state in four columns: `status` (OpenAI's word), `is_paused`, `wish`, and `finished_at`.
"""

from enum import Enum, StrEnum, auto
from typing import Any

COLUMNS = "status, is_paused, wish, finished_at"


class Status(StrEnum):
    """The status of a job, in OpenAI's words."""

    VALIDATING_FILES = "validating_files"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


# Final statuses.
ENDED = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})


class State(Enum):
    """The state of a job."""

    VALIDATING = auto()  # its files are being validated
    HELD = auto()  # the same, but it is paused: it will not start afterwards
    QUEUED = auto()  # it waits for its turn
    PAUSED = auto()  # it waits to be resumed
    RUNNING = auto()
    PAUSING = auto()  # its trainer is to save its state and end
    SUCCEEDING = auto()  # it ended, and cleanup is pending
    FAILING = auto()
    CANCELLING = auto()
    SUCCEEDED = auto()
    FAILED = auto()
    CANCELLED = auto()

    @property
    def status(self) -> Status:
        """The status in OpenAI's words."""
        return Status(_STORED[self][0])

    @property
    def has_ended(self) -> bool:
        """Whether training has ended for good."""
        return self.status in ENDED


class Event(Enum):
    """Events of a job."""

    VALIDATED = auto()
    STARTED = auto()
    PAUSE = auto()
    PAUSED = auto()
    RESUME = auto()
    SUCCEEDED = auto()
    FAILED = auto()
    CANCEL = auto()
    FINISHED = auto()


# States with a trainer, or with one that was running when the runner died.
TRAINING = frozenset({State.RUNNING, State.PAUSING})
FINISHED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
PAUSED = frozenset({State.HELD, State.PAUSED, State.PAUSING})
_UNENDED = (State.VALIDATING, State.HELD, State.QUEUED, State.PAUSED, *TRAINING)
TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.VALIDATING, Event.VALIDATED): State.QUEUED,
    (State.HELD, Event.VALIDATED): State.PAUSED,
    (State.QUEUED, Event.STARTED): State.RUNNING,
    (State.RUNNING, Event.STARTED): State.RUNNING,  # adopted after a crash
    (State.VALIDATING, Event.PAUSE): State.HELD,
    (State.QUEUED, Event.PAUSE): State.PAUSED,
    (State.RUNNING, Event.PAUSE): State.PAUSING,
    **{(state, Event.PAUSE): state for state in PAUSED},
    (State.PAUSING, Event.PAUSED): State.PAUSED,
    (State.HELD, Event.RESUME): State.VALIDATING,
    (State.PAUSED, Event.RESUME): State.QUEUED,
    **{(state, Event.SUCCEEDED): State.SUCCEEDING for state in TRAINING},
    **{(state, Event.FAILED): State.FAILING for state in _UNENDED},
    **{(state, Event.CANCEL): State.CANCELLING for state in (*_UNENDED, State.CANCELLING)},
    (State.CANCELLED, Event.CANCEL): State.CANCELLED,
    (State.SUCCEEDING, Event.FINISHED): State.SUCCEEDED,
    (State.FAILING, Event.FINISHED): State.FAILED,
    (State.CANCELLING, Event.FINISHED): State.CANCELLED,
}
# `status`, `is_paused` and `wish` in the row; `finished_at` is set in the last three.
_STORED: dict[State, tuple[str, int, str | None]] = {
    State.VALIDATING: ("validating_files", 0, None),
    State.HELD: ("validating_files", 1, None),
    State.QUEUED: ("queued", 0, None),
    State.PAUSED: ("queued", 1, None),
    State.RUNNING: ("running", 0, None),
    State.PAUSING: ("running", 0, "pause"),
    State.SUCCEEDING: ("succeeded", 0, None),
    State.FAILING: ("failed", 0, None),
    State.CANCELLING: ("cancelled", 0, "cancel"),
    State.SUCCEEDED: ("succeeded", 0, None),
    State.FAILED: ("failed", 0, None),
    State.CANCELLED: ("cancelled", 0, None),
}
_ENDINGS = {
    Status.SUCCEEDED: (State.SUCCEEDING, State.SUCCEEDED),
    Status.FAILED: (State.FAILING, State.FAILED),
    Status.CANCELLED: (State.CANCELLING, State.CANCELLED),
}


def stored(status: str, is_paused: int, wish: str | None, finished_at: int | None) -> State:
    """Return the state of a row, from COLUMNS."""
    match Status(status):
        case Status.VALIDATING_FILES:
            return State.HELD if is_paused else State.VALIDATING
        case Status.QUEUED:
            return State.PAUSED if is_paused else State.QUEUED
        case Status.RUNNING:
            return State.PAUSING if wish == "pause" else State.RUNNING
        case ended:
            ending, finished = _ENDINGS[ended]
            return ending if finished_at is None else finished


def written(state: State, now_micros: int) -> dict[str, Any]:
    """Return the columns of a row that enters this state now."""
    status, is_paused, wish = _STORED[state]
    columns: dict[str, Any] = {"status": status, "is_paused": is_paused, "wish": wish}
    return columns | ({"finished_at": now_micros} if state in FINISHED else {})
