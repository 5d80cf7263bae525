"""A keyring in memory: its shards are dictionaries."""

import hmac
import re
from collections.abc import Iterable, Sequence

from pyrage import x25519

from tunewarden.artifacts.keyring import Assurance, ErasedKey, Key, KeyErased, Method
from tunewarden.artifacts.keyring_format import new_identity, parse_identity
from tunewarden.ids import token

_KEY_ID = re.compile(r"k([0-9]{6})-[A-Za-z0-9]{24}")


class MemoryKeyring:
    """Keys of one process, which end with it."""

    def __init__(self, *, shard_capacity: int) -> None:
        self._shard_capacity = shard_capacity
        self._shards: dict[int, dict[str, bytes]] = {}
        self._generations: dict[int, int] = {}

    def create(self) -> Key:
        return self.create_many(1)[0]

    def create_many(self, count: int) -> list[Key]:
        made, changed = [], set()
        for _ in range(count):
            shard = self._shard_with_room()
            identity, recipient = new_identity()
            key = Key(f"k{shard:06}-{token(24)}", recipient)
            self._shards.setdefault(shard, {})[key.id] = identity
            made.append(key)
            changed.add(shard)
        self._note(changed)
        return made

    def open(self, key_id: str) -> x25519.Identity:
        found = self._shards.get(self.shard_of(key_id), {}).get(key_id)
        if found is None:
            raise KeyErased(key_id)
        return parse_identity(found)

    def derive_many(self, key_ids: Iterable[str], purpose: bytes) -> dict[str, bytes]:
        return {
            key_id: hmac.digest(self._shards[self.shard_of(key_id)][key_id], purpose, "sha256")
            for key_id in key_ids
            if self.contains(key_id)
        }

    def contains(self, key_id: str) -> bool:
        return key_id in self._shards.get(self.shard_of(key_id), {})

    def generation(self, shard: int) -> int:
        return self._generations.get(shard, 0)

    def generations(self) -> dict[int, int]:
        return dict(self._generations)

    def shard_of(self, key_id: str) -> int:
        match = _KEY_ID.fullmatch(key_id)
        if match is None:
            raise ValueError(f"not a key id: {key_id!r}")
        return int(match[1])

    def key_ids(self, shard: int) -> list[str]:
        return list(self._shards.get(shard, {}))

    def shards(self) -> list[int]:
        return sorted(self._shards)

    def erase(self, key_id: str) -> ErasedKey:
        return self.erase_many([key_id])[0]

    def erase_many(self, key_ids: Sequence[str]) -> list[ErasedKey]:
        present = {key_id for key_id in key_ids if self.contains(key_id)}
        before = self.generations()
        for key_id in present:
            del self._shards[self.shard_of(key_id)][key_id]
        self._note({self.shard_of(key_id) for key_id in present})
        return [self._erased(key_id, before, is_new=key_id in present) for key_id in key_ids]

    def recover(self) -> None: ...

    def reserve(self) -> None: ...

    def damaged(self) -> list[int]:
        return []

    def _shard_with_room(self) -> int:
        shard = 0
        while len(self._shards.get(shard, {})) >= self._shard_capacity:
            shard += 1
        return shard

    def _note(self, changed: Iterable[int]) -> None:
        for shard in changed:
            self._generations[shard] = self.generation(shard) + 1

    def _erased(self, key_id: str, before: dict[int, int], *, is_new: bool) -> ErasedKey:
        shard = self.shard_of(key_id)
        after = self.generation(shard)
        return ErasedKey(
            key_id=key_id,
            shard=shard,
            generation_before=before[shard] if is_new else after,
            generation_after=after,
            method=Method.REWRITTEN if is_new else Method.ABSENT,
            assurance=Assurance.LOGICAL,
        )
