"""What an administrator needs to check the organization's audit log elsewhere: its digests, proven, and their events."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tunewarden.audit import digests, events
from tunewarden.audit.digests import Part
from tunewarden.audit.events import Event
from tunewarden.db.database import Database, Tx
from tunewarden.errors import Error, Kind
from tunewarden.identity import admin_keys
from tunewarden.identity.admin_keys import Administrator
from tunewarden.transparency import proofs
from tunewarden.transparency.log import Log
from tunewarden_receipts.audit_digest import digest_path

_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Proof:
    """A part of the organization's, how its commitment leads to the root of its digest, and the digest's receipt.

    `path` has hashes, and whether each is the left one. `receipt` is None until the digest is in the log, as its entry
    `index`.
    """

    part: Part
    path: list[tuple[bool, bytes]]
    receipt: bytes | None
    index: int | None


def prove(
    database: Database, administrator: Administrator, number: int, open_log: Callable[[], Log]
) -> Proof:
    """Return the proof of the organization's part with this number.

    Raises Error(UNAUTHENTICATED), Error(NOT_FOUND) beyond the newest one, Error(UNAVAILABLE) for a damaged log.
    """
    with database.read() as tx:
        admin_keys.check_now(tx, administrator)
        part = _part(tx, administrator.organization_id, number)
        if part is None:
            said = f"No such audit digest: '{number}'. They are numbered from 1."
            raise Error(Kind.NOT_FOUND, said, param="number")
        digest = digests.find(tx, part.sequence)
        commitments = [one.commitment for one in digests.parts_in(tx, part.sequence)]
    index = None if digest is None else digest.log_index
    return Proof(
        part,
        digest_path(commitments, part.commitment),
        None if index is None else proofs.receipt_of(open_log(), index),
        index,
    )


def events_of(database: Database, administrator: Administrator, number: int) -> Iterator[Event]:
    """Return the organization's events between the part before this number and it, oldest first, in constant memory.

    Without such a part: those that no digest covers yet. Raises Error(UNAUTHENTICATED), later too: no event is read
    after the key was revoked. # I19
    """
    organization_id = administrator.organization_id
    with database.read() as tx:
        admin_keys.check_now(tx, administrator)
        before = _part(tx, organization_id, number - 1)
        part = _part(tx, organization_id, number)
        newest = digests.newest_part(tx, organization_id)
    after_n = before.last_n if before else 0
    if part is None and newest is not None:
        after_n = newest.last_n
    return _between(database, administrator, after_n, part.last_n if part else None)


def _between(
    database: Database, administrator: Administrator, after_n: int, last_n: int | None
) -> Iterator[Event]:
    while True:
        with database.read() as tx:
            admin_keys.check_now(tx, administrator)
            page = events.after(tx, after_n, _PAGE)
        for event in page:
            if last_n is not None and event.n > last_n:
                return
            if event.organization_id == administrator.organization_id:
                yield event
        if len(page) < _PAGE:
            return
        after_n = page[-1].n


def _part(tx: Tx, organization_id: str, number: int) -> Part | None:
    found = digests.parts_of(tx, organization_id, number - 1, 1)
    return found[0] if found and found[0].said.number == number else None
