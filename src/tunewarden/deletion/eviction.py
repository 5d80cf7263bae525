"""D5: every engine that could hold deleted models evicts them; those that one engine may have, by one call."""

from collections.abc import Callable, Sequence
from functools import partial

from tunewarden.db.database import Database
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.reports import EngineReport, EvictReport
from tunewarden.engines.parallel import in_parallel
from tunewarden.engines.port import Evicted, Evicting, ToEvict
from tunewarden.registry import models
from tunewarden.registry.artifacts import ArtifactKind

# By a model's number: the engines that may have it.
EnginesOf = Callable[[int], Sequence[Evicting]]


def evict(
    database: Database,
    engines_of: EnginesOf,
    deletions: Sequence[Deletion],
    *,
    within_seconds: float,
) -> list[EvictReport]:
    """Evict the models, whose fence is done (D4); return each one's report, in order. No engine holds files.

    Raises Error(UNAVAILABLE); then some may have been evicted, and all may be again.
    """
    groups: dict[tuple[int, ...], tuple[Sequence[Evicting], list[Deletion]]] = {}
    for one in deletions:
        holding = engines_of(one.artifact_n) if one.kind == ArtifactKind.MODEL else ()
        groups.setdefault(tuple(map(id, holding)), (holding, []))[1].append(one)
    reports: dict[int, EvictReport] = {}
    for holding, group in groups.values():
        # Read after D4, when no load can begin any more.
        asked = _to_evict(database, group) if holding else []
        ask = partial(_evicted, asked=asked, within_seconds=within_seconds)
        by_engine = in_parallel(ask, holding)
        for at, one in enumerate(group):
            reports[one.n] = tuple(EngineReport.of(found[at]) for found in by_engine)
    return [reports[one.n] for one in deletions]


def _to_evict(database: Database, deletions: Sequence[Deletion]) -> list[ToEvict]:
    with database.read() as tx:
        loaded_by = models.loaded_by_each(tx, [one.artifact_n for one in deletions])
    return [ToEvict(one.internal_id, loaded_by.get(one.artifact_n)) for one in deletions]


def _evicted(engine: Evicting, *, asked: Sequence[ToEvict], within_seconds: float) -> list[Evicted]:
    return engine.evict_many(asked, within_seconds=within_seconds)
