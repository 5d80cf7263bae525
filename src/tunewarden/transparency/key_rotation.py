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

from collections.abc import Callable
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
            return self.found(self.directory, former), former

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
            former = LogSigner(self.name, self.files.create_or_read(), chain=former.chain)
            log = self.found(self.directory, former)
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
        log = self.found(self.directory, former)
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
        seed, chain = self.files.create_or_read(), self._chain()
        alone = LogSigner(self.name, seed, is_in_use=self.files.is_in_use)
        if chain is None:
            return self.found(self.directory, alone), alone
        if chain.newest.public != alone.key.public:
            raise _rolled_back()
        signer = LogSigner(self.name, seed, chain=chain, is_in_use=self.files.is_in_use)
        log = self.found(self.directory, signer)
        for one in chain.hand_overs:
            if receipt.entry_hash(one.receipt) != _hash_at(log, one.index):
                raise damaged("it does not have the hand-overs of its key")
        return log, signer

    def _former(self, new: LogSigner, *, is_in_use: Callable[[bytes], bool]) -> LogSigner:
        """Return the signer whose rotation to `new` was interrupted."""
        seed, chain = self.files.create_or_read(), self._chain()
        if chain is not None and chain.newest.public == new.key.public:
            chain = chain.without_last()
        try:
            return LogSigner(self.name, seed, chain=chain, is_in_use=is_in_use)
        except ValueError as error:
            raise _rolled_back() from error

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


def _hash_at(log: Log, index: int) -> bytes | None:
    return merkle.leaf_hash(log.entry(index)) if index < log.size() else None


def _hands_over_to(entry: bytes, new: LogSigner) -> bool:
    """Return whether an entry of the log hands its key over to this one."""
    leaf = receipt.parse_entry(entry) if entry else None
    return isinstance(leaf, KeyHandOverLeaf) and leaf.new_key_id == new.key.digest()


def _rolled_back() -> Error:
    return Error(
        Kind.UNAVAILABLE,
        "log.key is not the key that the deletion log was handed over to: one of them is an old copy. Restore the newest"
        " copies of log/ and log.key, which belong together, then start again. Nothing was changed.",
        code="log_key_rolled_back",
    )
