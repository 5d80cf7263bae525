"""The deletion protocol: its steps, their order, and why. Pure: no I/O.

D1  Authenticate the caller and look up the model in its organization. Unknown, foreign and deleted
    models give the same 404 (I9); a base, or a caller without the Owner role, gets 403 (I8).
D2  Blockers are named (409).
D3  The commit point. One durable write transaction re-checks the Owner, sets the model `deleting`,
    increments its epoch, and writes the deletion's row and its audit event. No way back from here.
    A model's checkpoints are deleted with it: each gets its own deletion in the same transaction.
D4  Fence: no request begins on the model any more, and those in flight are aborted (I1, I2).
D5  Engines abort, evict and overwrite it. Before its files are erased: an engine reading them would crash.
D6  Its key is erased; no copy of its weights can be decrypted any more (I3).
D7  The receipt becomes a leaf of the log (I4). Not earlier: a receipt states only what was done (I17).
D8  Second transaction: `deleted`, with the exact receipt bytes. Only then a 200 may be sent.
D9  Afterwards, with retries: the blobs are erased (I15), and a second leaf states it.
D10 At start, and after a process died, unfinished deletions are resumed by the same steps.

A file is deleted by the same steps; no engine holds one, so D5 has nothing to do.

Every step is idempotent: a crash after a step and before its result is stored repeats it. A step's results
are stored (`records.record_facts`) before the leaf that repeats them, so that one deletion has one leaf.

The states of a deletion, and what each event does (empty: it cannot happen then). D4 to D6 are stored before D7, and D7
with D8: a crash returns a deletion to its stored state. A follower of a group commit stores D4 and D5 too.

    event             COMMITTED   FENCED        EVICTED        KEY_ERASED      LOGGED         DELETED     ERASED
    FENCE (D4)        -> FENCED
    EVICT (D5)                    -> EVICTED
    ERASE_KEY (D6)                              -> KEY_ERASED
    LOG (D7)                                                   -> LOGGED
    FINISH (D8)                                                                -> DELETED
    ERASE_BLOBS (D9)                                                                          -> ERASED
    a crash           stays       -> COMMITTED  -> COMMITTED,  -> COMMITTED,   -> KEY_ERASED, stays       stays
                                                EVICTED        EVICTED,        LOGGED
                                                               KEY_ERASED
    its leaf is       -> LOGGED                 -> LOGGED      -> LOGGED       -> LOGGED
     found (D10)

The states of its artifact. Only this package changes them to DELETING and DELETED.

    event             ACTIVE       ARCHIVED     DELETING     DELETED
    archive           -> ARCHIVED
    activate                       -> ACTIVE
    commit (D3)       -> DELETING  -> DELETING
    finish (D8)                                 -> DELETED
"""

from enum import Enum, StrEnum, auto

from tunewarden.registry.artifacts import State


class Stage(Enum):
    """The state of a deletion, in order. Its row has a mark for each: see `stage_of`."""

    COMMITTED = auto()
    FENCED = auto()
    EVICTED = auto()
    KEY_ERASED = auto()
    LOGGED = auto()
    DELETED = auto()  # the answer may be 200
    ERASED = auto()


class Step(StrEnum):
    """The steps after the commit point: the events that lead from one state to the next."""

    FENCE = "D4"
    EVICT = "D5"
    ERASE_KEY = "D6"
    LOG = "D7"
    FINISH = "D8"
    ERASE_BLOBS = "D9"

    def is_done_in(self, stage: Stage) -> bool:
        """Return whether a deletion in this state has done this step."""
        return STAGES.index(stage) > ORDER.index(self)


STAGES = tuple(Stage)
ORDER = tuple(Step)
NEXT = dict(zip(STAGES, ORDER, strict=False))  # nothing is left to do in the last state
# After this step the answer is 200; the rest is done in the background.
ANSWERED_AFTER = Step.FINISH

TRANSITIONS: frozenset[tuple[State, State]] = frozenset(
    {
        (State.ACTIVE, State.ARCHIVED),
        (State.ARCHIVED, State.ACTIVE),
        (State.ACTIVE, State.DELETING),
        (State.ARCHIVED, State.DELETING),
        (State.DELETING, State.DELETED),
    }
)


def stage_of(*marks: object) -> Stage:
    """Return the state of a deletion from the marks of its steps, in order; None: not done.

    Raises RuntimeError if a step is done and an earlier one is not.
    """
    done = sum(mark is not None for mark in marks)
    if None in marks[:done]:
        raise RuntimeError("the steps of a deletion are out of order")
    return STAGES[done]


def check_transition(before: State, after: State) -> None:
    """Check a state transition of a model. Raises RuntimeError (I7)."""
    if (before, after) not in TRANSITIONS:
        raise RuntimeError(f"a model cannot go from {before} to {after}")
