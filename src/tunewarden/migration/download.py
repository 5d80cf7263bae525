"""Files of the source become sealed files of the target, never on a disk in between.

Each file goes in parts of an upload, and the state is written after each, so that a kill loses one part at most, and a
file is never made twice.
"""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from typing import Any

from tunewarden.errors import Error, Kind
from tunewarden.migration import inventory
from tunewarden.migration.content import Content, Part
from tunewarden.migration.source import Object, Source
from tunewarden.migration.state import State
from tunewarden.migration.target import Origin, Target, UploadGone
from tunewarden.registry import file_rules

NAME = "downloads"
PART_BYTES = 16 * 1024 * 1024
# Results have a purpose that only a server itself may give; they are no training data either.
PURPOSES = {file_rules.FINE_TUNE: file_rules.FINE_TUNE}
OTHER_PURPOSE = "user_data"
# What is wrong with one file; anything else ends the command.
OF_ONE_FILE = frozenset({Kind.INVALID, Kind.NOT_FOUND, Kind.CONFLICT, Kind.TOO_LARGE})


@dataclass(slots=True)
class Outcome:
    """What became of the files: ids of the source, and why some could not be saved."""

    saved: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Downloads:
    """Where files come from, where they go, and what was done so far."""

    source: Source
    target: Target
    state: State
    # Told what is saved, how much of it, and of how much.
    shown: Callable[[str, int, int], None]
    # What the state has, file by file; read once, for there may be thousands.
    _entries: Object = field(init=False)

    def __post_init__(self) -> None:
        self._entries = (self.state.read(NAME) or {}).get("files", {})

    def run(self, found: Mapping[str, Any]) -> Outcome:
        """Save every file of an inventory that can still be had; those that are saved already stay. Raises Error."""
        outcome = Outcome()
        there = [one for one in found["files"] if one["state"] == inventory.LISTED]
        # What they were made from comes first.
        there.sort(key=lambda one: one["purpose"] == file_rules.RESULTS)
        for count, file in enumerate(there):
            self.shown("files", count, len(there))
            entry = self._entries.get(file["id"], {})
            if entry.get("file") and self.target.has_file(entry["file"]):
                outcome.kept.append(file["id"])
                continue
            try:
                self._save(file, _learned_from(found, file["id"]))
                outcome.saved.append(file["id"])
            except Error as error:
                if error.kind not in OF_ONE_FILE:
                    raise
                outcome.failed[file["id"]] = error.message
        return outcome

    def saved_as(self, file_id: str | None) -> str | None:
        """Return the target's id of a file of the source; None if it was not saved."""
        saved: str | None = self._entries.get(file_id or "", {}).get("file")
        return saved

    def _save(self, file: Object, learned_from: list[str]) -> None:
        entry = self._entries.get(file["id"], {})
        if entry.get("upload"):
            try:
                self._go_on(file, entry, learned_from)
            except UploadGone:
                pass  # It waited for too long.
            else:
                return
        if file["bytes"] is None:
            raise Error(Kind.INVALID, "the source does not say how large it is")
        # An empty file is no training data either.
        purpose = PURPOSES.get(file["purpose"], OTHER_PURPOSE) if file["bytes"] else OTHER_PURPOSE
        name = _name(file, purpose)
        upload = self.target.begin_upload(name, purpose, file["bytes"])
        entry = {"file": None, "upload": upload, "part_ids": [], "parts": []}
        self._note(file["id"], entry)
        self._go_on(file, entry, learned_from)

    def _go_on(self, file: Object, entry: Object, learned_from: list[str]) -> None:
        """Send what is left of a file and make it one. Raises Error, UploadGone."""
        known = [Part(**part) for part in entry["parts"]]
        at = sum(part.bytes for part in known)
        with closing(Content(self.source, file["id"], file["bytes"], known)) as content:
            while at < content.size:
                size = min(PART_BYTES, content.size - at)
                # In memory first: the target ends a request that stops while the source is waited for.
                taken = BytesIO(content.take(size))
                entry["part_ids"].append(self.target.add_part(entry["upload"], size, taken.read))
                entry["parts"].append(content.end_part().as_json())
                self._note(file["id"], entry)
                at += size
                self.shown(f"MiB of {file['id']}", at >> 20, content.size >> 20)
            sha256 = content.end()
        saved = [one for one in map(self.saved_as, learned_from) if one]
        origin = Origin(saved, f"{self.source.address.url} {file['id']}")
        entry["file"] = self.target.complete(
            entry["upload"], entry["part_ids"], file["bytes"], origin
        )
        self._note(
            file["id"],
            {
                "file": entry["file"],
                "bytes": file["bytes"],
                # What an earlier command began is read again, here: no digest of a beginning can be kept.
                "sha256": sha256 or self._sha256_of(entry["file"]),
                "parts": entry["parts"],
            },
        )

    def _sha256_of(self, saved: str) -> str:
        digest = hashlib.sha256()
        self.target.stream(saved, digest.update)
        return digest.hexdigest()

    def _note(self, file_id: str, entry: Object) -> None:
        self._entries[file_id] = entry
        self.state.write(NAME, {"files": self._entries})


def saved_files(state: State, target: Target) -> Callable[[str | None], str | None]:
    """Return a function from a file of the source to the target's, None if it has none, or none any more."""
    entries = (state.read(NAME) or {}).get("files", {})

    @cache
    def saved_as(file_id: str | None) -> str | None:
        saved: str | None = entries.get(file_id or "", {}).get("file")
        return saved if saved and target.has_file(saved) else None

    return saved_as


def _learned_from(found: Mapping[str, Any], file_id: str) -> list[str]:
    """Return the ids of the files that a file of results tells about."""
    names = [
        job[name]
        for job in found["jobs"]
        if file_id in job["result_files"]
        for name in ("training_file", "validation_file")
    ]
    return list(dict.fromkeys(name for name in names if name))


def _name(file: Object, purpose: str) -> str:
    """Return what a file is called here: as at the source, if that may be."""
    try:
        file_rules.check_name(file["filename"] or "", purpose)
    except Error:
        return f"{file['id']}.jsonl"
    return str(file["filename"])
