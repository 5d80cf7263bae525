"""What receipts are made of, broken on purpose: engines, fence, blobs and the log's age (I17, I15, I11)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from msgspec import structs
from tests.fakes.engine import FakeEngine
from tests.lab.power import CuttingEngine
from tests.lab.world import Parts

from tunewarden.app import App
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.recovery import Recovery
from tunewarden.deletion.reports import BlobsReport
from tunewarden.deletion.steps import Steps
from tunewarden.engines.port import Evicted, Eviction


class _Asserts(CuttingEngine):
    def evict(self, internal_id: str, *, loaded_by: str | None, within_seconds: float) -> Evicted:
        seen = super().evict(internal_id, loaded_by=loaded_by, within_seconds=within_seconds)
        return replace(seen, how=Eviction.ZEROED)


class ZeroedWithoutLooking(Parts):
    engine_type = _Asserts


class _IgnoresResidue(CuttingEngine):
    def evict(self, internal_id: str, *, loaded_by: str | None, within_seconds: float) -> Evicted:
        engine = self._engine
        assert isinstance(engine, FakeEngine)
        if engine.is_dirty:
            engine.loaded.discard(internal_id)
            return Evicted(engine.name, Eviction.ZEROED, aborted=0)
        return super().evict(internal_id, loaded_by=loaded_by, within_seconds=within_seconds)


class ResidueIgnored(Parts):
    engine_type = _IgnoresResidue


class _ForgetsTheLast(CuttingEngine):
    def evict(self, internal_id: str, *, loaded_by: str | None, within_seconds: float) -> Evicted:
        del loaded_by
        return super().evict(internal_id, loaded_by=None, within_seconds=within_seconds)


class RestartsUnnoticed(Parts):
    engine_type = _ForgetsTheLast


class _NotAsked(CuttingEngine):
    def evict(self, internal_id: str, *, loaded_by: str | None, within_seconds: float) -> Evicted:
        del internal_id, loaded_by, within_seconds
        return Evicted("fake", Eviction.NOT_LOADED, aborted=0)


class EngineNotAsked(Parts):
    engine_type = _NotAsked


class _Unfenced(Steps):
    def _fence(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        return [structs.replace(one, fenced_at=self._now(), fence_report=()) for one in deletions]


class FenceSkipped(Parts):
    steps_type = _Unfenced


class _LeavesFiles(Steps):
    def _erase_files(self, deletion: Deletion) -> BlobsReport:
        blobs = self.blobs
        object.__setattr__(self, "blobs", _NoBlobs())
        try:
            return super()._erase_files(deletion)
        finally:
            object.__setattr__(self, "blobs", blobs)


class _NoBlobs:
    def names(self, prefix: str) -> list[str]:
        del prefix
        return []


class BlobsReportedAndNotErased(Parts):
    steps_type = _LeavesFiles


class _AnyAge(Recovery):
    def _check_log(self) -> None:
        pass

    def _leaves(self, start: int) -> Iterator[Any]:
        return super()._leaves(min(start, self.log.size()))


class RecoveryWithoutTheLogsAge(Parts):
    def recover(self, app: App) -> None:
        app.keyring.recover()
        log, signer = app.open_log()
        _AnyAge(app.database, app.keyring, log, signer, app.log_mark).settle()
        app.drafts.sweep()
