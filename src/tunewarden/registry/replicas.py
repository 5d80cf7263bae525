"""Replicas: the engines of a remote base, each at a URL, and the models that each may have loaded.

A replica joins and leaves while the server runs: a worker reads the rows again after each commit. One that leaves gets no
request any more, and keeps its row until it has evicted what it loaded: until then every deletion asks it (D5).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunewarden import audit
from tunewarden.db import lists
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
COLUMNS = "n, base, name, url, rank_max, leaving_at"
# The name of a base's first replica, unless another is given.
FIRST = "1"


@dataclass(frozen=True, slots=True)
class Replica:
    """One engine of a remote base. `leaving_at`, in microseconds: since then it gets no requests.

    `rank_max` is the highest rank of the adapters that are pushed to it; None if none are.
    """

    n: int
    base: str
    name: str
    url: str
    rank_max: int | None = None
    leaving_at: int | None = None

    @property
    def is_pushed_to(self) -> bool:
        """Whether it serves the adapters that are pushed to it."""
        return self.rank_max is not None


def add(
    tx: Tx, *, base: str, url: str, rank_max: int | None = None, name: str | None = None
) -> Replica:
    """Add a replica. Without a `name` it gets the lowest free number.

    Raises Error(INVALID) for a bad name, Error(CONFLICT) for a name or URL that the base has.
    """
    others = _of(tx, base)
    names = {one.name for one in others}
    if name is None:
        name = next(str(n) for n in range(1, len(names) + 2) if str(n) not in names)
    if not NAME.fullmatch(name):
        raise Error(
            Kind.INVALID,
            "Invalid replica name: use 1 to 64 letters, digits, dots, dashes and underscores.",
            param="name",
        )
    if name in names or url in {one.url for one in others}:
        taken = f"named '{name}'" if name in names else f"at {url}"
        raise Error(Kind.CONFLICT, f"The base '{base}' already has a replica {taken}.")
    tx.run(
        "INSERT INTO replicas (base, name, url, rank_max, created_at) VALUES (:base, :name, :url, :rank_max, :now)",
        base=base,
        name=name,
        url=url,
        rank_max=rank_max,
        now=tx.now_micros,
    )
    _record(tx, audit.EventType.REPLICA_ADDED, base, name)
    return next(one for one in _of(tx, base) if one.name == name)


def leave(tx: Tx, base: str, name: str) -> Replica:
    """Begin to remove a replica: no request goes to it from now on. Idempotent. Raises Error(NOT_FOUND)."""
    if tx.run(
        "UPDATE replicas SET leaving_at = :now WHERE base = :base AND name = :name AND leaving_at IS NULL",
        now=tx.now_micros,
        base=base,
        name=name,
    ):
        _record(tx, audit.EventType.REPLICA_LEAVING, base, name)
    found = next((one for one in _of(tx, base) if one.name == name), None)
    if found is None:
        raise Error(
            Kind.NOT_FOUND, f"The base '{base}' has no replica named '{name}'.", param="name"
        )
    return found


def remove(tx: Tx, replica: Replica) -> None:
    """Remove a replica that is leaving and has evicted everything."""
    tx.run("DELETE FROM replica_loads WHERE replica_n = :n", n=replica.n)
    tx.run("DELETE FROM replicas WHERE n = :n AND leaving_at IS NOT NULL", n=replica.n)
    _record(tx, audit.EventType.REPLICA_REMOVED, replica.base, replica.name)


def of(database: Database, base: str) -> tuple[Replica, ...]:
    """Return the replicas of a base, those that are leaving too, oldest first."""
    with database.read() as tx:
        return _of(tx, base)


def list_all(database: Database) -> list[Replica]:
    """Return every replica, oldest first."""
    with database.read() as tx:
        return [Replica(*row) for row in tx.rows(f"SELECT {COLUMNS} FROM replicas ORDER BY n")]


def note_load(
    database: Database, replica_n: int, model_n: int, incarnation: str, *, is_loaded: bool
) -> str:
    """Note which process of a replica has a model, or may have it; as `models.note_load`, for a replica.

    Raises Error(UNAVAILABLE) if it is leaving: what it may have is then evicted, so nothing may be added.
    """
    noted = _noted(database, replica_n, model_n)
    if noted == incarnation or (noted is not None and not is_loaded):
        return noted
    with database.write(survives=False, below_floor=True) as tx:
        if (
            tx.row("SELECT 1 FROM replicas WHERE n = :n AND leaving_at IS NULL", n=replica_n)
            is None
        ):
            raise _leaving()
        tx.run(
            "INSERT INTO replica_loads (replica_n, model_n, loaded_by) VALUES (:replica, :model, :by)"
            " ON CONFLICT (model_n, replica_n) DO UPDATE SET loaded_by = excluded.loaded_by",
            replica=replica_n,
            model=model_n,
            by=incarnation,
        )
    return incarnation


def loaded_by(database: Database, replica_n: int, model_n: int) -> str | None:
    """Return the process of a replica that last had, or may have had, a model; None if none did."""
    row = database.peek(
        "SELECT loaded_by FROM replica_loads WHERE model_n = :model AND replica_n = :replica",
        model=model_n,
        replica=replica_n,
    )
    return row[0] if row else None


def loads_of(database: Database, replica_n: int) -> list[int]:
    """Return the numbers of the models that a replica may have."""
    with database.read() as tx:
        rows = tx.rows("SELECT model_n FROM replica_loads WHERE replica_n = :n", n=replica_n)
    return [int(n) for (n,) in rows]


def note_failure(database: Database, replica_n: int, model_n: int, why: str | None) -> None:
    """Note why a load failed, or with None that one did not. No-op for a load that is not on record."""
    if failure_of(database, replica_n, model_n) == why:
        return
    with database.write(survives=False, below_floor=True) as tx:
        tx.run(
            "UPDATE replica_loads SET failure = :why WHERE model_n = :model AND replica_n = :replica",
            why=why,
            model=model_n,
            replica=replica_n,
        )


def failure_of(database: Database, replica_n: int, model_n: int) -> str | None:
    """Return why the last load of a model into a replica failed; None if it did not."""
    row = database.peek(
        "SELECT failure FROM replica_loads WHERE model_n = :model AND replica_n = :replica",
        model=model_n,
        replica=replica_n,
    )
    return row[0] if row else None


def count_failures(database: Database, replica_n: int) -> int:
    """Return of how many models the last load into a replica failed."""
    row = database.peek(
        "SELECT COUNT(*) FROM replica_loads WHERE replica_n = :replica AND failure IS NOT NULL",
        replica=replica_n,
    )
    assert row is not None, "a count has a row"
    return int(row[0])


def forget_models(tx: Tx, numbers: Sequence[int]) -> None:
    """Forget which replicas had models that are deleted (D8)."""
    for listed, values in lists.parts(numbers):
        tx.run(f"DELETE FROM replica_loads WHERE model_n IN ({listed})", **values)


def _of(tx: Tx, base: str) -> tuple[Replica, ...]:
    rows = tx.rows(f"SELECT {COLUMNS} FROM replicas WHERE base = :base ORDER BY n", base=base)
    return tuple(Replica(*row) for row in rows)


def _noted(database: Database, replica_n: int, model_n: int) -> str | None:
    row: tuple[Any, ...] | None = database.peek(
        "SELECT r.leaving_at, l.loaded_by FROM replicas r LEFT JOIN replica_loads l"
        " ON l.replica_n = r.n AND l.model_n = :model WHERE r.n = :replica",
        model=model_n,
        replica=replica_n,
    )
    if row is None or row[0] is not None:
        raise _leaving()
    return None if row[1] is None else str(row[1])


def _leaving() -> Error:
    return Error(
        Kind.UNAVAILABLE,
        "The engine of this model is being removed. Try again shortly.",
        code="engine_leaving",
        retry_after_seconds=1,
    )


def _record(tx: Tx, event: audit.EventType, base: str, name: str) -> None:
    audit.record(
        tx,
        event,
        organization_id="",
        actor=audit.SERVER,
        resource_id=f"{base}/{name}",
    )
