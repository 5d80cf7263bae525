"""Request and response bodies between gateway and engine: one JSON object each.

Paths are in `paths.py`. Unknown fields of a response are skipped; those of a request are refused.
Compatible additions keep `VERSION`; any other change increments it.
"""

from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

T = TypeVar("T")

# In `State` and `EvictionAnswer`, in every version: an integer field `version`. A gateway uses no engine
# with another version, and accepts no statement of such an engine as proof.
VERSION: Final = 2

# Names in one eviction.
EVICTIONS_MAX: Final = 256

LEASE_SECONDS_MAX: Final = 3600
# Leases that one replaces.
REPLACED_MAX: Final = 256

PUSH_HEAD_BYTES: Final = 8


class NewBase(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Asks the engine to load a base; no-op if it is loaded. `path` is a directory on its machine."""

    name: str
    path: str


class NewAdapter(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Asks the engine to load an adapter.

    `name` is the model's internal id, never reused. `base` is the name of a loaded base. `path` is a tmpfs directory
    with `adapter_config.json` and `adapter_model.safetensors`: the engine reads and unlinks both and
    the directory, on success and on failure.
    """

    name: str
    base: str
    path: str


def push_head(config_bytes: int) -> bytes:
    """Return what begins the body of a push: the size of the config, little-endian.

    `adapter_config.json` and `adapter_model.safetensors` follow, whole.
    """
    return config_bytes.to_bytes(PUSH_HEAD_BYTES, "little")


def config_bytes_in(head: bytes) -> int:
    """Return the size of the config that the first PUSH_HEAD_BYTES of a push state."""
    return int.from_bytes(head, "little")


class LoadedAdapter(msgspec.Struct, frozen=True):
    """The response to NewAdapter or a push once the adapter can be used. `incarnation`: see State."""

    name: str
    base: str
    incarnation: str


class EvictionRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Asks the engine to evict adapters: refuse their names from now on, abort their requests, overwrite their weights."""

    names: Annotated[list[str], Meta(min_length=1, max_length=EVICTIONS_MAX)]


class EvictedAdapter(msgspec.Struct, frozen=True):
    """The result of evicting one adapter. Idempotent: a repeat returns the same.

    `was_loaded`: it had the weights in a slot. `aborted`: how many requests were running or
    waiting. `residue`: sum of the absolute weights that were read back after overwriting. Not 0:
    the eviction failed.
    """

    name: str
    was_loaded: bool
    aborted: int
    residue: float


class EvictionAnswer(msgspec.Struct, frozen=True):
    """The response to EvictionRequest when all are done: one entry per name, in the request's order."""

    version: int
    incarnation: str
    evicted: list[EvictedAdapter]


class Renewal(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Begins or renews the lease of an engine that adapters are pushed to (`lease.py`).

    `member` names the lease and is never used again. `begins`: the engine first ends the leases that this one `replaces`
    and overwrites their adapters. Else `nonce` is the newest that the engine answered with; without one nothing is
    extended.
    """

    member: str
    seconds: Annotated[float, Meta(gt=0, le=LEASE_SECONDS_MAX)]
    nonce: str = ""
    begins: bool = False
    replaces: Annotated[list[str], Meta(max_length=REPLACED_MAX)] = []


class Renewed(msgspec.Struct, frozen=True):
    """The response to Renewal, with the nonce of the next one. `incarnation`: see State."""

    version: int
    incarnation: str
    nonce: str


class AbortAnswer(msgspec.Struct, frozen=True):
    """The response to an abort: how many running or waiting requests of the adapter were aborted."""

    name: str
    aborted: int


class Prefixes(msgspec.Struct, frozen=True):
    """Statistics of a base's prefix cache: its content, and blocks erased and reused since the start."""

    blocks: int
    bytes: int
    bytes_max: int
    blocks_erased: int
    tokens_reused: int


class LoadedBase(msgspec.Struct, frozen=True, omit_defaults=True):
    """One base of an engine; the response to NewBase.

    Gateways read `name` and `adapters`, and, of an engine that adapters are pushed to, `shapes` and `rank_max`: which
    layers an adapter may change, with (out features, in features) by name, and its highest rank. The rest is for
    people.

    `adapters`: names of those in its slots. `loading`: of those on their way there. `slots`: how many fit. `context`: tokens that a prompt and its answer may
    have together. `vocabulary`: how many tokens there are. `modules`: names of the layers that an adapter may change.
    `running`, `waiting`: sequences now. `tokens_generated`: since the base was loaded.
    """

    name: str
    adapters: list[str]
    slots: int | None = None
    context: int | None = None
    vocabulary: int | None = None
    modules: list[str] | None = None
    running: int | None = None
    waiting: int | None = None
    tokens_generated: int | None = None
    prefixes: Prefixes | None = None
    shapes: dict[str, tuple[int, int]] | None = None
    rank_max: int | None = None
    loading: list[str] | None = None


class State(msgspec.Struct, frozen=True):
    """The state of an engine process.

    `incarnation` is a random name of the process, which cannot make statements about another one. `tombstones`: names
    of evicted adapters, sorted; they are refused until the process ends.
    """

    version: int
    pid: int
    incarnation: str
    bases: list[LoadedBase]
    tombstones: list[str]


class Problem(msgspec.Struct, frozen=True):
    """OpenAI's error object: `code` is one of `codes.Code`, one of OpenAI's, or absent."""

    message: str = ""
    type: str = ""
    param: str | None = None
    code: str | None = None


class Refusal(msgspec.Struct, frozen=True):
    """Body of every response that is not 200, and of the error event that ends a stream."""

    error: Problem


class _Versioned(msgspec.Struct, frozen=True):
    version: int = 0


def decoded(body: bytes, kind: type[T]) -> T:
    """Decode a body. Raises ValueError."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not a message of the kind {kind.__name__}") from error


def version_in(body: bytes) -> int:
    """Return the version in a response body; 0 if it has none, as before version 1.

    Raises ValueError.
    """
    return decoded(body, _Versioned).version
