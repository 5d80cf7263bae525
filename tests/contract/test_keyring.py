"""What every keyring keeps to: the driver, over the machine's disk and over the one in memory, and the fake."""

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyrage
import pytest
from tests.fakes.disk import MemoryDisk
from tests.fakes.keyring import MemoryKeyring

from tunewarden.artifacts.directory_keyring import DirectoryKeyring
from tunewarden.artifacts.disk import Disk, LocalDisk
from tunewarden.artifacts.keyring import Assurance, KeyErased, Keyring, Method
from tunewarden.errors import Error, Kind

CAPACITY = 4
UNKNOWN = "k000000-" + "x" * 24


@pytest.fixture(params=["local", "memory"])
def disk(request: pytest.FixtureRequest) -> Disk:
    return LocalDisk() if request.param == "local" else MemoryDisk()


@pytest.fixture
def root(disk: Disk, tmp_path: Path) -> Path:
    return tmp_path / "keyring" if isinstance(disk, LocalDisk) else Path("/keyring")


@pytest.fixture(params=["local", "memory", "fake"])
def keyring(request: pytest.FixtureRequest, tmp_path: Path) -> Keyring:
    if request.param == "local":
        return DirectoryKeyring(LocalDisk(), tmp_path / "keyring", shard_capacity=CAPACITY)
    if request.param == "memory":
        return DirectoryKeyring(MemoryDisk(), Path("/keyring"), shard_capacity=CAPACITY)
    return MemoryKeyring(shard_capacity=CAPACITY)


def test_a_key_opens_what_was_sealed_to_its_recipient(keyring: Keyring) -> None:
    key = keyring.create()
    sealed = pyrage.encrypt(b"weights", [pyrage.x25519.Recipient.from_str(key.recipient)])
    assert pyrage.decrypt(sealed, [keyring.open(key.id)]) == b"weights"


def test_an_erased_key_is_gone_and_its_neighbours_are_not(keyring: Keyring) -> None:
    keys = keyring.create_many(3)
    erased = keyring.erase(keys[1].id)
    assert (erased.key_id, erased.shard, erased.method) == (keys[1].id, 0, Method.REWRITTEN)
    assert (erased.generation_before, erased.generation_after) == (1, 2)
    assert [keyring.contains(key.id) for key in keys] == [True, False, True]
    with pytest.raises(KeyErased):
        keyring.open(keys[1].id)
    for key in (keys[0], keys[2]):
        assert str(keyring.open(key.id).to_public()) == key.recipient


def test_what_is_derived_from_keys_goes_with_them(keyring: Keyring) -> None:
    names = [key.id for key in keyring.create_many(40)]
    derived = keyring.derive_many(names, b"one")
    assert list(derived) == names
    assert len({*derived.values()}) == 40
    assert not {*derived.values()} & {*keyring.derive_many(names, b"two").values()}
    assert [keyring.derive_many([name], b"one") for name in names] == [
        {name: derived[name]} for name in names
    ]
    keyring.erase_many(names[1::2])
    left = {name: derived[name] for name in names[::2]}
    assert keyring.derive_many([*names, UNKNOWN], b"one") == left


def test_erasing_again_says_that_the_key_was_absent_and_changes_nothing(keyring: Keyring) -> None:
    key = keyring.create()
    first, second = keyring.erase(key.id), keyring.erase(key.id)
    assert second.method is Method.ABSENT
    assert second.generation_before == second.generation_after == first.generation_after
    assert keyring.generation(0) == first.generation_after


def test_erasing_a_key_of_a_shard_that_never_was_makes_no_shard(keyring: Keyring) -> None:
    erased = keyring.erase("k000123-" + "y" * 24)
    assert (erased.generation_after, erased.method) == (0, Method.ABSENT)
    assert keyring.shards() == []


def test_many_keys_of_several_shards_are_erased_with_one_rewrite_each(keyring: Keyring) -> None:
    keys = keyring.create_many(2 * CAPACITY)
    gone = [key.id for key in keys[1::2]]
    erased = keyring.erase_many([*gone, UNKNOWN])
    assert [e.key_id for e in erased] == [*gone, UNKNOWN]
    assert [e.method for e in erased] == [Method.REWRITTEN] * CAPACITY + [Method.ABSENT]
    assert [keyring.generation(shard) for shard in keyring.shards()] == [2, 2]
    assert [keyring.contains(key.id) for key in keys] == [True, False] * CAPACITY


def test_shards_fill_up_to_their_capacity_and_take_new_keys_where_old_ones_went(
    keyring: Keyring,
) -> None:
    keys = [keyring.create() for _ in range(2 * CAPACITY)]
    assert [key.id[:7] for key in keys] == ["k000000"] * CAPACITY + ["k000001"] * CAPACITY
    keyring.erase(keys[0].id)
    assert keyring.create().id.startswith("k000000-")
    assert keyring.create().id.startswith("k000002-")


def test_the_generation_grows_with_every_change(keyring: Keyring) -> None:
    seen = [keyring.generation(0)]
    for _ in range(3):
        key = keyring.create()
        seen.append(keyring.generation(0))
        keyring.erase(key.id)
        seen.append(keyring.generation(0))
    assert seen == list(range(7))


def test_a_second_keyring_on_the_same_root_sees_every_change(disk: Disk, root: Path) -> None:
    keyring = DirectoryKeyring(disk, root, shard_capacity=CAPACITY)
    other = DirectoryKeyring(disk, root, shard_capacity=CAPACITY)
    keys = [(keyring if n % 2 else other).create() for n in range(3 * CAPACITY)]
    assert all(other.contains(key.id) and keyring.contains(key.id) for key in keys)
    other.erase(keys[5].id)
    assert not keyring.contains(keys[5].id)
    assert keyring.shards() == other.shards() == [0, 1, 2]


def test_recovery_of_a_healthy_keyring_changes_nothing(disk: Disk, root: Path) -> None:
    keyring = DirectoryKeyring(disk, root, shard_capacity=CAPACITY)
    keys = keyring.create_many(CAPACITY + 1)
    restarted = DirectoryKeyring(disk, root, shard_capacity=CAPACITY)
    restarted.recover()
    assert [restarted.generation(shard) for shard in restarted.shards()] == [1, 1]
    assert all(restarted.contains(key.id) for key in keys)
    assert restarted.create().id.startswith("k000001-")


@pytest.mark.parametrize("key_id", ["", "k1-abc", "../x", UNKNOWN + "\n", "k000000-" + "-" * 24])
def test_what_is_no_key_id_is_the_callers_mistake(keyring: Keyring, key_id: str) -> None:
    for call in (keyring.open, keyring.contains, keyring.erase):
        with pytest.raises(ValueError, match="not a key id"):
            call(key_id)


def test_a_damaged_shard_is_reported_and_left_alone_while_others_recover(tmp_path: Path) -> None:
    keyring = DirectoryKeyring(LocalDisk(), tmp_path, shard_capacity=CAPACITY)
    keys = keyring.create_many(2 * CAPACITY)
    ring = tmp_path / "000000" / "ring.1.age"
    whole = ring.read_bytes()
    ring.write_bytes(whole[:-1])
    before = {path: path.read_bytes() for path in (tmp_path / "000000").iterdir()}
    keyring.recover()
    assert keyring.damaged() == [0]
    for call in (lambda: keyring.open(keys[0].id), lambda: keyring.erase(keys[0].id)):
        with pytest.raises(Error) as caught:
            call()
        assert (caught.value.kind, caught.value.code) == (Kind.UNAVAILABLE, "keyring_damaged")
    assert {path: path.read_bytes() for path in (tmp_path / "000000").iterdir()} == before
    assert keyring.contains(keys[-1].id)
    ring.write_bytes(whole)
    keyring.recover()
    assert keyring.damaged() == []
    assert keyring.contains(keys[0].id)


def test_a_lost_ring_is_damage_and_not_an_empty_shard(tmp_path: Path) -> None:
    keyring = DirectoryKeyring(LocalDisk(), tmp_path, shard_capacity=CAPACITY)
    key = keyring.create_many(2)[0]
    keyring.erase(key.id)
    (tmp_path / "000000" / "ring.2.age").unlink()
    with pytest.raises(Error):
        keyring.recover()
    with pytest.raises(Error):
        keyring.create()


def test_files_of_others_in_a_shard_are_left_alone(tmp_path: Path) -> None:
    keyring = DirectoryKeyring(LocalDisk(), tmp_path, shard_capacity=CAPACITY)
    key = keyring.create()
    notes = tmp_path / "000000" / "notes.txt"
    notes.write_text("do not touch")
    keyring.recover()
    keyring.erase(key.id)
    assert notes.read_text() == "do not touch"


def test_an_old_copy_of_the_ring_opens_with_no_key_that_exists(tmp_path: Path) -> None:
    keyring = DirectoryKeyring(LocalDisk(), tmp_path, shard_capacity=CAPACITY)
    keys = keyring.create_many(2)
    backup = (tmp_path / "000000" / "ring.1.age").read_bytes()
    keyring.erase(keys[0].id)
    (tmp_path / "000000" / "ring.1.age").write_bytes(backup)
    restored = DirectoryKeyring(LocalDisk(), tmp_path, shard_capacity=CAPACITY)
    restored.recover()
    assert not restored.contains(keys[0].id)
    assert restored.contains(keys[1].id)


def test_files_are_for_the_owner_only(tmp_path: Path) -> None:
    DirectoryKeyring(LocalDisk(), tmp_path / "keyring").create()
    modes = {path.stat().st_mode & 0o077 for path in (tmp_path / "keyring").rglob("*")}
    assert modes == {0}


def test_no_repr_shows_a_secret(keyring: Keyring) -> None:
    key = keyring.create()
    shown = f"{keyring!r} {key!r} {keyring.open(key.id)!r} {keyring.erase(key.id)!r}"
    assert "AGE-SECRET-KEY" not in shown


def test_the_assurance_says_no_more_than_the_filesystem_does(tmp_path: Path) -> None:
    class Elsewhere(LocalDisk):
        def overwrites_in_place(self, path: Path) -> bool:
            assert path.exists()
            return False

    keyring = DirectoryKeyring(Elsewhere(), tmp_path)
    assert keyring.erase(keyring.create().id).assurance is Assurance.LOGICAL


@pytest.mark.long
def test_a_reader_never_misses_a_live_key_while_others_come_and_go(tmp_path: Path) -> None:
    keyring = DirectoryKeyring(LocalDisk(), tmp_path, shard_capacity=CAPACITY)
    lasting = keyring.create()
    done = threading.Event()

    def churn() -> int:
        for _ in range(100):
            keyring.erase(keyring.create().id)
        done.set()
        return 0

    def read() -> int:
        reads = 0
        while not done.is_set():
            assert str(keyring.open(lasting.id).to_public()) == lasting.recipient
            reads += 1
        return reads

    with ThreadPoolExecutor(3) as pool:
        results = [pool.submit(work) for work in (read, read, churn)]
        assert min(result.result() for result in results[:2]) > 20


def _create_and_erase(root: Path) -> tuple[list[str], list[str]]:
    keyring = DirectoryKeyring(LocalDisk(), root, shard_capacity=CAPACITY)
    keys = [keyring.create().id for _ in range(20)]
    for key_id in keys[::2]:
        keyring.erase(key_id)
    return keys[1::2], keys[::2]


def test_several_processes_write_at_once_and_none_loses_the_others_work(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        results = pool.map(_create_and_erase, [tmp_path] * 3)
    keyring = DirectoryKeyring(LocalDisk(), tmp_path, shard_capacity=CAPACITY)
    assert all(keyring.contains(key_id) for kept, _ in results for key_id in kept)
    assert not any(keyring.contains(key_id) for _, gone in results for key_id in gone)
