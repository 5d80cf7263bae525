"""A runner for tests: it starts the real trainer, feeds its pipes, and takes what it offers."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.support import demo_models

from tunewarden.config import child_environment

TIMEOUT_SECONDS = 600  # a busy machine takes forty times as long as a quiet one
Message = dict[str, Any]


class Runner:
    """One trainer, and all that it said: `messages`, each with `at` in seconds since the start."""

    def __init__(
        self,
        scratch: Path,
        kept: Path,
        training: Sequence[Any],
        validation: Sequence[Any] | None = None,
        **task: Any,
    ) -> None:
        """`kept` is where what is taken goes: `step`, `state`, `finished`, each with its step."""
        self.scratch = scratch
        self.kept = kept
        self.messages: list[Message] = []
        self._control, theirs = socket.socketpair()
        self._control.settimeout(TIMEOUT_SECONDS)
        self._lines = self._control.makefile("rb")
        feeds = [_Feed(lines) for lines in (training, validation) if lines is not None]
        self.began_at = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tunewarden.trainer", "--control", str(theirs.fileno())],
            pass_fds=[theirs.fileno(), *(feed.reading_end for feed in feeds)],
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        theirs.close()
        self.task = {
            "type": "task",
            "base": str(demo_models.base_dir()),
            "method": "supervised",
            "start": None,
            "resume": None,
            "training": feeds[0].reading_end,
            "validation": feeds[1].reading_end if len(feeds) > 1 else None,
            "scratch": str(scratch),
            "seed": 1,
            "hyperparameters": {},
            "rank": 8,
            "threads": 1,
            "state_seconds": 1000.0,
            **task,
        }
        for feed in feeds:
            os.close(feed.reading_end)
            feed.start()
        self.send(self.task)

    def send(self, message: Message) -> None:
        """Send one message."""
        self._control.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> Message | None:
        """Return the next message, or None at the end. What is offered is copied, but not taken."""
        line = self._lines.readline()
        if not line:
            return None
        message: Message = json.loads(line)
        message["at"] = time.monotonic() - self.began_at
        self.messages.append(message)
        if "directory" in message:
            directory = Path(message["directory"])
            assert directory.is_relative_to(self.scratch)
            name = f"{message['type']}-{message.get('step', 0)}"
            message["kept"] = shutil.copytree(directory, self.kept / name, dirs_exist_ok=True)
            if "results" in message:
                message["csv"] = Path(message["results"]).read_text("utf-8")
        return message

    def acknowledge(self) -> None:
        """Tell it that what it offered last was taken over."""
        self.send({"type": "acknowledged"})

    def to_end(self) -> Message:
        """Take everything; return the last message when the process is gone."""
        while (message := self.receive()) is not None:
            if "directory" in message:
                self.acknowledge()
        self.process.wait(TIMEOUT_SECONDS)
        return self.messages[-1]

    def until(self, kind: str, count: int = 1) -> Message:
        """Return the `count`th message of a kind from now on, not taken; everything before is taken."""
        while (message := self.receive()) is not None:
            if message["type"] == kind:
                count -= 1
                if not count:
                    return message
            if "directory" in message:
                self.acknowledge()
        raise AssertionError(f"no {kind} came: {self.messages[-1:]} {self.output()}")

    def of(self, kind: str) -> list[Message]:
        """Return the messages of a kind."""
        return [message for message in self.messages if message["type"] == kind]

    def output(self) -> str:
        """Return all that it wrote, once it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.read().decode()

    def hang_up(self) -> None:
        """Close the control socket, as a killed runner does."""
        self._control.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End whatever is left."""
        self.process.kill()
        self.process.wait()
        self._lines.close()
        self._control.close()
        assert self.process.stdout is not None
        self.process.stdout.close()


class _Feed(threading.Thread):
    """Writes examples into a pipe as JSON lines; text is written as it is."""

    def __init__(self, lines: Sequence[Any]) -> None:
        super().__init__(daemon=True)
        self.reading_end, self._writing_end = os.pipe()
        self._lines = lines

    def run(self) -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(self._writing_end, "wb") as pipe:
            for line in self._lines:
                text = line if isinstance(line, str) else json.dumps(line)
                pipe.write(text.encode() + b"\n")


@contextlib.contextmanager
def running(
    kept: Path, training: Sequence[Any], validation: Sequence[Any] | None = None, **task: Any
) -> Iterator[Runner]:
    """Run a trainer with a scratch directory in memory."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as scratch:
        runner = Runner(Path(scratch), kept, training, validation, **task)
        try:
            yield runner
        finally:
            runner.close()
