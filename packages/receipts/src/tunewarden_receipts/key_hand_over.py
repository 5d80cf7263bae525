"""The entry of a log in which its signing key names the next one, and signs that for the last time."""

from dataclasses import dataclass

from tunewarden_receipts.note import LogKey
from tunewarden_receipts.readers import Reader, integer, sha256, text, time

PREDICATE_TYPE = "https://tunewarden.dev/log-key-hand-over/v2"
SUBJECT = "log-key-hand-over-"


@dataclass(frozen=True, slots=True)
class KeyHandOverLeaf:
    """The hand-over from one key to the next: vkeys with one name, and their fingerprints (R13).

    `sequence` counts hand-overs from 1. `ValueError` if a fingerprint is not that of its key, or nothing changes.
    """

    sequence: int
    previous_key: str
    previous_key_id: str
    new_key: str
    new_key_id: str
    handed_over_at: str
    software: str

    def __post_init__(self) -> None:
        previous, new = self.keys()
        if (previous.digest(), new.digest()) != (self.previous_key_id, self.new_key_id):
            raise ValueError("a fingerprint is not that of its key")
        if previous.name is None or previous.name != new.name or previous.public == new.public:
            raise ValueError("a hand-over is between two keys of one log")

    def keys(self) -> tuple[LogKey, LogKey]:
        """Return the key that signed this, and the one that signs what follows."""
        return LogKey.parse(self.previous_key.encode()), LogKey.parse(self.new_key.encode())


READERS: dict[str, Reader] = {
    "sequence": integer,
    "previousKey": text,
    "previousKeyId": sha256,
    "newKey": text,
    "newKeyId": sha256,
    "handedOverAt": time,
    "software": text,
}
