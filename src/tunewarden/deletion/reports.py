"""Results of a deletion's steps: typed here, JSON in the row only.

They are decoded once, when a row is read (`records.from_row`), and encoded once, when it is written. The words in these
reports are those of the receipt (`tunewarden_receipts`): a report that a receipt cannot repeat would fail D7 for ever.
"""

from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from tunewarden.artifacts.keyring import ErasedKey
from tunewarden.engines.port import Evicted
from tunewarden.serving.fence import FencedWorker

T = TypeVar("T")


class EngineReport(Struct, frozen=True, omit_defaults=True):
    """One engine's eviction of the model (D5).

    `how` is the value of an `Eviction`. Rows of a server before 0.1.1 hold a word of receipts in format 1, and `zeroed`.
    """

    engine: str
    how: str
    aborted: int
    zeroed: bool | None = None

    @classmethod
    def of(cls, evicted: Evicted) -> "EngineReport":
        """Convert an engine's result."""
        return cls(evicted.engine, evicted.how.value, evicted.aborted)


class KeyReport(Struct, frozen=True):
    """The erased key, and the assurance of its erasure (D6). `shard` is the shard's number, in six digits."""

    id: str
    shard: str
    generation_before: int
    generation_after: int
    method: str
    assurance: str

    @classmethod
    def of(cls, erased: ErasedKey) -> "KeyReport":
        """Convert the keyring's result."""
        return cls(
            erased.key_id,
            f"{erased.shard:06}",
            erased.generation_before,
            erased.generation_after,
            erased.method.value,
            erased.assurance.value,
        )


class BlobsReport(Struct, frozen=True):
    """The erasure of the blobs (D9). `erased_at` is RFC 3339 text, as in the second leaf."""

    count: int
    versions: int
    size_bytes: int
    erased_at: str
    software: str


FenceReport = tuple[FencedWorker, ...]
EvictReport = tuple[EngineReport, ...]
Report = FenceReport | EvictReport | KeyReport | BlobsReport

_FENCE = msgspec.json.Decoder(FenceReport)
_EVICT = msgspec.json.Decoder(EvictReport)
_KEY = msgspec.json.Decoder(KeyReport)
_BLOBS = msgspec.json.Decoder(BlobsReport)
# The columns of `deletions` that hold a report.
DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    "fence_report": _FENCE,
    "evict_report": _EVICT,
    "key_report": _KEY,
    "blobs_report": _BLOBS,
}


def encoded(report: Report) -> str:
    """Encode a report for its column."""
    return msgspec.json.encode(report).decode()
