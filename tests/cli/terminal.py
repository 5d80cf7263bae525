"""Commands on a pseudo-terminal, as a person has them."""

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.support import servers

# A child can be interrupted also where the tests run in the background, which ignores it.
HEARING_CTRL_C = ("env", "--default-signal=INT")


class Terminal:
    """A running command whose input and output are a terminal of its own."""

    def __init__(self, *arguments: str, columns: int = 100) -> None:
        self._mine, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        self.process = subprocess.Popen(
            [*HEARING_CTRL_C, sys.executable, "-m", "tunewarden", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=servers.environment({}) | {"TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(theirs)
        self._shown = bytearray()
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        # Linux says EIO when the last one who has the other end is gone.
        with contextlib.suppress(OSError):
            while data := os.read(self._mine, 65536):
                self._shown += data

    @property
    def shown(self) -> str:
        return self._shown.decode(errors="replace")

    def type(self, text: str) -> None:
        os.write(self._mine, text.encode())

    def wait_for(self, text: str) -> None:
        servers.wait_until(lambda: text in self.shown, f"{text} in {self.shown!r}")

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Wait for its end; return its status."""
        status = self.process.wait(timeout=60)
        self._reading.join(10)
        os.close(self._mine)
        return status


@contextlib.contextmanager
def running(*arguments: str, data: Path, columns: int = 100) -> Iterator[Terminal]:
    """Run a command on a data directory; it is killed if it is still there after the block."""
    terminal = Terminal(*arguments, "--data", str(data), columns=columns)
    try:
        yield terminal
    finally:
        if terminal.process.poll() is None:
            terminal.process.kill()
            terminal.end()
