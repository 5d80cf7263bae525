"""A migration's target in memory."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunewarden.migration.target import Origin


def nothing(*_: object) -> None:
    """Show nothing."""


@dataclass
class MemoryTarget:
    """A target in memory; `step` is called before and after each change, and may raise."""

    step: Callable[[str], None] = nothing
    uploads: dict[str, dict[str, bytes]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def has_file(self, file_id: str) -> bool:
        return file_id in self.files

    def stream(self, file_id: str, into: Callable[[bytes], object]) -> None:
        into(self.files[file_id])

    def begin_upload(self, filename: str, purpose: str, size: int) -> str:
        self.step("before an upload")
        name = f"upload-{len(self.uploads)}"
        self.uploads[name] = {}
        self.step("after an upload")
        return name

    def add_part(self, upload_id: str, size: int, read: Callable[[int], bytes]) -> str:
        self.step("before a part")
        parts = self.uploads[upload_id]
        name = f"part-{len(parts)}"
        parts[name] = read(size)
        self.step("after a part")
        return name

    def complete(self, upload_id: str, part_ids: Sequence[str], size: int, origin: Origin) -> str:
        self.step("before the completion")
        parts = self.uploads[upload_id]
        name = f"file-of-{upload_id}"
        self.files.setdefault(name, b"".join(parts[one] for one in part_ids))
        self.step("after the completion")
        return name

    def answers(self) -> list[dict[str, Any]]:
        """Return the lines of all files."""
        return [json.loads(line) for file in self.files.values() for line in file.splitlines()]
