"""The keyring as a directory of shards (`keyring_shard.py`).

A key's id names its shard, so the cost of an erasure does not grow with the number of models. # I3, I10, D6
"""

import hmac
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from pyrage import x25519

from tunewarden.artifacts.disk import Disk
from tunewarden.artifacts.keyring import Assurance, ErasedKey, Key, KeyErased, Method
from tunewarden.artifacts.keyring_format import Ring, new_identity, parse_identity, ring_bytes
from tunewarden.artifacts.keyring_shard import Shard, ShardDamaged
from tunewarden.errors import Error, Kind
from tunewarden.ids import token

SHARD_CAPACITY = 1000

_KEY_ID = re.compile(r"k([0-9]{6})-([A-Za-z0-9]{24})")
_SHARD_NAME = re.compile(r"[0-9]{6}")


class DirectoryKeyring:
    """Keys in shards below `root`. Any number of processes and threads may share it.

    Writers hold a lock that the kernel releases when they die; readers take none. Call `recover`
    at start: until then a crash may have left an old ring with an erased key.
    """

    def __init__(self, disk: Disk, root: Path, *, shard_capacity: int = SHARD_CAPACITY) -> None:
        self._disk = disk
        self._root = root
        self._shard_capacity = shard_capacity
        # Hints, accessed under the lock; another process may have filled these shards since.
        self._with_room: set[int] = set()
        self._newest: int | None = None
        disk.make_directory(root)

    def create(self) -> Key:
        """Create a key; durable when this returns."""
        return self.create_many(1)[0]

    def create_many(self, count: int) -> list[Key]:
        """Create `count` keys with one rewrite per shard; durable when this returns.

        Not atomic: on failure, some unreferenced keys may exist, which is harmless.
        """
        keys: list[Key] = []
        with self._writing():
            while len(keys) < count:
                number, generation, ring = self._shard_with_room()
                room = min(self._shard_capacity - len(ring), count - len(keys))
                records = []
                for _ in range(room):
                    identity, recipient = new_identity()
                    name = token(24)
                    records.append((name.encode(), identity))
                    keys.append(Key(id=f"k{number:06}-{name}", recipient=recipient))
                self._shard(number).rewrite(ring.with_added(records), generation)
        return keys

    def open(self, key_id: str) -> x25519.Identity:
        """Return the identity that decrypts what was sealed to the key. Raises `KeyErased`."""
        number, name = _parse(key_id)
        identity = self._read(number)[1].find(name)
        if identity is None:
            raise KeyErased(key_id)
        return parse_identity(identity)

    def derive_many(self, key_ids: Iterable[str], purpose: bytes) -> dict[str, bytes]:
        """Derive a 32-byte secret from each key that exists; each shard is read once.

        HMAC-SHA256 of the purpose under the key's identity: erasing the key makes it underivable.
        """
        by_shard: dict[int, dict[str, bytes]] = {}
        for key_id in key_ids:
            number, name = _parse(key_id)
            by_shard.setdefault(number, {})[key_id] = name
        derived: dict[str, bytes] = {}
        for number, names in by_shard.items():
            found = self._read(number)[1].find_many(names.values())
            for key_id, name in names.items():
                if name in found:
                    derived[key_id] = hmac.digest(found[name], purpose, "sha256")
        return derived

    def contains(self, key_id: str) -> bool:
        """Return whether the key is in the keyring."""
        number, name = _parse(key_id)
        return self._read(number)[1].find(name) is not None

    def generation(self, shard: int) -> int:
        """Return how many times the shard has been written; monotonic. 0: never."""
        settled = self._shard(shard).settled_generation()
        return self._read(shard)[0] if settled is None else settled

    def generations(self) -> dict[int, int]:
        """Return the generation of every shard. Opens each: not for the hot path."""
        return {shard: self.generation(shard) for shard in self.shards()}

    def shard_of(self, key_id: str) -> int:
        """Return the shard of a key id."""
        return _parse(key_id)[0]

    def key_ids(self, shard: int) -> list[str]:
        """Return the ids of a shard's keys. Opens it: not for the hot path."""
        return [f"k{shard:06}-{name.decode()}" for name in self._read(shard)[1].names()]

    def shards(self) -> list[int]:
        """Return the numbers of all shards, in order. Lists the root: not for the hot path."""
        return sorted(int(n) for n in self._disk.names(self._root) if _SHARD_NAME.fullmatch(n))

    def erase(self, key_id: str) -> ErasedKey:
        """Erase a key; durable when this returns. Idempotent: a repeat reports it absent. # D6."""
        return self.erase_many([key_id])[0]

    def erase_many(self, key_ids: Sequence[str]) -> list[ErasedKey]:
        """Erase keys, with one rewrite per shard; results are in the order given.

        Each shard changes atomically and durably; on failure, call it again. # D6, I3
        """
        by_shard: dict[int, dict[str, bytes]] = {}
        for key_id in key_ids:
            number, name = _parse(key_id)
            by_shard.setdefault(number, {})[key_id] = name
        erased: dict[str, ErasedKey] = {}
        with self._writing():
            for number, names in by_shard.items():
                erased |= {e.key_id: e for e in self._erase_from(number, names)}
        return [erased[key_id] for key_id in key_ids]

    def recover(self) -> None:
        """Complete interrupted changes in every shard. Raises `Error` if one is damaged.

        The others are completed all the same; a damaged one is not touched. A shard that
        was not interrupted is not decrypted, so that a start is fast with a million keys: `damaged`
        does that in the background.
        """
        damaged: Error | None = None
        with self._writing():
            for number in self.shards():
                self._newest = max(self._newest or 0, number)
                try:
                    if self._shard(number).settled_generation() is None:
                        self._settle(number)
                except Error as error:
                    damaged = error
                    continue
                # Skip nearly full shards: otherwise many rewrites would add few keys each.
                if self._shard(number).sealed_bytes() < ring_bytes(self._shard_capacity * 9 // 10):
                    self._with_room.add(number)
        if damaged is not None:
            raise damaged

    def reserve(self) -> None:
        """Ensure a spare file in every shard, for its next change on a full disk. Opens each shard."""
        for number in self.shards():
            with self._writing():
                if self._shard(number).settled_generation():
                    self._shard(number).reserve()

    def damaged(self) -> list[int]:
        """Decrypt every shard; return the damaged ones, whose models are lost unless they are restored."""
        found = []
        for number in self.shards():
            try:
                self._read(number)
            except Error:
                found.append(number)
        return found

    def _erase_from(self, number: int, names: dict[str, bytes]) -> Iterable[ErasedKey]:
        before, ring = self._settle(number)
        present = {key_id for key_id, name in names.items() if ring.find(name) is not None}
        after = before
        if present:
            after = self._shard(number).rewrite(ring.without(names.values()), before)
            self._with_room.add(number)
        in_place = self._disk.overwrites_in_place(self._root)
        for key_id in names:
            yield ErasedKey(
                key_id=key_id,
                shard=number,
                generation_before=before if key_id in present else after,
                generation_after=after,
                method=Method.REWRITTEN if key_id in present else Method.ABSENT,
                assurance=Assurance.FILESYSTEM if in_place else Assurance.LOGICAL,
            )

    def _shard_with_room(self) -> tuple[int, int, Ring]:
        """Return a settled shard with room: its number, generation and ring.

        A shard found full is removed from the list for good, so the amortized cost does
        not depend on the number of shards.
        """
        if self._newest is None:
            self._newest = max(self.shards(), default=0)
        while True:
            number = next(iter(self._with_room), self._newest)
            generation, ring = self._settle(number)
            if len(ring) < self._shard_capacity:
                return number, generation, ring
            self._with_room.discard(number)
            if number == self._newest:
                self._newest += 1

    def _settle(self, number: int) -> tuple[int, Ring]:
        return _translated(number, self._shard(number).settle)

    def _read(self, number: int) -> tuple[int, Ring]:
        shard = self._shard(number)
        try:
            return shard.read()
        except ShardDamaged:
            # Either damaged, or every attempt raced with a change; under the lock there are no changes.
            with self._writing():
                return _translated(number, shard.read)

    def _shard(self, number: int) -> Shard:
        return Shard(self._disk, self._root / f"{number:06}")

    def _writing(self) -> AbstractContextManager[None]:
        return self._disk.exclusive(self._root / "lock")


def _parse(key_id: str) -> tuple[int, bytes]:
    """Return the shard's number and the token. Raises ValueError for a malformed key id."""
    match = _KEY_ID.fullmatch(key_id)
    if match is None:
        raise ValueError(f"not a key id: {key_id!r}")
    return int(match[1]), match[2].encode()


def _translated(number: int, read: Callable[[], tuple[int, Ring]]) -> tuple[int, Ring]:
    try:
        return read()
    except ShardDamaged as error:
        message = f"Shard {number} of the keyring is damaged. The operator must restore it."
        raise Error(Kind.UNAVAILABLE, message, code="keyring_damaged") from error
