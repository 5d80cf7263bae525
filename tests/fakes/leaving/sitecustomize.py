"""On the PYTHONPATH of a control: deletions say that they erased blobs and evicted weights, and streams go on."""

from collections.abc import Sequence
from typing import Any

from tunewarden.artifacts.blobs import ErasedBlob
from tunewarden.artifacts.directory import DirectoryBlobs
from tunewarden.engines.embedded_control import EngineVerbs
from tunewarden.engines.port import Evicted, Eviction, ToEvict
from tunewarden.serving.admission import Admissions
from tunewarden.serving.kernel_locks import KernelLockFence


def _leave(_: DirectoryBlobs, name: str) -> ErasedBlob:
    return ErasedBlob(name=name, bytes=1, versions=1)


def _keep(_: EngineVerbs, models: Sequence[ToEvict], **__: Any) -> list[Evicted]:
    return [Evicted(engine="embedded", how=Eviction.ZEROED, aborted=0) for _ in models]


def _yes(*_: Any) -> bool:
    return True


def _nothing(*_: Any) -> None:
    pass


for kind, name, careless in (
    (DirectoryBlobs, "erase", _leave),
    (EngineVerbs, "evict_many", _keep),
    (KernelLockFence, "begin", _yes),
    (KernelLockFence, "end", _nothing),
    (Admissions, "may_go_on", _yes),
    (Admissions, "_watch", _nothing),
):
    setattr(kind, name, careless)
