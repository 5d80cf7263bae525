"""The check of an organization's audit log by who administers it: nothing that the server says is taken on trust.

Of each digest: its commitment leads to the root in a leaf of the log, which is signed; it names the digest before it;
its hashes lead to its root; and each event is there and has the hash that was kept, or a later one says that it expired.
"""

from collections.abc import Iterator
from datetime import datetime

from tunewarden.audit.digests import Entry, entry_of
from tunewarden.audit.retention import DAY_MICROS
from tunewarden.cli.client import Client, Object
from tunewarden.clock import SystemClock, to_micros
from tunewarden.errors import Error, Kind
from tunewarden.transparency.audit_comparison import (
    BACKDATED,
    NO_TIME,
    Expiries,
    first_backdated,
    first_difference,
    first_gone,
    read,
    time_of,
)
from tunewarden_receipts.audit_digest import (
    AuditDigestLeaf,
    AuditPart,
    events_root,
    root_by_path,
)
from tunewarden_receipts.key_chain import verify_in_chain
from tunewarden_receipts.receipt import LogKeyError, ReceiptError, VerifiedReceipt, verify

# A day's events have a digest on the next day, which is in the log within seconds; and clocks differ.
UNPROVEN_DAYS = 2
DIGESTS = ("organization", "audit_logs", "digests")


class OwnLog:
    """One check, with the log's key: of a file, or the server's own."""

    def __init__(self, server: Client, log_key: bytes | None) -> None:
        self._server = server
        self._log_key = log_key
        self._before: str | None = None  # commitment to the part before
        self._expiries = Expiries()
        self._now = to_micros(SystemClock().now())
        self._newest_at = 0  # of the events of the digests before, in microseconds
        self._found: Object = {
            "object": "audit_log.verification", "problems": [], "digests": 0, "unproven": 0, "events": 0, "expired": 0,
            "undigested": 0,
        }  # fmt: skip

    def verify(self) -> Object:
        """Check all digests and events; return what was found. Raises Error, LogKeyError."""
        number, digest = 1, self._digest(1)
        while digest is not None:
            self._found["digests"] += 1
            following = self._digest(number + 1)
            if following is not None and digest.get("receipt") is None:
                # It is in the log before another is made: the other one may have been made just now.
                digest = self._digest(number) or digest
            try:
                self._check(digest, is_newest=following is None)
            except (KeyError, TypeError, ValueError, AttributeError):
                self._note("the server's answer cannot be read as a digest", number)
            number, digest = number + 1, following
        lines = list(self._lines(number))
        self._found["undigested"] = len(lines)
        self._check_times(lines, number)
        self._check_age(lines, number, "no digest covers this event")
        for line in lines:
            self._expiries.add_line(line)
        for what, sequence, event_id in self._expiries.unjustified(self._now):
            self._note(what, sequence, event_id)
        return self._found

    def _digest(self, number: int) -> Object | None:
        try:
            return self._server.get(*DIGESTS, str(number))
        except Error as error:
            if error.kind is Kind.NOT_FOUND and error.param == "number":
                return None
            raise

    def _check(self, digest: Object, *, is_newest: bool) -> None:
        sequence = digest["digest"]
        part = AuditPart(
            digest["organization_id"],
            digest["number"],
            digest["events"],
            digest["root"],
            digest["previous"],
        )
        commitment = part.commitment(bytes.fromhex(digest["salt"]))
        leaf = self._leaf(digest, sequence)
        path = [(one["side"] == "left", bytes.fromhex(one["hash"])) for one in digest["path"]]
        if leaf is not None and root_by_path(commitment, path) != leaf.root:
            self._note("its part is not one that the log commits to", sequence)
        if part.number != self._found["digests"] or part.previous != self._before:
            self._note("a part before this one is missing", sequence)
        self._before = commitment
        entries = [Entry(one["id"], bytes.fromhex(one["hash"])) for one in digest["entries"]]
        hashes = [one.hash for one in entries]
        if len(entries) != part.events or events_root(hashes) != part.root:
            self._note("the kept hashes are not those that the log commits to", sequence)
        lines = list(self._lines(part.number))
        if digest["receipt"] is None:
            self._found["unproven"] += 1
            if is_newest:
                self._check_age(lines, sequence, "its digest has no proof")
            else:
                self._note("it has no proof, though it is not the newest digest", sequence)
        self._check_times(lines, sequence)
        self._check_events(digest, leaf, entries, lines)
        times = [at for line in lines if (at := time_of(line)) != NO_TIME]
        self._newest_at = max(self._newest_at, *times, 0)

    def _leaf(self, digest: Object, sequence: int) -> AuditDigestLeaf | None:
        """Return the leaf of a digest, proven to be in the log; None if it is not."""
        if digest["receipt"] is None:
            return None
        try:
            facts = self._proven(digest).facts
        except LogKeyError:
            raise
        except ReceiptError as error:
            self._note(f"its proof is not valid: {error.reason}", sequence)
            return None
        if isinstance(facts, AuditDigestLeaf) and facts.sequence == sequence:
            return facts
        self._note("its proof is of another entry of the log", sequence)
        return None

    def _proven(self, digest: Object) -> VerifiedReceipt:
        stored = digest["receipt"].encode()
        if self._log_key is None:
            return verify(stored, digest["log_key"].encode())
        hand_overs = digest.get("hand_overs")  # a server before 0.2 has none
        if hand_overs is None:
            return verify(stored, self._log_key)
        return verify_in_chain(stored, self._log_key, hand_overs.encode())

    def _check_events(
        self, digest: Object, leaf: AuditDigestLeaf | None, entries: list[Entry], lines: list[bytes]
    ) -> None:
        found = [entry_of(_id_of(line), line) for line in lines]
        self._found["events"] += len(found)
        for line in lines:
            self._expiries.add_line(line)
        gone = first_gone(entries, found)
        has_expired = digest["expired_at"] is not None
        if has_expired and gone is not None:
            self._found["expired"] += max(len(entries) - len(found), 0)
            digested_at = None if leaf is None else datetime.fromisoformat(leaf.digested_at)
            self._expiries.add_gone(digest["number"], digest["digest"], gone, digested_at)
        problem = first_difference(entries, found, may_be_gone=has_expired)
        if problem is not None:
            self._note(problem[0], digest["digest"], problem[1])

    def _check_times(self, lines: list[bytes], sequence: int) -> None:
        older = first_backdated(((_id_of(line), time_of(line)) for line in lines), self._newest_at)
        if older is not None:
            self._note(BACKDATED, sequence, older)

    def _check_age(self, lines: list[bytes], sequence: int, what: str) -> None:
        """Note the first event that is so old that a proven digest must cover it."""
        oldest = self._now - UNPROVEN_DAYS * DAY_MICROS
        for line in lines:
            if time_of(line) < oldest:
                said = f"{what}, though it is more than {UNPROVEN_DAYS} days old"
                self._note(said, sequence, _id_of(line))
                return

    def _lines(self, number: int) -> Iterator[bytes]:
        pieces: list[bytes] = []
        self._server.stream(*DIGESTS, str(number), "events", into=pieces.append)
        yield from b"".join(pieces).splitlines()

    def _note(self, what: str, digest: int, event: str | None = None) -> None:
        self._found["problems"].append(
            {"what": what, "digest": digest, "organization": None, "event": event}
        )


def _id_of(line: bytes) -> str:
    return str(read(line).get("id", ""))
