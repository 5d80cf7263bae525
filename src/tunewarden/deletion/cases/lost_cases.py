"""A case that an older database does not know, made again from its leaf and from its members' deletions (D10).

The case's salt is made from that of the file that it began with, so a database that knows the file opens the leaf. Which
deletions belong to it is proven by the leaf's commitment to their entries, or not said: then none are listed.
"""

from collections.abc import Sequence
from datetime import datetime

from tunewarden import audit
from tunewarden.clock import to_micros
from tunewarden.db.database import Tx
from tunewarden.deletion import case_rows
from tunewarden.deletion.case_rows import Case
from tunewarden.deletion.disclosure import asker
from tunewarden.deletion.lineage import Node, below, walk
from tunewarden.deletion.records import Deletion
from tunewarden.identity import keys
from tunewarden.registry.artifacts import ArtifactKind
from tunewarden_receipts import receipt
from tunewarden_receipts.deletion_case import CaseLeaf, members_commitment
from tunewarden_receipts.leaf import Disclosure, opened

UNKNOWN = "unknown"


def restore(tx: Tx, facts: CaseLeaf, deletions: Sequence[Deletion]) -> Case | None:
    """Insert the case of a leaf, unfinished; None if no database row tells whose it is.

    `deletions`: those that went on when it was requested, of any organization.
    """
    requested_at = to_micros(datetime.fromisoformat(facts.requested_at))
    origin = next((one for one in deletions if _began_with(facts, one)), None)
    if origin is None:
        return None
    salt = case_rows.salt_of(origin.salt, facts.case_id)
    own = [one for one in deletions if one.organization_id == origin.organization_id]
    together = [one for one in own if one.requested_at == requested_at]
    # Those that had begun before belong to it if they learned from the same.
    learned = {node.n for node in walk(tx, Node(origin.artifact_n), below).found if not node.is_job}
    related = [one for one in own if one in together or one.artifact_n in learned]
    proven = next((some for some in (together, related) if _are_all(facts, salt, some)), [])
    requested_by = asker(facts, salt, keys.ids_of(tx, origin.organization_id)) or UNKNOWN
    case_rows.insert(
        tx,
        facts.case_id,
        origin.organization_id,
        origin.artifact_n,
        requested_by,
        "",
        salt,
        facts.hidden,
        [one.n for one in proven],
        size=facts.count,
        requested_at=requested_at,
    )
    audit.record(
        tx,
        audit.EventType.CASE_REQUESTED,
        organization_id=origin.organization_id,
        actor=audit.SERVER,
        resource_id=facts.case_id,
        members=facts.count,
        hidden=facts.hidden,
        origin=origin.artifact_id,
        reason="the log says that it was finished",
    )
    return case_rows.find(tx, facts.case_id)


def _began_with(facts: CaseLeaf, one: Deletion) -> bool:
    """Return whether a leaf commits to this file and its organization."""
    if one.kind != ArtifactKind.FILE:
        return False
    named = Disclosure(
        case_rows.salt_of(one.salt, facts.case_id).hex(),
        artifact_id=one.artifact_id,
        organization_id=one.organization_id,
    )
    return opened(facts, named) == named


def _are_all(facts: CaseLeaf, salt: bytes, deletions: Sequence[Deletion]) -> bool:
    entries = [receipt.entry_hash(one.receipt) for one in deletions if one.receipt is not None]
    found = members_commitment(salt, entries)
    return (found.count, found.root) == (facts.count, facts.root)
