"""The deletion protocol, broken on purpose: each class is the product with one thing wrong."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec.structs import replace
from tests.lab.power import CuttingDisk, Power
from tests.lab.simulation import Stream, Worker
from tests.lab.world import SHARD_CAPACITY, Made, Parts

from tunewarden.app import App
from tunewarden.artifacts.directory_keyring import DirectoryKeyring
from tunewarden.artifacts.disk import InPlaceFile
from tunewarden.artifacts.keyring import ErasedKey, KeyErased, Keyring
from tunewarden.deletion.executor import Executor
from tunewarden.deletion.protocol import Step
from tunewarden.deletion.records import Deletion
from tunewarden.deletion.recovery import Recovery
from tunewarden.deletion.reports import KeyReport
from tunewarden.deletion.requests import Attempt
from tunewarden.deletion.steps import Steps, _LeafToLog
from tunewarden.identity.policy import Caller
from tunewarden.registry import models
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden.transparency.directory_log import DirectoryLog
from tunewarden.transparency.view import LogView


class _KeyFirst(Executor):
    def delete(
        self, caller: Caller, kind: ArtifactKind, artifact_id: str, attempt: Attempt
    ) -> Deletion:
        model = models.find(self._database, caller, artifact_id)
        if model is not None:
            self._steps.keyring.erase_many([model.key_id])
        return super().delete(caller, kind, artifact_id, attempt)


class KeyErasedBeforeTheCommit(Parts):
    executor_type = _KeyFirst


class _ReceiptFirst(Steps):
    def _erase_keys(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        now = self._now()
        return [replace(one, key_erased_at=now, key_report=_promised(one)) for one in deletions]

    def _log(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        logged = super()._log(deletions)
        self.keyring.erase_many([deletion.key_id for deletion in deletions])
        return logged


def _promised(deletion: Deletion) -> KeyReport:
    return KeyReport(deletion.key_id, "000000", 1, 1, method="soon", assurance="none")


class ReceiptBeforeTheKey(Parts):
    steps_type = _ReceiptFirst


class _AnswersEarly(Executor):
    def _run(self, deletion: Deletion, *, last: Step, deadline: float = float("inf")) -> Deletion:
        early = Step.EVICT if last is Step.FINISH else last
        return super()._run(deletion, last=early, deadline=deadline)


class AnswerBeforeTheKey(Parts):
    executor_type = _AnswersEarly


class _AppendsAnew(DirectoryLog):
    def _append(
        self, entries: Sequence[bytes], sinces: Sequence[int]
    ) -> tuple[LogView, bytes, list[int]]:
        return super()._append(entries, [max(since, self.size()) for since in sinces])


class AppendNotIdempotent(Parts):
    log_type = _AppendsAnew


class _ErasesOnce(DirectoryKeyring):
    def erase_many(self, key_ids: Sequence[str]) -> list[ErasedKey]:
        for key_id in key_ids:
            if not self.contains(key_id):
                raise KeyErased(key_id)
        return super().erase_many(key_ids)


class KeyStepNotIdempotent(Parts):
    def keyring(self, power: Power, root: Path) -> Keyring:
        return _ErasesOnce(CuttingDisk(power, "keyring"), root, shard_capacity=SHARD_CAPACITY)


class _FilesFirst(Steps):
    def _evict(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        for deletion in deletions:
            self._erase_files(deletion)
        return super()._evict(deletions)


class BlobsErasedBeforeEviction(Parts):
    steps_type = _FilesFirst


class _SkipsTheKey(Steps):
    def _erase_keys(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        return _ReceiptFirst._erase_keys(self, deletions)  # type: ignore[arg-type]  # a mutant takes another's step


class RecoverySkipsAStep(Parts):
    """To be recovered with: the first life runs as it should."""

    steps_type = _SkipsTheKey


class _NoReplay(Recovery):
    def _replay(self) -> int:
        return 0


class RecoveryWithoutTheLog(Parts):
    def recover(self, app: App) -> None:
        app.keyring.recover()
        log, signer = app.open_log()
        _NoReplay(app.database, app.keyring, log, signer, app.log_mark).settle()
        app.drafts.sweep()


class _Unchecked(Recovery):
    def _check_keyring(self, found: dict[int, int], logged: dict[int, int]) -> None:
        del found, logged


class RecoveryWithoutTheKeyringsAge(Parts):
    def recover(self, app: App) -> None:
        app.keyring.recover()
        log, signer = app.open_log()
        _Unchecked(app.database, app.keyring, log, signer, app.log_mark).settle()


class _RenamingDisk(CuttingDisk):
    @contextmanager
    def open_in_place(self, path: Path) -> Iterator[InPlaceFile]:
        yield _Renamed(path)


class _Renamed:
    """Replaces a file by write-and-rename, as careful programs usually do."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = path.stat().st_size

    def overwrite(self, chunks: Iterable[bytes]) -> None:
        if self._path.exists():
            fresh = self._path.with_suffix(".fresh")
            fresh.write_bytes(b"".join(chunks))
            fresh.replace(self._path)

    def replace(self, chunks: Iterable[bytes]) -> None:
        self.overwrite(chunks)


class KeyringRenamesAndDoesNotOverwrite(Parts):
    def keyring(self, power: Power, root: Path) -> Keyring:
        return DirectoryKeyring(
            _RenamingDisk(power, "keyring"), root, shard_capacity=SHARD_CAPACITY
        )


class _FinishesFirst(Steps):
    def _log(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        stated, index = self._state(deletions), self.log_size()
        return [replace(one, log_index=index, receipt=one.statement) for one, _ in stated]

    def _finish(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        stated = self._state(deletions)
        finished = super()._finish(deletions)
        appended = self._append(
            [_LeafToLog(one.statement or b"", one.log_since, shown) for one, shown in stated]
        )
        with self.database.write() as tx:
            for one, (_, bundle) in zip(deletions, appended, strict=True):
                tx.run("UPDATE deletions SET receipt = :b WHERE n = :n", b=bundle, n=one.n)
        return [
            replace(one, receipt=bundle)
            for one, (_, bundle) in zip(finished, appended, strict=True)
        ]


class FinishBeforeTheLog(Parts):
    steps_type = _FinishesFirst


class _ForgetsTheStatement(Steps):
    def _log(self, deletions: Sequence[Deletion]) -> list[Deletion]:
        now = self._now()
        return super()._log([replace(one, statement=None, key_erased_at=now) for one in deletions])


class StatementMadeAnewAfterACrash(Parts):
    steps_type = _ForgetsTheStatement


class Unguarded(Worker):
    """Reads the state and then serves, without beginning first."""

    def serve(self, made: Made) -> Stream:
        if self.is_active(made.model.n):
            yield
            self.machine.begins(made)
            yield from self.chunks(made)


class Caching(Worker):
    """Reads the state at most each 50 ms."""

    def is_active(self, n: int) -> bool:
        now = self.machine.world.clock.monotonic()
        cache: dict[int, tuple[float, bool]] = self.__dict__.setdefault("cache", {})
        read_at, answer = cache.get(n, (-1.0, False))
        if now - read_at > 0.05 or read_at < 0:
            answer = super().is_active(n)
            cache[n] = (now, answer)
        return answer
