"""Which tests run on one worker of xdist: those of a file, and those of all files that share the engine's server."""

from tests import groups
from xdist.scheduler import LoadFileScheduling

ENGINE_SERVER = "the files that share the engine's server"


class ByServer(LoadFileScheduling):  # type: ignore[misc]  # xdist is untyped
    """As `--dist loadfile`; but one real engine is started, not one on each worker."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        below = file.removeprefix("tests/")
        return ENGINE_SERVER if below in groups.ENGINE_SERVER else file
