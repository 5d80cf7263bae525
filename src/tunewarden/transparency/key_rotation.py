"""Rotation of the log's signing key: the old key names the new one in the log, and signs nothing after that.

Durable in this order, so that a crash anywhere leaves a log that verifies, with one key that may append:

1. `log.key.next`, the new seed;
2. the hand-over, signed by the old key, as a leaf: from here on only forward;
3. the checkpoint that ends with it, signed by both keys;
4. what depends on the seed, in the database, with the audit event (`note`);
5. `log/hand-overs`, which proves the new key to those who trust the old one;
6. `log.key`, by renaming the new seed; the old one is overwritten.

Until 6 no process may append: the key in use is checked under the log's lock (`LogSigner.check_in_use`).
The next start goes on from 2, or erases the seed of 1; but first it checks that neither log nor keyring is an old copy,
and replays what the database has not seen. Until then the log is opened as the former key's, to read.
"""

import base64
import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tunewarden.errors import Error, Kind
from tunewarden.transparency.disk import LogDisk, Piece
from tunewarden.transparency.key import LogSigner
from tunewarden.transparency.key_files import KeyFiles
from tunewarden.transparency.log import Log
from tunewarden.transparency.view import damaged, translated
from tunewarden_receipts import merkle, receipt
from tunewarden_receipts.key_chain import MAX_HAND_OVERS, HandOver, KeyChain
from tunewarden_receipts.key_hand_over import KeyHandOverLeaf
from tunewarden_receipts.receipt import ReceiptError

HAND_OVERS = "hand-overs"
_SIGNATURE = re.compile("^— [^ \\n]+ ([A-Za-z0-9+/=]+)$".encode(), re.MULTILINE)


@dataclass(frozen=True, slots=True)
class KeyRotation:
    """The log `name` in a directory, and the files of its key.

    `note` gets the hand-over's place and the two signers, more than once after a crash. Every method may raise
    Error(UNAVAILABLE).
    """

    name: str
    files: KeyFiles
    directory: Path
    disk: LogDisk
    found: Callable[[Path, LogSigner], Log]
    note: Callable[[int, LogSigner, LogSigner], None]

    def opened(self) -> tuple[Log, LogSigner]:
        """Return the log and its signer; that of the former key, which appends nothing, if a rotation was interrupted."""
        with self.files.locked():
            seed = self.files.read_next()
            if seed is None:
                return self._opened()
            former = self._former(LogSigner(self.name, seed), is_in_use=self.files.is_in_use)
            return self._log_of(former), former

    def settle(self, check: Callable[[Log, LogSigner], object]) -> HandOver | None:
        """Complete an interrupted rotation and return its hand-over; or undo it, if the log does not name its key.

        `check` gets the log of the key in use before a seed is erased or a mark is raised. It raises Error if the log
        or what belongs to it is an old copy, and nothing more is done then.
        """
        with self.files.locked():
            return self._settled(check) if self.files.is_rotating() else None

    def rotate(self, handed_over_at: str, software: str) -> HandOver:
        """Hand over to a new key; return when the old one is erased. Raises Error(CONFLICT) after too many.

        Call `settle` first.
        """
        with self.files.locked():
            _, former = self._opened()
            if len(former.chain.hand_overs) >= MAX_HAND_OVERS:
                raise Error(
                    Kind.CONFLICT,
                    f"The log's key was rotated {MAX_HAND_OVERS} times: no more hand-overs fit.",
                )
            # One that may sign while the rotation is in progress, as only this process does.
            former = LogSigner(self.name, self.files.read(), chain=former.chain)
            log = self._log_of(former)
            new = LogSigner(self.name, self.files.make_next())
            leaf = KeyHandOverLeaf(
                sequence=len(former.chain.hand_overs) + 1,
                previous_key=former.vkey(),
                previous_key_id=former.key.digest(),
                new_key=new.vkey(),
                new_key_id=new.key.digest(),
                handed_over_at=handed_over_at,
                software=software,
            )
            return self._handed_over(log, receipt.sign(receipt.build(leaf), former), former, new)

    def _settled(self, check: Callable[[Log, LogSigner], object]) -> HandOver | None:
        seed = self.files.read_next()
        if seed is None:
            log, signer = self._opened()
            log.recover()
            check(log, signer)
            self.files.erase_former()
            return None
        new = LogSigner(self.name, seed)
        former = self._former(new, is_in_use=lambda _: True)
        log = self._log_of(former)
        size = log.recover()
        check(log, former)
        entry = log.entry(size - 1) if size else b""
        if not _hands_over_to(entry, new):
            self.files.erase_next()
            return None
        return self._handed_over(log, entry, former, new)

    def _handed_over(self, log: Log, entry: bytes, former: LogSigner, new: LogSigner) -> HandOver:
        """Do what is left from the hand-over's leaf on."""
        checkpoint = log.hand_over(entry, new)
        index = log.size() - 1
        proof = log.inclusion_proof(index, index + 1)
        stored = receipt.bundle(entry, index, proof, checkpoint, None)
        chain = former.chain.extended(stored)
        self.note(index, former, new)
        with translated():
            following = self.directory / f"{HAND_OVERS}.next"
            self.disk.extend_synced([Piece(following, 0, chain.document())])
            self.disk.rename_synced(following, self.directory / HAND_OVERS)
        self.files.promote_next()
        self.files.erase_former()
        return chain.hand_overs[-1]

    def _opened(self) -> tuple[Log, LogSigner]:
        seed, chain = self.files.read(), self._chain()
        alone = LogSigner(self.name, seed, is_in_use=self.files.is_in_use)
        if chain is None:
            return self._log_of(alone), alone
        if chain.newest.public != alone.key.public:
            raise _rolled_back()
        signer = LogSigner(self.name, seed, chain=chain, is_in_use=self.files.is_in_use)
        log = self._log_of(signer)
        for one in chain.hand_overs:
            if receipt.entry_hash(one.receipt) != _hash_at(log, one.index):
                raise damaged("it does not have the hand-overs of its key")
        return log, signer

    def _former(self, new: LogSigner, *, is_in_use: Callable[[bytes], bool]) -> LogSigner:
        """Return the signer whose rotation to `new` was interrupted."""
        seed, chain = self.files.read(), self._chain()
        if chain is not None and chain.newest.public == new.key.public:
            chain = chain.without_last()
        try:
            return LogSigner(self.name, seed, chain=chain, is_in_use=is_in_use)
        except ValueError as error:
            raise _rolled_back() from error

    def _log_of(self, signer: LogSigner) -> Log:
        """Open the log as this signer's. Raises Error, which tells a log of another key from a damaged one."""
        try:
            log = self.found(self.directory, signer)
        except Error as error:
            with translated(), suppress(FileNotFoundError):
                note = self.disk.read(self.directory / "checkpoint")
                if _is_signed_by_others(note, signer):
                    raise _rolled_back() from error
            raise
        if not signer.chain.hand_overs and _began_with_another_key(log, signer):
            raise Error(
                Kind.UNAVAILABLE,
                f"log/{HAND_OVERS} is missing although the log's key was rotated: it proves the new key. Restore it with"
                f" the newest copy of log/, or from where /log/{HAND_OVERS} was kept, then start again. Nothing was"
                " changed.",
                code="log_hand_overs_missing",
            )
        return log

    def _chain(self) -> KeyChain | None:
        """Return the proven hand-overs so far; None if there was none."""
        with translated():
            try:
                document = self.disk.read(self.directory / HAND_OVERS)
            except FileNotFoundError:
                return None
        try:
            return KeyChain.parse(document)
        except ReceiptError as error:
            raise damaged(f"{HAND_OVERS} cannot be trusted: {error.reason}") from error


def _is_signed_by_others(note: bytes, signer: LogSigner) -> bool:
    """Return whether a checkpoint has signatures, and none by this key."""
    ids = [found[1] for found in _SIGNATURE.finditer(note)]
    own = base64.b64encode(signer.key.note_id(signer.name))[:5]  # as far as its text is its own
    return bool(ids) and not any(one.startswith(own) for one in ids)


def _began_with_another_key(log: Log, signer: LogSigner) -> bool:
    """Return whether another key signed the first entry. False if it cannot be read: who needs it is told."""
    try:
        entry = log.entry(0) if log.size() else b""
    except Error:
        return False
    return bool(entry) and json.loads(entry)["signatures"][0]["keyid"] != signer.key.digest()


def _hash_at(log: Log, index: int) -> bytes | None:
    return merkle.leaf_hash(log.entry(index)) if index < log.size() else None


def _hands_over_to(entry: bytes, new: LogSigner) -> bool:
    """Return whether an entry of the log hands its key over to this one."""
    leaf = receipt.parse_entry(entry) if entry else None
    return isinstance(leaf, KeyHandOverLeaf) and leaf.new_key_id == new.key.digest()


def _rolled_back() -> Error:
    return Error(
        Kind.UNAVAILABLE,
        "log.key is not the key that the deletion log was handed over to, or that signed it last: one of them is an old"
        " copy. Restore the newest copies of log/ and log.key, which belong together, then start again. Nothing was changed.",
        code="log_key_rolled_back",
    )
