"""The memory of a server's token buckets: one memfd, which the supervisor makes and every worker maps.

It holds a mutex, then slots of 16 bytes: a bucket's number, and when it will be full again, in seconds of
CLOCK_BOOTTIME, which all processes of a machine share and nobody sets. Nothing is on a disk; the memory ends with
the server.

A bucket that is full says nothing, so its slot may be given to another one at any time: only buckets that were used in the
last minute take a slot, however many limits there are. A bucket has its slot in one of 8,192 sets, by its number; a set has
32. If all 32 are in use, the one that is full soonest gives way and counts as full: with 100,000 buckets in use at once
that happens to one in a million.
"""

import mmap
import os
from typing import Final

from tunewarden.token_buckets import mutex
from tunewarden.token_buckets.mutex import Mutex

WORD_BYTES: Final = 8
SETS: Final = 8192
WAYS: Final = 32
_SLOT_WORDS: Final = 2
_SET_WORDS: Final = WAYS * _SLOT_WORDS
# Before the slots: the mutex, and a word that is no bucket's number, where a bucket without a slot looks.
_HEADER_WORDS: Final = mutex.BYTES // WORD_BYTES + 2
NOWHERE: Final = _HEADER_WORDS - 2
BYTES: Final = (_HEADER_WORDS + SETS * _SET_WORDS) * WORD_BYTES


class Memory:
    """The slots, as words of the mapped memory: `numbers` at even places, `full_at` behind each."""

    __slots__ = ("descriptor", "full_at", "mutex", "numbers")

    def __init__(self, descriptor: int) -> None:
        """Map the memory of a descriptor, which stays open."""
        self.descriptor = descriptor
        mapped = memoryview(mmap.mmap(descriptor, BYTES))
        self.mutex = Mutex(mapped)
        self.numbers = mapped.cast("q")
        self.full_at = mapped.cast("d")

    @classmethod
    def create(cls) -> "Memory":
        """Make the memory of a server. Pages are taken as they are written; 4 MiB at most."""
        descriptor = os.memfd_create("tunewarden-token-buckets", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, BYTES)
        made = cls(descriptor)
        made.mutex.prepare()
        return made

    def place(self, number: int, now: float) -> int:
        """Return the place of a bucket's number, which takes a slot if it has none; under the mutex."""
        begin = _HEADER_WORDS + (number & (SETS - 1)) * _SET_WORDS
        chosen, soonest = begin, float("inf")
        numbers, full_at = self.numbers, self.full_at
        for at in range(begin, begin + _SET_WORDS, _SLOT_WORDS):
            found = numbers[at]
            if found == number:
                return at
            if not found:  # and so are all behind it
                chosen = at
                break
            if full_at[at + 1] < soonest and soonest > now:
                chosen, soonest = at, full_at[at + 1]
        # In this order: who reads without the mutex finds the number only with its own time.
        numbers[chosen] = 0
        full_at[chosen + 1] = 0.0
        numbers[chosen] = number
        return chosen
