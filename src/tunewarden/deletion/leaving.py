"""Removes a replica: no request goes to it, it evicts what it has loaded, and its row goes.

Until it has evicted everything, its row stays, and every deletion asks it (D5).
"""

from collections.abc import Callable

from tunewarden.db.database import Database
from tunewarden.deletion.holders import NewControl
from tunewarden.engines.port import RemoteControl
from tunewarden.errors import Error, Kind
from tunewarden.registry import bases, members, models, replicas

EVICT_SECONDS = 30.0


def remove_replica(
    database: Database,
    control_of: NewControl,
    of: tuple[str, str],
    drained: Callable[[RemoteControl], None],
) -> int:
    """Remove a replica, `of` a base and a name; return how many models it had loaded. Idempotent, if it fails on the way.

    `drained` waits until nothing runs on it, or for as long as that may take.

    The replica refuses each model that it may have from then on, so a push that is on its way is refused too.
    Raises Error(NOT_FOUND); Error(UNAVAILABLE) if it does not answer: then it stays, without requests.
    """
    base_name, name = of
    with database.write() as tx:
        replica = replicas.leave(tx, base_name, name)
    base = bases.find(database, base_name)
    assert base is not None, "a replica's base is a foreign key"
    loaded: set[str] = set()
    if replica.is_pushed_to:
        control = control_of(base, replica, f"{base_name}/{name}")
        try:
            drained(control)
            loaded = set(control.models())
            # After it began to leave: nothing is added any more.
            noted = {
                models.by_n(database, n).internal_id for n in replicas.loads_of(database, replica.n)
            }
            for internal_id in sorted(loaded | noted):
                control.evict(internal_id, loaded_by=None, within_seconds=EVICT_SECONDS)
        except Error as error:
            raise Error(
                Kind.UNAVAILABLE,
                f"The replica '{base_name}/{name}' gets no requests any more, but it does not say that it has evicted"
                " its models. Until it does, or its lease is over, it stays listed and deletions wait for it. Start it,"
                " or another vLLM at its address, and run this again.",
            ) from error
    with database.write() as tx:
        members.forget(tx, replica.n)
        replicas.remove(tx, replica)
    return len(loaded)
