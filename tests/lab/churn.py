"""A process that makes and erases keys until it is killed, and keeps a journal of it.

Run: `python churn.py KEYRING JOURNAL CAPACITY`.
"""

import os
import sys
from pathlib import Path

from tunewarden.artifacts.directory_keyring import DirectoryKeyring
from tunewarden.artifacts.disk import LocalDisk


def main(root: str, journal: str, capacity: str) -> None:
    lines = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    keyring = DirectoryKeyring(LocalDisk(), Path(root), shard_capacity=int(capacity))
    live: list[str] = []
    while True:
        live.append(keyring.create().id)
        os.write(lines, f"created {live[-1]}\n".encode())
        if len(live) > 1:
            gone = live.pop(0)
            os.write(lines, f"erasing {gone}\n".encode())
            keyring.erase(gone)
            os.write(lines, f"erased {gone}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
