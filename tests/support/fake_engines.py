"""Processes of the stand-in for vLLM with the real plugin: killed, stopped and started again at the same address."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.support.servers import REPOSITORY, SWAPS

SLOTS = 3


class FakeEngine:
    """The stand-in's process, which can be killed and started again at the same address."""

    def __init__(self, slots: int = SLOTS) -> None:
        self._slots = slots
        self._port = 0
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.vllm_server", str(self._slots), str(self._port)],
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
