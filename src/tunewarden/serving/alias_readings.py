"""What aliases mean, cached until something is committed (docs/decisions/0011)."""

from collections.abc import Callable
from dataclasses import dataclass

from tunewarden.db.database import Database
from tunewarden.registry import model_lookup
from tunewarden.registry.model_lookup import Split

# By API key and alias.
READINGS_MAX = 1024


@dataclass(frozen=True, slots=True)
class _Reading:
    """An alias as it was when the database's stamp was `stamp`."""

    stamp: object
    split: Split


class AliasReadings:
    """The aliases that this worker's requests name. On its event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._readings: dict[tuple[str, str], _Reading] = {}

    def cached(self, name: str, key_id: str, draw: Callable[[], int]) -> str | None:
        """Return the id of the model that an alias means for a request, if it was read and nothing committed since.

        `draw` chooses among several. The key need not be authenticated: the request then is, for that model. A switch
        that is committed after this look was concurrent with the request.
        """
        reading = self._readings.get((key_id, name))
        if reading is None or reading.stamp != self._database.stamp():
            return None
        return reading.split.pick(draw)

    def read(self, name: str, key_id: str, draw: Callable[[], int]) -> str | None:
        """Read what an alias means, and return as `cached`; None if the name is no alias of the key's organization."""
        key = key_id, name
        stamp = self._database.stamp()  # before any read
        split = model_lookup.split_of(self._database, key_id, name)
        self._readings.pop(key, None)
        if split is None:
            return None
        if len(self._readings) >= READINGS_MAX:
            del self._readings[next(iter(self._readings))]
        self._readings[key] = _Reading(stamp, split)
        return split.pick(draw)
