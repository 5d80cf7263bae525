"""Cache of the organizations that each entry bundle of the log names. Bundles are append-only."""

from collections.abc import Callable
from functools import lru_cache

from tunewarden.db.database import Database
from tunewarden.deletion.log_readers import organizations_named
from tunewarden.transparency.key import LogSigner
from tunewarden.transparency.log import Log
from tunewarden.transparency.tiles import TileName, decode_bundle

BUNDLES_KNOWN = 1024


class LogBundles:
    """One per worker; thread-safe."""

    def __init__(self, database: Database, open_log: Callable[[], tuple[Log, LogSigner]]) -> None:
        self._database = database
        self._open_log = open_log
        self.named_in = lru_cache(maxsize=BUNDLES_KNOWN)(self._named_in)

    def _named_in(self, path: str) -> frozenset[str]:
        """Return the ids of the organizations that the bundle at this path, which must exist, names."""
        name, bundle = TileName.parse(path), self._open_log()[0].tile(path)
        if name is None or bundle is None:
            raise RuntimeError("a log never loses a bundle")
        return organizations_named(self._database, decode_bundle(bundle, name.width))
