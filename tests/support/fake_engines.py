"""Processes of the stand-in for vLLM with the real plugin: killed, stopped and started again at the same address."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

from tests.fakes import vllm
from tests.support.servers import REPOSITORY, SWAPS

from tunewarden.engine_protocol import paths
from tunewarden.engine_protocol.messages import State, decoded

SLOTS = 3


class FakeEngine:
    """The stand-in's process, which can be killed and started again at the same address."""

    def __init__(
        self,
        slots: int = SLOTS,
        certificates: Path | None = None,
        *,
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
    ) -> None:
        """`certificates`: a directory that `tunewarden certificates issue` wrote; it then asks for one.

        `prefix` is put before the command that starts it.
        """
        self._slots = slots
        self._host = host
        self._prefix = prefix
        self._port = 0
        self._certificates = [] if certificates is None else [str(certificates)]
        self.start()

    def start(self) -> None:
        program = [*self._prefix, sys.executable, "-m", "tests.fakes.vllm_server"]
        self.process = subprocess.Popen(
            [*program, str(self._slots), f"{self._host}:{self._port}", *self._certificates],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ({"TUNEWARDEN_SWAP_MAY_HOLD_PLAIN_WEIGHTS": "true"} if SWAPS else {}),
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self._port = urlsplit(self.url).port or 0

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def loaded(self) -> list[str]:
        """Return the names of the adapters that it has, as it says itself. Without certificates only."""
        with contextlib.closing(HTTPConnection("127.0.0.1", self._port, timeout=60)) as connection:
            headers = {"authorization": f"Bearer {vllm.KEY}"}
            connection.request("GET", paths.STATE, headers=headers)
            state = decoded(connection.getresponse().read(), State)
        return [name for base in state.bases for name in base.adapters]


@contextmanager
def running(count: int, slots: int = SLOTS) -> Iterator[list[FakeEngine]]:
    """Run several."""
    engines: list[FakeEngine] = []
    try:
        engines.extend(FakeEngine(slots) for _ in range(count))
        yield engines
    finally:
        for one in engines:
            one.stop()
