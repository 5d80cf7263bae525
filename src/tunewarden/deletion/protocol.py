"""The deletion protocol: what happens in which order, and why. Pure: no input, no output.

D1  The caller is known and the model is looked up in its organization. Unknown, foreign and deleted
    models give the same 404 (I9); a base is refused; without the Owner role it is refused (I8).
D2  Whatever forbids the deletion is named (409).
D3  The commit point. One durable write transaction re-checks the Owner, sets the model `deleting`,
    raises its epoch, and writes this deletion's row and its audit event. From here only forward.
    A model's checkpoints go with it: each gets a deletion of its own in the same transaction.
D4  Fence: nobody begins on the model any more, and what ran on it has been cut (I1, I2).
D5  Engines abort, forget and overwrite it. Before its files go: an engine that reads them would die.
D6  Its key is erased; no copy of its weights can be opened any more (I3).
D7  The receipt becomes a leaf of the log (I4). Not earlier: a receipt says only what was done (I17).
D8  Second transaction: `deleted`, with the exact receipt bytes. Only now may a 200 be sent.
D9  Afterwards, with retries: the blobs are erased (I15), and a second leaf says so.
D10 On start, and whenever a runner died, what is unfinished is resumed by the same steps.

A file is deleted by the same steps; no engine holds one, so D5 has nothing to do.

Every step may be repeated: a crash after a step and before it was noted runs it again. What a step
found is written down (`records.record_facts`) before the leaf that repeats it, so that one deletion has one leaf.
"""

from dataclasses import dataclass
from enum import StrEnum

from tunewarden.registry.artifacts import State


class Step(StrEnum):
    """The steps after the commit point, by their clauses."""

    FENCE = "D4"
    EVICT = "D5"
    ERASE_KEY = "D6"
    LOG = "D7"
    FINISH = "D8"
    ERASE_BLOBS = "D9"


ORDER = tuple(Step)
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


@dataclass(frozen=True, slots=True)
class Progress:
    """Which steps of one deletion are done. Steps are done in order, so this is a prefix of ORDER."""

    done: frozenset[Step]

    def __post_init__(self) -> None:
        if self.done != frozenset(ORDER[: len(self.done)]):
            raise RuntimeError(f"deletion steps out of order: {sorted(self.done)}")

    @property
    def next(self) -> Step | None:
        """The step to do now; None when nothing is left."""
        return ORDER[len(self.done)] if len(self.done) < len(ORDER) else None


def check_transition(before: State, after: State) -> None:
    """Return if a model may go from one state to the other. Raises RuntimeError (I7)."""
    if (before, after) not in TRANSITIONS:
        raise RuntimeError(f"a model cannot go from {before} to {after}")
