"""Authorization to read entries of the log (I9).

An entry of format 1 names a model, its organization and the caller's key, so only that organization may read it.
An entry bundle cannot be served in part (C2SP tlog-tiles): a reader must be allowed to read each of its entries.
"""

from collections.abc import Sequence

from tunewarden.db.database import Database
from tunewarden.deletion import records
from tunewarden.errors import Error, Kind
from tunewarden.identity.policy import Action, Caller, authorize
from tunewarden_receipts import receipt
from tunewarden_receipts.facts import BlobsErasedFacts, DeletionFacts
from tunewarden_receipts.statement import Facts

NOBODY = ""


def organizations_named(database: Database, entries: Sequence[bytes]) -> frozenset[str]:
    """Return the ids of the organizations that entries name, including NOBODY for an unknown one."""
    named = (receipt.parse_entry(entry) for entry in entries if receipt.names_somebody(entry))
    return frozenset(_named_by(database, facts) for facts in named)


def check_reader(caller: Caller | None, named: frozenset[str]) -> None:
    """Check that a caller may read entries that name these organizations. Raises Error."""
    if caller is None:
        raise Error(
            Kind.UNAUTHENTICATED,
            "These entries of the log were written before version 0.1.1 and hold names. They need a key of"
            " the organization that they name.",
        )
    authorize(caller, Action.READ_DELETIONS)
    if named != {caller.organization_id}:
        raise Error(
            Kind.FORBIDDEN,
            "These entries of the log were written before version 0.1.1 and name other organizations. Your"
            " receipts hold your own entries.",
            code="entries_of_others",
        )


def _named_by(database: Database, facts: Facts) -> str:
    if isinstance(facts, DeletionFacts):
        return facts.organization_id
    return (
        _organization_of(database, facts.deletion_id)
        if isinstance(facts, BlobsErasedFacts)
        else NOBODY
    )


def _organization_of(database: Database, deletion_id: str) -> str:
    deletion = records.find(database, deletion_id)
    return deletion.organization_id if deletion else NOBODY
