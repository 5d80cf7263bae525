"""What must be true of the receipts of an organization's deletions: exports and summaries of cases."""

from tests.lab.judge import require, tx_n
from tests.lab.world import Made, World

from tunewarden.deletion import case_rows, records
from tunewarden_receipts import cases, receipt
from tunewarden_receipts.leaf import DeletionLeaf


def require_exports(world: World, made: Made, count: int) -> None:
    """Require that a deleted thing's receipt says how often it was exported."""
    with world.app.database.read() as tx:
        deletion = records.find_of(tx, tx_n(world, made))
    assert deletion is not None
    assert deletion.receipt is not None
    facts = receipt.verify(deletion.receipt, world.app.open_log()[1].public_pem()).facts
    assert isinstance(facts, DeletionLeaf)
    said = facts.exports.count if facts.exports else 0
    require(
        "I18",
        f"{said} exports are in the receipt of what was exported {count} times",
        said == count,
    )


def require_summaries(world: World) -> int:
    """Require that each case has ended, with a summary that commits to its members' receipts; return how many."""
    key = world.app.open_log()[1].public_pem()
    with world.app.database.read() as tx:
        ids = [row[0] for row in tx.rows("SELECT id FROM deletion_cases ORDER BY n")]
        found = [case_rows.find(tx, case_id) for case_id in ids]
    for case in found:
        assert case is not None
        require("I6", "a case is left unfinished", case.finished_at and case.receipt)
        members = [
            records.find(world.app.database, one.deletion_id)
            for one in case_rows.members_of(world.app.database, case)
        ]
        proven = [receipt.verify(one.receipt or b"", key) for one in members if one]
        require("I4", "a member of a case is lost", len(proven) == case.size)
        cases.check_members(receipt.verify(case.receipt or b"", key), proven)
    return len(found)
