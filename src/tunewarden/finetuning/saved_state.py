"""A job's resume state, encrypted under the job's draft.

There is always one complete state or none: the new one is stored beside the old one, the job's row is
switched in one transaction, and only then the old one is erased. Leftovers of a crash
are erased with the next state, or with the draft when the job ends.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tunewarden.artifacts import sealing
from tunewarden.artifacts.blobs import BlobErased, ErasableBlobs
from tunewarden.artifacts.keyring import KeyErased, Keyring
from tunewarden.db.database import Database
from tunewarden.errors import Error, Kind
from tunewarden.finetuning import jobs, transitions
from tunewarden.finetuning.jobs import Job
from tunewarden.ids import token
from tunewarden.registry.drafts import Draft, DraftKind, Drafts, Reserving, blob_name

FILES_MAX = 64
NAME_LENGTH_MAX = 100


@dataclass(frozen=True, slots=True)
class SavedStates:
    """The states of all jobs."""

    database: Database
    keyring: Keyring
    blobs: ErasableBlobs
    drafts: Drafts
    scratch_may_be_a_disk: bool = False

    def save(self, job: Job, step: int, directory: Path) -> None:
        """Encrypt a flat directory as the job's state, replacing the previous one.

        Raises Error; then the previous one is kept.
        """
        draft = self._draft(job)
        parts = []
        for number, (name, file) in enumerate(_opened(directory)):
            blob = blob_name(draft.internal_id, f"state-{number}-{token(12)}")
            with file:
                stored = Reserving(self.drafts, draft)
                sealing.seal(file, draft.recipient, self.blobs, blob, digest=stored)
                stored.return_unused()
            parts.append({"file": name, "blob": blob, "step": step})
        with self.database.write() as tx:
            transitions.switch_state(tx, job.n, parts)
        erased = 0
        kept = {part["blob"] for part in parts}
        for blob in self.blobs.names(f"{draft.internal_id}/"):
            if blob not in kept:
                erased += self.blobs.erase(blob).bytes
        self.drafts.unreserve(draft.internal_id, erased)

    def unseal(self, job: Job, directory: Path) -> int | None:
        """Decrypt the job's state into an empty tmpfs directory; return its step.

        None, with the directory empty, if there is no state or it cannot be decrypted (a
        restored database may refer to an erased one): the job then starts over.
        """
        parts: list[dict[str, Any]] = job.state_blobs or []
        try:
            draft = self.drafts.open(job.internal_id)
            identity = self.keyring.open(draft.key_id)
            for part in parts:
                path = directory / part["file"]
                may = self.scratch_may_be_a_disk
                sealing.unseal_to_file(self.blobs, part["blob"], identity, path, may_be_a_disk=may)
        except (Error, KeyErased, BlobErased):
            for left in directory.iterdir():
                left.unlink()
            return None
        return int(parts[0]["step"]) if parts else None

    def exists(self, job: Job) -> bool:
        """Return whether the job has a draft that is not erased yet."""
        return self.drafts.exists(job.internal_id)

    def erase(self, job: Job) -> None:
        """Erase the job's draft, key first."""
        self.drafts.erase(job.internal_id)

    def sweep(self) -> int:
        """Erase the states of ended or unknown jobs; at start, before jobs run."""
        found = self.drafts.of_kind(DraftKind.JOB)
        with self.database.read() as tx:
            left = [one for one in found if not jobs.is_unfinished(tx, one)]
        for internal_id in left:
            self.drafts.erase(internal_id)
        return len(left)

    def _draft(self, job: Job) -> Draft:
        """Return the job's draft, created if it has none or its key is gone."""
        if self.exists(job):
            try:
                return self.drafts.open(job.internal_id)
            except Error:
                self.drafts.erase(job.internal_id)
        return self.drafts.create(DraftKind.JOB, job.project_id, internal_id=job.internal_id)


def _opened(directory: Path) -> list[tuple[str, BinaryIO]]:
    """Return the regular files of a flat directory. Raises Error(INVALID) for anything else."""
    found: list[tuple[str, BinaryIO]] = []
    try:
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            names = _names(folder)
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            for name in names:
                file: BinaryIO = os.fdopen(os.open(name, flags, dir_fd=folder), "rb")
                found.append((name, file))
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise OSError("not a regular file")
        finally:
            os.close(folder)
    except OSError as error:
        for _, file in found:
            file.close()
        raise Error(
            Kind.INVALID, "The trainer's state is not a flat directory of files.", code="bad_state"
        ) from error
    return found


def _names(folder: int) -> list[str]:
    names = sorted(os.listdir(folder))
    if not 0 < len(names) <= FILES_MAX or max(map(len, names)) > NAME_LENGTH_MAX:
        raise OSError("too many files, or none")
    return names
