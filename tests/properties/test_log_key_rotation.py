"""Rotations of the log's key that are cut off anywhere, twice: one key signs, and the log verifies from its first key on."""

import shutil
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.lab.power import Power
from tests.lab.world import Start, World, copied, one_dies, started

from tunewarden.audit import EventType
from tunewarden.errors import Error
from tunewarden.recovery_at_start import recover, recovery
from tunewarden.webhooks import endpoint_rows
from tunewarden.webhooks.details import Details, Sealer
from tunewarden.webhooks.event_types import WebhookEventType
from tunewarden_receipts import receipt
from tunewarden_receipts.key_chain import verify_in_chain
from tunewarden_receipts.key_hand_over import KeyHandOverLeaf
from tunewarden_receipts.leaf import DeletionLeaf

DETAILS = Details("name", "https://hooks.example/x", "whsec_x")
PLACES = 60


@pytest.fixture(scope="module")
def before() -> Iterator[Start]:
    """A log with a deletion, and an endpoint that is sealed under its key."""
    with started(4) as begun:
        world = begun.world.open()
        world.delete(begun.owner, begun.made[0])
        _, signer = world.app.open_log()
        with world.app.database.write() as tx:
            endpoint_rows.insert(
                tx,
                "whe_1",
                begun.owner.organization_id,
                Sealer(signer.derive).seal("whe_1", DETAILS),
                list(WebhookEventType),
            )
        world.close()
        yield begun


def rotate(world: World) -> None:
    """Rotate as the command does."""
    world.open()
    if recover(world.app) is None:
        world.app.log_opening.rotate_key(world.clock)


def check(world: World, start: Start, first_pem: bytes, *, deletes: int) -> int:
    """Check everything that must hold after a start; return the number of hand-overs."""
    log, signer = world.app.open_log()
    chain = signer.chain
    assert chain.first.pem() == first_pem
    handed = deleted = 0
    for index, entry in log.entries():
        facts = receipt.verify_entry(entry, chain.of_entry(index).pem())
        handed += isinstance(facts, KeyHandOverLeaf)
        deleted += isinstance(facts, DeletionLeaf)
    assert handed == len(chain.hand_overs)
    assert deleted == deletes
    config = world.config
    assert [one.name for one in config.data.glob("log.key*")] == ["log.key"]
    with world.app.database.read() as tx:
        (row,) = tx.rows(
            "SELECT count(*) FROM audit_events WHERE type = :type", type=EventType.LOG_KEY_ROTATED
        )
        endpoint = endpoint_rows.find(tx, start.owner.organization_id, "whe_1")
    assert row[0] == handed
    assert Sealer(signer.derive).open("whe_1", endpoint.sealed) == DETAILS
    document = chain.document()
    for stored in world.acknowledged.values():
        verify_in_chain(stored, first_pem, document)
    return handed


def test_a_rotation_that_is_cut_off_anywhere_leaves_one_key_and_a_log_that_verifies(
    before: Start,
) -> None:
    first_pem = before.world.open().app.open_log()[1].public_pem()
    before.world.close()
    ends: Counter[str] = Counter()
    for place in range(PLACES):
        with copied(before.world, power=Power(place)) as world:
            done = False
            with one_dies():
                rotate(world)
                done = True
            was_cut = world.power.dead
            # Another crash, where the next start goes on.
            second = Power(place * 5 % 23)
            with one_dies():
                world.restart(power=second)
            world.restart()
            handed = check(world, before, first_pem, deletes=1)
            assert handed == 1 if done else handed <= 1
            world.delete(before.owner, before.made[1])
            check(world, before, first_pem, deletes=2)
            ends[f"{handed} handed over, {second.dead} cut again"] += 1
        if not was_cut:
            break
    print(f"{place} crashes of a rotation: {dict(ends)}")
    assert not was_cut, "every place was tried"
    assert ends["0 handed over, True cut again"]
    assert ends["1 handed over, True cut again"] > 5


def put(source: World, target: World, *names: str) -> None:
    """Replace parts of a data directory by those of another, and the key's files with the log."""
    data = target.config.data
    for name in names:
        shutil.rmtree(data / name)
        shutil.copytree(source.config.data / name, data / name)
    if "log" in names:
        for path in data.glob("log.key*"):
            path.unlink()
        for path in source.config.data.glob("log.key*"):
            shutil.copy2(path, data)


def kept(world: World) -> dict[str, bytes]:
    """Return the log, its marks and the files of its key."""
    data = world.config.data
    paths = [*data.glob("log.key*"), data / "keyring/log.mark", *data.glob("log/**/*")]
    names = {str(path.relative_to(data)): path.read_bytes() for path in paths if path.is_file()}
    seen = world.app.database.peek("SELECT size FROM log_seen")
    return names | {"log_seen": str(seen).encode()}


@pytest.fixture(scope="module")
def interrupted(before: Start) -> Iterator[World]:
    """A second deletion, and then a rotation that was cut off when the log named the new key."""
    with copied(before.world) as world:
        world.open().delete(before.owner, before.made[1])
        world.close()
        with copied(world) as whole:
            rotate(whole)
            promote = whole.power.effects.index("log key: promote")
        world.power = Power(promote)
        with one_dies():
            rotate(world)
        assert world.power.dead
        assert (world.config.data / "log.key.next").exists()
        world.close()
        world.power = Power()
        yield world


def test_an_interrupted_rotation_hides_no_old_keyring(before: Start, interrupted: World) -> None:
    with copied(before.world) as world:
        put(interrupted, world, "log")
        was = kept(world.open())
        with pytest.raises(Error) as refused:
            world.restart()
        assert refused.value.code == "keyring_rolled_back"
        assert kept(world.open()) == was


def test_an_old_keyring_is_adopted_before_an_interrupted_rotation_is_completed(
    before: Start, interrupted: World
) -> None:
    with copied(before.world) as world:
        put(interrupted, world, "log")
        assert recovery(world.open().app).adopt_keyring() == 1
        assert (world.config.data / "log.key.next").exists()
        world.restart()
        check(world, before, world.app.open_log()[1].chain.first.pem(), deletes=2)


def test_what_an_older_database_has_not_seen_is_replayed_before_a_rotation_is_completed(
    before: Start, interrupted: World
) -> None:
    with copied(before.world) as world:
        first_pem = world.open().app.open_log()[1].public_pem()
        put(interrupted, world, "log", "keyring")
        world.restart()
        assert check(world, before, first_pem, deletes=2) == 1
        assert before.made[1].model.id not in [one.id for one in world.models(before.owner)]


def test_a_refused_start_keeps_the_seed_that_the_newest_log_names(
    before: Start, interrupted: World
) -> None:
    with copied(interrupted) as world:
        log = world.config.log
        newest = shutil.copytree(log, world.root / "newest")
        shutil.rmtree(log)
        shutil.copytree(before.world.config.log, log)
        was = kept(world.open())
        with pytest.raises(Error) as refused:
            world.restart()
        assert refused.value.code == "log_rolled_back"
        assert kept(world.open()) == was
        shutil.rmtree(log)
        newest.rename(log)
        world.restart()
        assert check(world, before, world.app.open_log()[1].chain.first.pem(), deletes=2) == 1


def test_a_replayed_hand_over_is_in_the_audit_log_again(before: Start) -> None:
    with copied(before.world) as world, copied(before.world) as newest:
        rotate(newest)
        put(newest, world, "log", "keyring")
        for _ in range(2):
            world.restart()
            with world.app.database.read() as tx:
                (row,) = tx.rows(
                    "SELECT count(*) FROM audit_events WHERE type = :type",
                    type=EventType.LOG_KEY_ROTATED,
                )
            assert row[0] == 1


def test_a_former_seed_that_is_still_in_use_is_not_erased(before: Start) -> None:
    with copied(before.world) as world:
        key = world.config.signing_key
        seed = key.read_bytes()
        key.with_name("log.key.old").hardlink_to(key)  # as a crash of `promote_next` leaves it
        world.restart()
        assert key.read_bytes() == seed
        assert not key.with_name("log.key.old").exists()


def test_a_deletion_that_is_cut_off_before_a_rotation_has_one_leaf(before: Start) -> None:
    first_pem = before.world.open().app.open_log()[1].public_pem()
    before.world.close()
    logged = 0
    for place in range(0, 100, 3):
        with copied(before.world, power=Power(place)) as world:
            with one_dies():
                world.open().delete(before.owner, before.made[1])
            was_cut = world.power.dead
            world.close()
            world.power = Power()
            rotate(world)
            world.restart()
            if before.made[1].model.id not in [one.id for one in world.models(before.owner)]:
                logged += 1
                check(world, before, first_pem, deletes=2)
            world.delete(before.owner, before.made[2])
            check(
                world,
                before,
                first_pem,
                deletes=2
                + (before.made[1].model.id not in [one.id for one in world.models(before.owner)]),
            )
        if not was_cut:
            break
    assert not was_cut
    assert logged > 3


def test_who_still_holds_the_old_key_appends_nothing(before: Start) -> None:
    with copied(before.world) as world:
        old_log, _ = world.open().app.open_log()
        stale = world.app
        rotate(world)
        size = world.app.open_log()[0].size()
        with pytest.raises(Error, match="was rotated"):
            old_log.append_proven([(b"late", 0)])
        assert stale is not world.app
        assert world.app.open_log()[0].size() == size


def test_the_old_key_does_not_come_back_unnoticed(before: Start) -> None:
    with copied(before.world) as world:
        old = world.config.signing_key.read_bytes()
        rotate(world)
        new = world.config.signing_key.read_bytes()
        assert old != new
        world.config.signing_key.write_bytes(old)
        with pytest.raises(Error, match="an old copy") as refused:
            world.restart()
        assert refused.value.code == "log_key_rolled_back"
        world.config.signing_key.write_bytes(new)
        world.restart()


def test_an_old_log_beside_a_newer_key_is_called_an_old_copy(before: Start) -> None:
    with copied(before.world) as world:
        rotate(world)
        world.close()
        shutil.rmtree(world.config.log)
        shutil.copytree(before.world.config.log, world.config.log)
        with pytest.raises(Error, match="an old copy") as refused:
            world.restart()
        assert refused.value.code == "log_key_rolled_back"


def test_a_damaged_checkpoint_is_not_called_an_old_copy(before: Start) -> None:
    with copied(before.world) as world:
        checkpoint = world.config.log / "checkpoint"
        said = checkpoint.read_bytes().split(b"\n")
        said[1] = b"7"
        checkpoint.write_bytes(b"\n".join(said))
        with pytest.raises(Error) as refused:
            world.restart()
        assert refused.value.code == "log_damaged"


@pytest.mark.parametrize("rotations", [1, 2])
def test_missing_hand_overs_are_noticed_and_named(before: Start, rotations: int) -> None:
    with copied(before.world) as world:
        for _ in range(rotations):
            rotate(world)
        hand_overs = world.config.log / "hand-overs"
        kept_elsewhere = hand_overs.read_bytes()
        hand_overs.unlink()
        for attempt in (world.restart, lambda: rotate(world)):
            with pytest.raises(Error, match="hand-overs is missing") as refused:
                attempt()
            assert refused.value.code == "log_hand_overs_missing"
        hand_overs.write_bytes(kept_elsewhere)
        world.restart()


def test_a_missing_key_is_not_made_beside_a_log(before: Start) -> None:
    with copied(before.world) as world:
        key = world.config.signing_key
        seed = key.read_bytes()
        key.unlink()
        for attempt in (world.restart, lambda: rotate(world)):
            with pytest.raises(Error, match="is missing") as refused:
                attempt()
            assert refused.value.code == "log_key_missing"
            assert list(key.parent.glob("log.key*")) == []
        key.touch(mode=0o600)
        key.write_bytes(seed)
        world.restart()


def test_an_old_log_with_its_old_key_is_refused(before: Start) -> None:
    with copied(before.world) as world, copied(before.world) as older:
        rotate(world)
        for name in ("log", "log.key"):
            target = world.config.data / name
            source = older.config.data / name
            if source.is_dir():
                shutil.rmtree(target)
                shutil.copytree(source, target)
            else:
                shutil.copy(source, target)
        with pytest.raises(Error) as refused:
            world.restart()
        assert refused.value.code == "log_rolled_back"
