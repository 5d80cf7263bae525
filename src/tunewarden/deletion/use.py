"""Whether a model is in use: what blocks its deletion, if its organization asks for that.

Use is known from rows, which workers write each second, and from what goes on now: `IsServed` sees the requests that
run in any process of this host, and what this process has not written yet. So a request that ended in another process
less than a second ago (longer, while the database cannot be written) may be missed.
"""

from collections.abc import Callable, Sequence

from tunewarden.db.database import Tx
from tunewarden.registry import deletion_settings, models, usage
from tunewarden.registry.artifacts import Artifact

MINUTE_MICROS = 60_000_000
# Whether a model, by its row, is being used at this moment.
IsServed = Callable[[Artifact], bool]


def not_seen(_: Artifact) -> bool:
    """Return False: nobody looks at what runs."""
    return False


def used_among(tx: Tx, found: Sequence[Artifact], is_served: IsServed) -> set[int]:
    """Return the numbers of those that `is_recent` says are in use."""
    asking = {
        one
        for one in {artifact.organization_id for artifact in found}
        if deletion_settings.in_use_minutes_of(tx, one) is not None
    }
    recent = (
        one for one in found if one.organization_id in asking and is_recent(tx, one, is_served)
    )
    return {one.n for one in recent}


def is_recent(tx: Tx, model: Artifact, is_served: IsServed) -> bool:
    """Return whether a model is in use by what its organization calls so; a file never is."""
    minutes = deletion_settings.in_use_minutes_of(tx, model.organization_id)
    if minutes is None or not models.is_one(tx, model.n):
        return False
    last = usage.last_use_of(tx, model.organization_id, model.id)
    if last is not None and last >= tx.now_micros - minutes * MINUTE_MICROS:
        return True
    return is_served(model)
