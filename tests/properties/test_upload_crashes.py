"""Uploads that are cut off anywhere: a whole file, an upload that goes on, or nothing (I6)."""

import gc
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import pytest
from tests.lab.judge import inventory_of, judge_nothing_else
from tests.lab.power import Power
from tests.lab.world import World, copied, new_world, one_dies

from tunewarden.errors import Error
from tunewarden.identity.policy import Caller
from tunewarden.registry import file_rows
from tunewarden.registry.file_rows import File
from tunewarden.registry.file_rules import Description
from tunewarden.registry.uploads import COMING_MICROS

WHOLE = b"abcdef"
LIFE_SECONDS = COMING_MICROS / 1_000_000 + 1


@dataclass
class Before:
    """A closed installation to copy, with an Owner."""

    world: World
    owner: Caller


@pytest.fixture(scope="module")
def before() -> Iterator[Before]:
    with new_world() as world:
        owner = world.caller()
        world.close()
        gc.collect()
        yield Before(world, owner)


@dataclass
class Told:
    """What a client was answered before the power went."""

    file: File | None = None
    cancelled: bool = False


def _use(world: World, owner: Caller, told: Told) -> None:
    """Complete one upload of three parts by two of them, and cancel another."""
    uploads = world.app.uploads
    described = Description("six.txt", "user_data", None)
    first = uploads.create(owner, described, mime_type="text/plain", size=6)
    parts = [uploads.add_part(owner, first.id, BytesIO(one)) for one in (b"def", b"xx", b"abc")]
    chosen = [parts[2].id, parts[0].id]
    told.file = uploads.complete(owner, first.id, chosen, md5=hashlib.md5(WHOLE).hexdigest())[1]
    other = uploads.create(owner, described, mime_type="text/plain", size=6)
    uploads.add_part(owner, other.id, BytesIO(b"abcdef"))
    uploads.cancel(owner, other.id)
    told.cancelled = True


def test_a_crash_at_any_effect_of_an_upload_leaves_a_file_or_nothing(before: Before) -> None:
    ends: Counter[str] = Counter()
    for cut in range(2000):
        told = Told()
        with copied(before.world, power=Power(cut)) as world:
            with one_dies():
                _use(world.open(), before.owner, told)
            was_cut = world.power.dead
            world.restart()
            ends[_judge(world, before.owner, told)] += 1
        if not was_cut:
            break
    print(f"{cut} crashes of uploads: {dict(ends)}")
    assert told.cancelled, "control: without a crash all of it is done"
    assert ends["file"] > 20
    assert ends["nothing"] > 20


def _judge(world: World, owner: Caller, told: Told) -> str:
    """Let time pass; what is then left is files, whole, and nothing else."""
    world.clock.sleep(LIFE_SECONDS)
    world.app.uploads.expire()
    world.app.uploads.tidy()
    found = [file for page in file_rows.pages(world.app.database, owner) for file in page]
    assert len(found) <= 1
    if told.file is not None:
        assert [file.id for file in found] == [told.file.id], (
            "I6: a file that was answered for is lost"
        )
    for file in found:
        assert b"".join(world.app.files.content(file)) == WHOLE
        assert len(world.app.blobs.names(f"{file.internal_id}/")) == 2, "the spare part is erased"
    for table in ("drafts", "upload_parts", "uploads WHERE status = 'pending'"):
        assert world.app.database.peek(f"SELECT COUNT(*) FROM {table}") == (0,), table
    orphaned = inventory_of(world).sweep()
    judge_nothing_else(world)
    # Between a key's making and the note of what it is for, a crash leaves a key that opens nothing.
    assert orphaned <= 1
    return "orphaned key" if orphaned else "file" if found else "nothing"


def test_a_crash_of_one_part_does_not_end_the_upload(before: Before) -> None:
    for cut in range(200):
        with copied(before.world) as world:
            world.open()
            uploads = world.app.uploads
            described = Description("six.txt", "user_data", None)
            upload = uploads.create(before.owner, described, mime_type="text/plain", size=6)
            kept = uploads.add_part(before.owner, upload.id, BytesIO(b"abc"))
            world.close()
            gc.collect()
            world.power = Power(cut)
            with one_dies():
                world.open().app.uploads.add_part(before.owner, upload.id, BytesIO(b"def"))
            was_cut = world.power.dead
            world.restart()
            again = world.app.uploads.add_part(before.owner, upload.id, BytesIO(b"def"))
            chosen = [kept.id, again.id]
            _, file = world.app.uploads.complete(before.owner, upload.id, chosen)
            assert file is not None
            assert _judge(world, before.owner, Told(file)) == "file"
        if not was_cut:
            break
    assert cut > 5


def test_an_upload_whose_key_is_gone_takes_nothing_and_expires(before: Before) -> None:
    """As after a restore: the database is older than the keyring."""
    with copied(before.world) as world:
        world.open()
        uploads = world.app.uploads
        described = Description("six.txt", "user_data", None)
        upload = uploads.create(before.owner, described, mime_type="text/plain", size=6)
        part = uploads.add_part(before.owner, upload.id, BytesIO(WHOLE))
        row = world.app.database.peek("SELECT key_id FROM drafts")
        assert row is not None
        world.app.keyring.erase(row[0])
        with pytest.raises(Error):
            uploads.add_part(before.owner, upload.id, BytesIO(b"def"))
        with pytest.raises(Error):
            uploads.complete(before.owner, upload.id, [part.id])
        assert _judge(world, before.owner, Told()) == "nothing"
