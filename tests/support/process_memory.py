"""What is in the memory of a process, as the kernel shows it."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

PIECE_BYTES = 64 * 1024 * 1024


def count(pid: int, patterns: Sequence[bytes]) -> int:
    """Return how often a process has these bytes, all of one length, in its memory; 0 if it has ended."""
    found = 0
    with contextlib.suppress(FileNotFoundError, ProcessLookupError), _memory(pid) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text("utf-8").splitlines():
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            if "r" in line.split()[1] and "[v" not in line:
                with contextlib.suppress(OSError, ValueError):  # mapped no more
                    found += _count_in(memory, begin, end, patterns)
    return found


def _memory(pid: int) -> BinaryIO:
    return cast("BinaryIO", Path(f"/proc/{pid}/mem").open("rb", buffering=0))


def _count_in(memory: BinaryIO, begin: int, end: int, patterns: Sequence[bytes]) -> int:
    """Count in one mapping, piece by piece; a pattern lies across two pieces where it must not be missed."""
    found, overlap = 0, len(patterns[0]) - 1
    at = begin
    while at < end:
        memory.seek(at)
        piece = memory.read(min(PIECE_BYTES, end - at))
        if not piece:
            break
        found += sum(piece.count(pattern) for pattern in patterns)
        at += len(piece) if at + len(piece) >= end else max(len(piece) - overlap, 1)
    return found
