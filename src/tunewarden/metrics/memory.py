"""Shared memory that the processes of a server count in: exact over processes, and over the death of one.

One memfd, made by the supervisor before it starts the others. Each process has a slot, which only it writes; a scrape
reads all and sums. A worker's successor continues in the slot of its predecessor, so no counter goes backwards, and
nothing is flushed: an increment is a store of 8 aligned bytes in the slot. Nothing is on a disk; the memory ends with
the server, and then counters begin at 0, which Prometheus expects of a restart.

A slot is an array of signed 64-bit integers: their number in use, then blocks one after the other, only appended:

    length of the block | bytes of the key | the key, padded with zeros | the block's integers

The key is a JSON array of texts: the name of a record and its labels. What follows it is the record's business
(`records.py`). The number in use is written last, so a reader, or a successor, never meets half a block.
"""

import json
import mmap
import os
import threading
from collections.abc import Iterator
from typing import Final

Key = tuple[str, ...]

INTEGER_BYTES: Final = 8
# Memory is taken by the page as it is written. Room for more than a thousand blocks.
SLOT_INTEGERS: Final = 64 * 1024
# At the end of a full slot: what has no room is counted here, and never read.
SPILL_INTEGERS: Final = 128


class Slot:
    """The counters of one process."""

    def __init__(self, integers: memoryview) -> None:
        """`integers` has the format "q"."""
        # The hot path writes here itself, at what `block` returned. Only one thread may write to one block without `lock`.
        self.integers = integers
        self.lock = threading.Lock()
        self._found = {key: at for key, at, _ in _blocks(integers)}

    @classmethod
    def private(cls) -> "Slot":
        """Return a slot that nobody else reads."""
        return cls(memoryview(bytearray(SLOT_INTEGERS * INTEGER_BYTES)).cast("q"))

    def block(self, key: Key, size: int) -> int:
        """Return where the `size` integers of a key begin, which are new and 0 unless the key is known. Thread-safe."""
        at = self._found.get(key)
        if at is None:
            with self.lock:
                at = self._append(key, size)
        return at

    def add(self, key: Key, by: int = 1) -> None:
        """Add to the one integer of a key. Thread-safe."""
        at = self.block(key, 1)
        with self.lock:
            self.integers[at] += by

    def set(self, key: Key, value: int) -> None:
        """Set the one integer of a key."""
        self.integers[self.block(key, 1)] = value

    def reset(self, names: frozenset[str]) -> None:
        """Set the records of these names to 0: what a predecessor had in use, its successor does not."""
        for key, at, size in _blocks(self.integers):
            if key[0] in names:
                self.integers[at : at + size] = memoryview(bytes(size * INTEGER_BYTES)).cast("q")

    def _append(self, key: Key, size: int) -> int:
        at = self._found.get(key)  # another thread may have been faster
        if at is not None:
            return at
        name = json.dumps(key).encode()
        padded = name.ljust(-len(name) // INTEGER_BYTES * -INTEGER_BYTES, b"\0")
        begin = self.integers[0] or 1
        at = begin + 2 + len(padded) // INTEGER_BYTES
        if at + size > len(self.integers) - SPILL_INTEGERS:
            at = len(self.integers) - SPILL_INTEGERS
        else:
            self.integers[begin] = at + size - begin
            self.integers[begin + 1] = len(name)
            self.integers[begin + 2 : at] = memoryview(padded).cast("q")
            self.integers[0] = at + size
        self._found[key] = at
        return at


class Memory:
    """The slots of all processes of a server."""

    def __init__(self, descriptor: int) -> None:
        """Map the memory of a descriptor, which stays open."""
        self.descriptor = descriptor
        self._integers = memoryview(mmap.mmap(descriptor, os.fstat(descriptor).st_size)).cast("q")

    @classmethod
    def create(cls, slots: int) -> "Memory":
        """Make the memory of a server that has so many processes that count."""
        descriptor = os.memfd_create("tunewarden-metrics", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, slots * SLOT_INTEGERS * INTEGER_BYTES)
        return cls(descriptor)

    def slot(self, number: int) -> Slot:
        """Return one slot, for the one process that writes it."""
        return Slot(self._slot(number))

    def totals(self) -> dict[Key, list[int]]:
        """Return the integers of each key, summed over all slots."""
        found: dict[Key, list[int]] = {}
        for number in range(len(self._integers) // SLOT_INTEGERS):
            integers = self._slot(number)
            for key, at, size in _blocks(integers):
                before = found.get(key)
                values = integers[at : at + size].tolist()
                found[key] = values if before is None else list(map(int.__add__, before, values))
        return found

    def _slot(self, number: int) -> memoryview:
        return self._integers[number * SLOT_INTEGERS : (number + 1) * SLOT_INTEGERS]


def _blocks(integers: memoryview) -> Iterator[tuple[Key, int, int]]:
    """Yield the key of each block, and where its integers begin and how many they are."""
    at, end = 1, integers[0]
    while at < end:
        length, named = integers[at], integers[at + 1]
        begin = at + 2 + -named // INTEGER_BYTES * -1
        name = integers[at + 2 : begin].tobytes()[:named]
        yield tuple(json.loads(name)), begin, at + length - begin
        at += length
