"""Where things are in a data directory."""

from pathlib import Path


class DataDirectory:
    """The places in a data directory, of the settings that name it."""

    __slots__ = ()

    data: Path

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.data / "tunewarden.sqlite"

    @property
    def run(self) -> Path:
        """Lock files and sockets; not needed after the server stops."""
        return self.data / "run"

    @property
    def deletion_locks(self) -> Path:
        """Which process works on which deletion."""
        return self.run / "deletions.locks"

    @property
    def blobs(self) -> Path:
        """Sealed files."""
        return self.data / "blobs"

    @property
    def keyring(self) -> Path:
        """The models' keys. Mirror its current state; never keep old copies (section 7)."""
        return self.data / "keyring"

    @property
    def signing_key(self) -> Path:
        """The seed of the log's signing key, mode 0600; its rotation has `log.key.next` and `log.key.old` beside it."""
        return self.data / "log.key"

    @property
    def log(self) -> Path:
        """The deletion log's tiles and checkpoint."""
        return self.data / "log"

    @property
    def owner_key(self) -> Path:
        """Where the first Owner key is written, mode 0600."""
        return self.data / "owner.key"

    @property
    def admin_key(self) -> Path:
        """The admin key that commands with `--data` use, mode 0600; they make it of the user of the Owner key."""
        return self.data / "admin.key"

    @property
    def engine_keys(self) -> Path:
        """The API keys of remote bases' engines, mode 0600 each."""
        return self.data / "engine_keys"

    @property
    def certificates(self) -> Path:
        """The authority for engines on other hosts, and the gateway's certificate, mode 0600 each."""
        return self.data / "certificates"

    @property
    def engine_socket(self) -> Path:
        """Where the embedded engine listens."""
        return self.run / "engine.sock"
