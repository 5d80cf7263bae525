"""One shard of the keyring: a directory with `kek.a`, `kek.b` and one `ring.<generation>.age`.

Every change writes the whole ring anew, under a fresh KEK, and erases the KEK before it:

a. write `ring.<g+1>.new`, fsync;  b. put the fresh KEK into the idle slot, fsync;
c. rename to `ring.<g+1>.age`, fsync the directory: the change has happened;
d. overwrite the old slot in place, fsync: no old copy of the old ring opens again;
e. overwrite the old ring in place, fsync, unlink. This unlink is not synced: a power cut may bring
   the name back, with nothing but noise behind it, and `settle` takes it away.

The files that d and e overwrite are opened before c: what cannot be erased is not replaced.
After a crash the highest generation whose slot opens its ring wins, and `settle` does d and e.
Callers hold the keyring's lock, `read` aside.
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
_NEW_RING = re.compile(r"ring\.[1-9][0-9]*\.new")
# A read that overlaps a change starts over. Changes take several fsyncs, a read takes none.
_READ_ATTEMPTS = 8


class ShardDamaged(Exception):
    """No slot opens any ring of the shard, though it has been in use."""

    def __init__(self, directory: Path) -> None:
        super().__init__(f"keyring shard {directory.name}: no slot opens its ring")


class Shard:
    """The ring in one directory. An absent directory is an empty ring of generation 0."""

    def __init__(self, disk: Disk, directory: Path) -> None:
        self._disk = disk
        self._directory = directory

    def read(self) -> tuple[int, Ring]:
        """Return the newest generation and its ring; takes no lock and writes nothing.

        Raises `ShardDamaged`, which under a storm of changes may be no more than bad luck.
        """
        for _ in range(_READ_ATTEMPTS):
            slots = self._slots()
            live, ring = self._newest(slots)
            if live.generation or self._unused(slots):
                return live.generation, ring
        raise ShardDamaged(self._directory)

    def settled_generation(self) -> int | None:
        """Return the generation if nothing is left to finish here, by names and slots alone; else None.

        Opens no ring, so that looking at a thousand shards takes a moment; that a ring is damaged is
        noticed by whoever opens it. 0 if the shard was never written.
        """
        names = self._disk.names(self._directory)
        if not names:
            return 0
        rings = [name for name in names if name not in _SLOTS]
        match = _RING.fullmatch(rings[0]) if len(rings) == 1 else None
        if match is None:
            return None
        held = {slot.generation if slot else None for slot in self._slots().values()}
        generation = int(match[1])
        return generation if held == {0, generation} else None

    def settle(self) -> tuple[int, Ring]:
        """Finish what a crash interrupted, and return the newest generation and its ring.

        Afterwards no older ring and no older KEK is left. Writes nothing if there is nothing to
        finish. Raises `ShardDamaged`, and then has changed nothing.
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
            # Nothing has proved yet that the directory's own names are durable: its maker may
            # have died before the fsync. Later generations stand on step c of an earlier one.
            self._prepare()
        after = before + 1
        kek, recipient = new_identity()
        sealed = pyrage.encrypt(ring.encode(), [pyrage.x25519.Recipient.from_str(recipient)])
        live_name, idle_name = self._slot_names(before)
        new = self._directory / f"ring.{after}.new"
        old = self._directory / _ring_name(before)
        with ExitStack() as files:
            live_slot = files.enter_context(self._disk.open_in_place(self._directory / live_name))
            idle_slot = files.enter_context(self._disk.open_in_place(self._directory / idle_name))
            old_ring = files.enter_context(self._disk.open_in_place(old)) if before else None
            self._disk.write_new(new, [sealed])  # a
            idle_slot.overwrite([Slot(after, kek).encode()])  # b
            self._disk.rename(new, self._directory / _ring_name(after))  # c
            self._disk.sync_directory(self._directory)
            live_slot.overwrite([Slot(0).encode()])  # d
            if old_ring is not None:
                old_ring.overwrite(noise(old_ring.size))  # e
                self._disk.unlink(old)
        return after

    def sealed_bytes(self) -> int:
        """Return the length of the largest ring file: a hint at how full the shard is."""
        rings = [name for name in self._files() if _RING.fullmatch(name)]
        return max((self._disk.size(self._directory / name) for name in rings), default=0)

    def _prepare(self) -> None:
        """Make the directory and its two blank slots, where they are missing; durable."""
        self._disk.make_directory(self._directory)
        missing = [name for name in _SLOTS if name not in self._disk.names(self._directory)]
        for name in missing:
            self._disk.write_new(self._directory / name, [Slot(0).encode()])
        self._disk.sync_directory(self._directory)

    def _finish(self, leftovers: list[str], idle: list[str]) -> None:
        # The winner may owe its name to a rename that was never synced: sync before erasing.
        self._disk.sync_directory(self._directory)
        for name in idle:
            if name in self._disk.names(self._directory):
                with self._disk.open_in_place(self._directory / name) as slot:
                    slot.overwrite([Slot(0).encode()])
        for name in leftovers:
            erase_file(self._disk, self._directory / name)
        self._prepare()

    def _newest(self, slots: dict[str, Slot | None]) -> tuple[Slot, Ring]:
        """Return the slot of the highest generation that opens its ring, and the ring."""
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
        """Tell whether nothing was ever committed here: no ring, and no KEK beyond the first."""
        rings = [name for name in self._files() if _RING.fullmatch(name)]
        return not rings and all(slot is None or slot.generation <= 1 for slot in slots.values())

    def _slots(self) -> dict[str, Slot | None]:
        """Return what each slot holds: None when torn, and no entry when the file is missing."""
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
