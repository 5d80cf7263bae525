"""Driver of the embedded engine, a separate process on a unix socket; eviction is in `embedded_control.py`.

An adapter is passed by the path of its files, which the engine unlinks.
"""

from pathlib import Path

import msgspec

from tunewarden.engine_protocol import paths
from tunewarden.engine_protocol.messages import NewAdapter
from tunewarden.engines.address import Address
from tunewarden.engines.loading import ANSWER_BYTES_MAX, LoadingEngine
from tunewarden.engines.port import NoteLoad, Unseal
from tunewarden.engines.upstream import Upstream
from tunewarden.registry.model_lookup import Target


class EmbeddedEngine(LoadingEngine):
    """The embedded engine, as a gateway worker uses it."""

    def __init__(
        self, socket_path: Path, scratch_directory: Path, unseal: Unseal, note_load: NoteLoad
    ) -> None:
        address = Address(socket=str(socket_path))
        super().__init__(Upstream(address), scratch_directory, unseal, note_load)
        self._verbs = Upstream(address.at_root)

    async def hand_over(self, target: Target, directory: Path) -> tuple[int, bytes]:
        """Pass the path of the files."""
        asked = NewAdapter(target.engine_model, target.base.name, str(directory))
        return await self._verbs.ask(paths.ADAPTERS, msgspec.json.encode(asked), ANSWER_BYTES_MAX)
