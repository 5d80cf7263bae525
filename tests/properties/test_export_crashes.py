"""Exports that are cut off anywhere: what was sent is in the log, and on record after every restore (I18)."""

import shutil
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.lab.power import Power
from tests.lab.world import Made, Start, World, copied, one_dies, started

from tunewarden.app import exports
from tunewarden.errors import Error
from tunewarden.registry import export_rows
from tunewarden.registry.export_rows import Export
from tunewarden.registry.models import Model
from tunewarden_receipts import receipt
from tunewarden_receipts.leaf import DeletionLeaf, ExportLeaf


@pytest.fixture(scope="module")
def before() -> Iterator[Start]:
    with started(1) as begun:
        yield begun


def _export(world: World, before: Start) -> bytes:
    """Export the model as a download does; return its first byte."""
    model = before.made[0].model
    assert isinstance(model, Model)
    operation = exports(world.app)
    pieces = operation.archive(model)
    first = next(filter(None, pieces))
    operation.record(before.owner, model)
    return first[:1]


def _leaves(world: World) -> list[ExportLeaf]:
    log, signer = world.app.open_log()
    facts = (receipt.verify_entry(entry, signer.public_pem()) for _, entry in log.entries())
    return [one for one in facts if isinstance(one, ExportLeaf)]


def _rows(world: World, made: Made) -> list[Export]:
    with world.app.database.read() as tx:
        return export_rows.of(tx, made.model.n)


def test_a_crash_at_any_effect_of_an_export_forgets_none_of_which_a_byte_was_sent(
    before: Start,
) -> None:
    ends: Counter[str] = Counter()
    made = before.made[0]
    for first in range(100):
        with copied(before.world, power=Power(first)) as world:
            sent = b""
            with one_dies():
                sent = _export(world.open(), before)
            was_cut = world.power.dead
            world.restart()
            leaves, rows = _leaves(world), _rows(world, made)
            assert len(leaves) == 1 if sent else len(leaves) <= 1
            assert [one.export_id for one in leaves] in ([], [one.id for one in rows])
            ends[f"{len(rows)} on record, {len(leaves)} in the log, {len(sent)} sent"] += 1
            # The receipt says what is on record, and nothing else.
            deletion = world.delete(before.owner, made)
            assert deletion.receipt is not None
            verified = receipt.verify(deletion.receipt, world.app.open_log()[1].public_pem())
            assert isinstance(verified.facts, DeletionLeaf)
            assert verified.facts.exports is not None
            assert verified.facts.exports.count == len(rows)
        if not was_cut:
            break
    print(f"{first} crashes of an export: {dict(ends)}")
    assert ends["0 on record, 0 in the log, 0 sent"]
    assert ends["1 on record, 0 in the log, 0 sent"]
    assert ends["1 on record, 1 in the log, 0 sent"], "between the leaf and the first byte"
    assert ends["1 on record, 1 in the log, 1 sent"] == 1


def test_an_older_database_finds_each_export_in_the_log_once(before: Start) -> None:
    made = before.made[0]
    with copied(before.world) as newer, copied(before.world) as older:
        newer.open()
        for _ in range(3):
            _export(newer, before)
        rows = _rows(newer, made)
        for part in ("log", "keyring"):
            shutil.rmtree(older.config.data / part)
            shutil.copytree(newer.config.data / part, older.config.data / part)
        older.open()
        assert _rows(older, made) == [], "the control: without the log it knows none"
        for _ in range(2):
            older.restart()
            assert _rows(older, made) == rows
        assert len(_leaves(older)) == 3


def test_a_receipt_lists_as_many_exports_as_a_model_can_have_and_no_more_are_made(
    before: Start,
) -> None:
    made = before.made[0]
    with copied(before.world) as world:
        world.open()
        with world.app.database.write() as tx:
            for n in range(export_rows.EXPORTS_MAX - 1):
                made_by = Export(f"export_{n}", before.owner.key_id, n + 1)
                export_rows.insert(tx, made.model.n, made_by)
        _export(world, before)
        with pytest.raises(Error, match="exported 1000 times") as refused:
            _export(world, before)
        assert refused.value.code == "too_many_exports"
        deletion = world.delete(before.owner, made)
        assert deletion.receipt is not None
        verified = receipt.verify(deletion.receipt, world.app.open_log()[1].public_pem())
        assert verified.disclosed is not None
        assert verified.disclosed.exports is not None
        assert len(verified.disclosed.exports) == export_rows.EXPORTS_MAX
        print(f"{len(deletion.receipt)} bytes of {receipt.MAX_RECEIPT_BYTES}")
