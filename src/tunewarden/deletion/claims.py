"""Claims on deletions: one process at a time works on one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunewarden.locks import ByteLocks


class Claims:
    """Kernel locks on one file: a deletion's is the byte of its number, which a crash releases."""

    def __init__(self, lock_file: Path) -> None:
        self._lock_file = lock_file

    @contextmanager
    def claimed(self, n: int) -> Iterator[bool]:
        """Claim a deletion by its number for a block; False if another process or thread has it."""
        # Open the file each time, so that threads of one process exclude each other too.
        locks = ByteLocks(self._lock_file)
        try:
            yield locks.try_exclusive(n)
        finally:
            locks.close()
