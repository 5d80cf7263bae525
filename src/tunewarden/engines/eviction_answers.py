"""What an engine's response to an eviction proves."""

from collections.abc import Sequence

import msgspec

from tunewarden.engine_protocol.messages import (
    VERSION,
    EvictedAdapter,
    EvictionAnswer,
    EvictionRequest,
    decoded,
    version_in,
)
from tunewarden.engines.port import Evicted, Eviction


def request_of(*internal_ids: str) -> bytes:
    """Return the body that asks for evictions, EVICTIONS_MAX at most."""
    return msgspec.json.encode(EvictionRequest(list(internal_ids)))


def seen_in(status: int, body: bytes, internal_id: str) -> tuple[EvictedAdapter, str] | None:
    """Return the engine's result, and its incarnation.

    None without proof: a response that is malformed, of another version, about another model, or with residue.
    """
    found = all_seen_in(status, body, [internal_id])
    return None if found is None else (found[0][0], found[1])


def all_seen_in(
    status: int, body: bytes, internal_ids: Sequence[str]
) -> tuple[list[EvictedAdapter], str] | None:
    """Return the engine's result for each model, in order, and its incarnation; None without proof for all."""
    try:
        if status != 200 or version_in(body) != VERSION:
            return None
        answer = decoded(body, EvictionAnswer)
    except ValueError:
        return None
    is_proven = [one.name for one in answer.evicted] == list(internal_ids) and all(
        one.residue == 0 for one in answer.evicted
    )
    return (answer.evicted, answer.incarnation) if is_proven else None


def result_of(
    engine: str, seen: EvictedAdapter, incarnation: str, *, loaded_by: str | None
) -> Evicted:
    """Return the result for an engine that was asked. `loaded_by`: see `port.Evicting`."""
    if seen.was_loaded:
        return Evicted(engine, Eviction.ZEROED, seen.aborted)
    return without_it(engine, incarnation, loaded_by=loaded_by)


def without_it(engine: str, incarnation: str | None, *, loaded_by: str | None) -> Evicted:
    """Return the result for a model that the engine of `incarnation` (None: none runs) does not have."""
    has_ended = loaded_by is not None and loaded_by != incarnation
    return Evicted(engine, Eviction.RESTARTED if has_ended else Eviction.NOT_LOADED, aborted=0)
