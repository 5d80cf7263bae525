"""Whether a deleted model or file is gone on every path: retrieved, listed, asked, as a relative, exported."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from tests.lab.judge import require
from tests.lab.world import Made, World

from tunewarden import app as composition
from tunewarden.deletion.cases import artifact_lineage
from tunewarden.errors import Error, Kind
from tunewarden.identity import key_format, keys
from tunewarden.identity.policy import Caller
from tunewarden.registry import file_rows
from tunewarden.registry.file_rows import File
from tunewarden.serving.admission import Admissions


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """A caller, and the text of its key."""

    caller: Caller
    text: str


class PlacesOfUse:
    """What one worker answers. It serves for as long as its world is open."""

    def __init__(self, world: World) -> None:
        self._world = world
        fence = world.new_fence()
        fence.join()
        self._admissions = Admissions(world.app.database, fence, world.clock)

    def is_served(self, holder: KeyHolder, name: str) -> bool:
        """Ask a model or an alias, as a chat does."""
        presented = key_format.present(holder.text)

        async def ask() -> bool:
            try:
                _, serving = self._admissions.admit(
                    name, presented, lambda tx: keys.holder(tx, presented, ""), lambda: None, int
                )
            except Error as error:
                if error.kind is not Kind.NOT_FOUND:
                    raise
                return False
            self._admissions.end(serving)
            return True

        return asyncio.run(ask())

    def require_gone(self, made: Made, holders: Iterable[KeyHolder]) -> None:
        """Require that nobody of these sees anything of it but its tombstone in a lineage."""
        for holder in holders:
            caller, gone = holder.caller, made.model.id
            if isinstance(made.model, File):
                found = file_rows.find(self._world.app.database, caller, gone)
                require("I1", "a deleted file is retrieved", found is None)
                continue
            require("I1", "a deleted model is asked", not self.is_served(holder, gone))
            listed = [model.id for model in self._world.models(caller)]
            require("I1", "a deleted model is listed", gone not in listed)
            with pytest.raises(Error, match="does not exist"):
                artifact_lineage.of_model(self._world.app.database, caller, gone)
            if caller.role == "owner":
                with pytest.raises(Error, match=r"does not exist|permission"):
                    composition.exports(self._world.app).find(caller, gone)
