"""A real server whose embedded engine is the stand-in, and a look at who holds what."""

import contextlib
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from tests.support import servers
from tests.support.servers import Server

from tunewarden.errors import Error
from tunewarden.locks import ByteLocks
from tunewarden_receipts import receipt

REPOSITORY = Path(__file__).parents[2]


class FakeEngineServer(Server):
    """Everything real but the engine."""

    careless: ClassVar[dict[str, str]] = {}
    program: ClassVar[str] = "tests.fakes.with_fake_engine"

    def _start(self) -> None:
        (self.data / "run" / "server.json").unlink(missing_ok=True)
        command = [sys.executable, "-m", self.program, "serve"]
        with self._file("stdout").open("ab") as out, self._file("stderr").open("ab") as err:
            self.process = subprocess.Popen(
                [
                    *command,
                    "--data",
                    str(self.data),
                    "--port",
                    "0",
                    "--workers",
                    str(self._workers),
                ],
                stdout=out,
                stderr=err,
                env=servers.environment(self.settings) | self.careless,
                cwd=REPOSITORY,
            )
        servers.wait_until(self._is_ready, "the server answers", servers.START_SECONDS)

    def _is_ready(self) -> bool:
        return super()._is_ready() and len(self.workers()) == self._workers and self.has_engine()

    def has_engine(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            try:
                return bool(self.app.engine.bases())
            except Error:  # It is there, and of a version that is refused.
                return True
        return False

    def workers(self) -> dict[int, Path]:
        """The lock file of each worker that lives, by its pid."""
        found = {}
        for path in (self.data / "run").glob("*.worker"):
            with contextlib.suppress(FileNotFoundError):  # it was swept meanwhile
                pid = json.loads(path.read_bytes() or b'{"pid": 0}')["pid"]
                if servers.is_alive(pid):
                    found[pid] = path
        return found

    def holders(self, n: int) -> list[int]:
        """The workers that serve model `n` now."""
        return [pid for pid, path in self.workers().items() if _is_held(path, n + 1)]

    def engine_pid(self) -> int:
        for pid in servers.descendants(self.process.pid):
            with contextlib.suppress(OSError):
                if b"engine_server" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return pid
        raise AssertionError("there is no engine")

    def facts(self, deletion_id: str) -> dict[str, object]:
        """What a deletion's receipt says and discloses, after it was verified."""
        reply = self.get(f"/v1/deletions/{deletion_id}/receipt", key=self.owner_key)
        assert reply.status == 200, reply.body
        key = self.get("/.well-known/tunewarden-log-key").body
        verified = receipt.verify(reply.body, key)
        facts, shown = verified.facts, verified.disclosed
        assert shown is not None
        disclosed = {name: getattr(shown, name) for name in shown.__slots__}
        return {name: getattr(facts, name) for name in facts.__slots__} | {
            name: value for name, value in disclosed.items() if value is not None
        }


class CarelessServer(FakeEngineServer):
    """Its workers take no guard and never look again, and its engine goes on."""

    careless: ClassVar[dict[str, str]] = {
        "PYTHONPATH": str(REPOSITORY / "tests" / "fakes" / "careless"),
        "TEST_CARELESS": "yes",
    }


class TrustingServer(FakeEngineServer):
    """Its workers do not look at a caller again once its request began."""

    careless: ClassVar[dict[str, str]] = {
        "PYTHONPATH": str(REPOSITORY / "tests" / "fakes" / "trusting")
    }


def _is_held(path: Path, offset: int) -> bool:
    locks = ByteLocks(path, create=False)
    try:
        return not locks.try_exclusive(offset)
    finally:
        locks.close()


@contextlib.contextmanager
def serving(
    data: Path,
    *,
    workers: int,
    settings: dict[str, object] | None = None,
    careless: bool = False,
) -> Iterator[FakeEngineServer]:
    """Run one with the tiny base for a block; `careless` ones break the promises (a control)."""
    servers.prepare_local_base(data)
    kind = CarelessServer if careless else FakeEngineServer
    server = kind(data, workers=workers, settings=settings)
    with servers.stopped_after(server):
        yield server
