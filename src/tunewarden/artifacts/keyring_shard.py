"""One shard of the keyring: a directory with `kek.a`, `kek.b` and one `ring.<generation>.age`.

Every change rewrites the ring under a fresh KEK and erases the previous KEK:

a. write the new ring over `ring.spare`, fsync;  b. put the fresh KEK into the idle slot, fsync;
c. rename to `ring.<g+1>.age`, fsync the directory: the change is committed;
d. overwrite the old slot in place, fsync: no copy of the old ring can be decrypted any more;
e. overwrite the old ring in place, fsync, rename to `ring.spare`. This rename is not synced: a power cut
   may bring the old name back, with only noise in it, and `settle` removes it.

So a ring can be rewritten without some of its keys even on a full disk. # I20, D6

The files that d and e overwrite are opened before c: if they cannot be, nothing is committed.
After a crash the highest generation whose slot decrypts its ring wins, and `settle` does d and e.
Callers hold the keyring's lock, except for `read`.
"""

import re
from contextlib import ExitStack
from pathlib import Path

import pyrage

from tunewarden.artifacts.disk import Disk, erase_file, noise
from tunewarden.artifacts.keyring_format import (
    Ring,
    Slot,
    decode_ring,
    decode_slot,
    new_identity,
    parse_identity,
)

_SLOTS = ("kek.a", "kek.b")
_RING = re.compile(r"ring\.([1-9][0-9]*)\.age")
_NEW_RING = re.compile(r"ring\.[1-9][0-9]*\.new")  # written by versions without the spare
_SPARE = "ring.spare"
# A read that races with a change is retried. Changes take several fsyncs, a read takes none.
_READ_ATTEMPTS = 8


class ShardDamaged(Exception):
    """No slot decrypts any ring of a shard that has been in use."""

    def __init__(self, directory: Path) -> None:
        super().__init__(f"keyring shard {directory.name}: no slot opens its ring")


class Shard:
    """The ring in one directory. An absent directory is an empty ring of generation 0."""

    def __init__(self, disk: Disk, directory: Path) -> None:
        self._disk = disk
        self._directory = directory

    def read(self) -> tuple[int, Ring]:
        """Return the newest generation and its ring; takes no lock and writes nothing.

        Raises `ShardDamaged`, possibly in error while many changes race with it.
        """
        for _ in range(_READ_ATTEMPTS):
            slots = self._slots()
            live, ring = self._newest(slots)
            if live.generation or self._unused(slots):
                return live.generation, ring
        raise ShardDamaged(self._directory)

    def settled_generation(self) -> int | None:
        """Return the generation if no change was interrupted, judged by names and slots alone; else None.

        Decrypts no ring, so that a thousand shards take a moment; a damaged ring is
        noticed when it is read. 0 if the shard was never written.
        """
        names = self._disk.names(self._directory)
        if not names:
            return 0
        rings = [name for name in names if name not in {*_SLOTS, _SPARE}]
        match = _RING.fullmatch(rings[0]) if len(rings) == 1 else None
        if match is None:
            return None
        held = {slot.generation if slot else None for slot in self._slots().values()}
        generation = int(match[1])
        return generation if held == {0, generation} else None

    def settle(self) -> tuple[int, Ring]:
        """Complete an interrupted change, and return the newest generation and its ring.

        Afterwards no older ring or KEK is left. Writes nothing if there is nothing to
        complete. Raises `ShardDamaged` without having changed anything.
        """
        if not self._disk.names(self._directory):
            return 0, Ring()
        slots = self._slots()
        live, ring = self._newest(slots)
        if not live.generation and not self._unused(slots):
            raise ShardDamaged(self._directory)
        leftovers = [n for n in self._files() if n != _ring_name(live.generation)]
        idle = [n for n in _SLOTS if slots.get(n) != live or not live.generation]
        if leftovers or any(slots.get(n) != Slot(0) for n in idle):
            self._finish(leftovers, idle)
        return live.generation, ring

    def rewrite(self, ring: Ring, before: int) -> int:
        """Replace the ring of generation `before` and return the new generation.

        Durable, and the old generation erased, when this returns. Call `settle` first.
        """
        if before <= 1:
            # The directory's own names may not be durable yet: its creator may
            # have died before the fsync. Later generations rely on step c of an earlier one.
            self._prepare()
        after = before + 1
        kek, recipient = new_identity()
        sealed = pyrage.encrypt(ring.encode(), [pyrage.x25519.Recipient.from_str(recipient)])
        live_name, idle_name = self._slot_names(before)
        spare = self._directory / _SPARE
        old = self._directory / _ring_name(before)
        with ExitStack() as files:
            live_slot = files.enter_context(self._disk.open_in_place(self._directory / live_name))
            idle_slot = files.enter_context(self._disk.open_in_place(self._directory / idle_name))
            old_ring = files.enter_context(self._disk.open_in_place(old)) if before else None
            self._write_spare(sealed)  # a
            idle_slot.overwrite([Slot(after, kek).encode()])  # b
            self._disk.rename(spare, self._directory / _ring_name(after))  # c
            self._disk.sync_directory(self._directory)
            live_slot.overwrite([Slot(0).encode()])  # d
            if old_ring is not None:
                old_ring.overwrite(noise(max(old_ring.size, len(sealed))))  # e
                self._disk.rename(old, spare)
            else:
                self._disk.write_new(spare, noise(len(sealed)))
        return after

    def reserve(self) -> None:
        """Create the spare file if missing, as large as the ring. Call `settle` first."""
        if self._disk.names(self._directory) and not self._has_spare():
            self._disk.write_new(self._directory / _SPARE, noise(self.sealed_bytes()))
            self._disk.sync_directory(self._directory)

    def sealed_bytes(self) -> int:
        """Return the length of the largest ring file: a hint of how full the shard is."""
        rings = [name for name in self._files() if _RING.fullmatch(name)]
        return max((self._disk.size(self._directory / name) for name in rings), default=0)

    def _has_spare(self) -> bool:
        return _SPARE in self._disk.names(self._directory)

    def _write_spare(self, sealed: bytes) -> None:
        spare = self._directory / _SPARE
        if not self._has_spare():
            self._disk.write_new(spare, [sealed])
            return
        with self._disk.open_in_place(spare) as file:
            file.replace([sealed])

    def _prepare(self) -> None:
        """Create the directory and its two blank slots if missing; durable."""
        self._disk.make_directory(self._directory)
        missing = [name for name in _SLOTS if name not in self._disk.names(self._directory)]
        for name in missing:
            self._disk.write_new(self._directory / name, [Slot(0).encode()])
        self._disk.sync_directory(self._directory)

    def _finish(self, leftovers: list[str], idle: list[str]) -> None:
        # The newest ring's rename may not be synced yet: fsync before erasing the old one.
        self._disk.sync_directory(self._directory)
        for name in idle:
            if name in self._disk.names(self._directory):
                with self._disk.open_in_place(self._directory / name) as slot:
                    slot.overwrite([Slot(0).encode()])
        for name in leftovers:
            if self._has_spare():
                erase_file(self._disk, self._directory / name)
                continue
            with self._disk.open_in_place(self._directory / name) as file:
                file.overwrite(noise(file.size))
            self._disk.rename(self._directory / name, self._directory / _SPARE)
        self._prepare()

    def _newest(self, slots: dict[str, Slot | None]) -> tuple[Slot, Ring]:
        """Return the slot of the highest generation that decrypts its ring, and the ring."""
        held = [slot for slot in slots.values() if slot is not None and slot.generation]
        for slot in sorted(held, key=lambda slot: slot.generation, reverse=True):
            ring = self._open_ring(slot)
            if ring is not None:
                return slot, ring
        return Slot(0), Ring()

    def _open_ring(self, slot: Slot) -> Ring | None:
        try:
            sealed = self._disk.read(self._directory / _ring_name(slot.generation))
        except FileNotFoundError:
            return None
        try:
            return decode_ring(pyrage.decrypt(sealed, [parse_identity(slot.kek)]))
        except (pyrage.DecryptError, pyrage.IdentityError, OSError):  # OSError: a damaged body
            return None

    def _unused(self, slots: dict[str, Slot | None]) -> bool:
        """Return whether nothing was ever committed here: no ring, and no KEK beyond the first."""
        rings = [name for name in self._files() if _RING.fullmatch(name)]
        return not rings and all(slot is None or slot.generation <= 1 for slot in slots.values())

    def _slots(self) -> dict[str, Slot | None]:
        """Return the content of each slot: None if torn, no entry if the file is missing."""
        slots: dict[str, Slot | None] = {}
        for name in _SLOTS:
            try:
                slots[name] = decode_slot(self._disk.read(self._directory / name))
            except FileNotFoundError:
                continue
        return slots

    def _slot_names(self, generation: int) -> tuple[str, str]:
        """Return the name of the slot that holds this generation, then that of the idle one."""
        slots = self._slots()
        first, second = _SLOTS
        held = slots.get(second)
        if held is not None and held.generation == generation:
            return second, first
        return first, second

    def _files(self) -> list[str]:
        names = self._disk.names(self._directory)
        return [n for n in names if _RING.fullmatch(n) or _NEW_RING.fullmatch(n)]


def _ring_name(generation: int) -> str:
    return f"ring.{generation}.age"
