"""A trainer's child process: data through pipes, messages over a socket; it dies with its parent.

Plaintext training data passes through the pipes only, never through a file (I16).
"""

import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from dataclasses import dataclass

import msgspec

from tunewarden import config
from tunewarden.errors import Error, Kind
from tunewarden.trainer.messages import Acknowledged, Pause, Task, TrainerMessage

# The command; tests replace it.
TRAINER = "tunewarden.trainer"
LINE_BYTES_MAX = 1024 * 1024
LAST_WORDS_BYTES = 4096
# Children of a killed trainer may keep its standard error open.
LAST_WORDS_SECONDS = 1.0
# A socket buffers more than we ever send at once.
SEND_SECONDS = 1.0
# Inference has priority over training.
NICENESS = 10

logger = logging.getLogger(__name__)

_RECEIVE_BYTES = 64 * 1024
_TRAINER_MESSAGE: msgspec.json.Decoder[TrainerMessage] = msgspec.json.Decoder(TrainerMessage)


class TrainerEnded(Exception):
    """The trainer closed its socket, or sent an invalid message."""


@dataclass(frozen=True, slots=True)
class Data:
    """The files' plaintext, each read once in its own thread."""

    training: Generator[bytes, None, None]
    validation: Generator[bytes, None, None] | None


class TrainerProcess:
    """One running trainer. `end` must be called, by the thread that started it."""

    def __init__(self, task: Task, data: Data, *, keeps_open: int) -> None:
        """Start it; sets `task.training` and `.validation`. Raises OSError.

        `keeps_open` is a descriptor that it inherits, so that a lock is held until it has really ended.
        """
        self._received = b""
        self._feeds = [_Feed(data.training)]
        if data.validation is not None:
            self._feeds.append(_Feed(data.validation))
        ends = [feed.reading_end for feed in self._feeds]
        self._control, theirs = socket.socketpair()
        try:
            command = [sys.executable, "-m", TRAINER, "--control", str(theirs.fileno())]
            self._process = subprocess.Popen(
                command,
                pass_fds=(theirs.fileno(), keeps_open, *ends),
                env=config.child_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        except BaseException:
            self._control.close()
            for feed in self._feeds:
                os.close(feed.descriptor)
            raise
        finally:
            theirs.close()
            for end in ends:
                os.close(end)
        self._last_words = _LastWords(self._process)
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, NICENESS)
        told = msgspec.structs.replace(
            task, training=ends[0], validation=ends[1] if len(ends) > 1 else None
        )
        for thread in (*self._feeds, self._last_words):
            thread.start()
        self._send(told)

    def receive(self, seconds: float) -> TrainerMessage | None:
        """Return its next message, or None after `seconds`.

        Raises TrainerEnded; and errors of reading its files, before any message
        about a truncated file is returned.
        """
        line = self._line(seconds)
        self._check_feeds()
        if line is None:
            return None
        try:
            return _TRAINER_MESSAGE.decode(line)
        except msgspec.DecodeError as error:
            raise TrainerEnded(f"invalid message: {error}") from error

    def acknowledge(self) -> None:
        """Acknowledge its last offer: it is stored."""
        self._send(Acknowledged())

    def ask_to_pause(self) -> None:
        """Ask it to save its state and end."""
        self._send(Pause())

    def end(self, *, patience_seconds: float = 0.0) -> int:
        """Wait, then kill it; return its exit status once it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if patience_seconds:
                self._process.wait(timeout=patience_seconds)
        self._process.kill()
        status = self._process.wait()
        self._control.close()
        for feed in self._feeds:
            feed.join()
        self._last_words.join(LAST_WORDS_SECONDS)
        return status

    @property
    def last_words(self) -> str:
        """The tail of its standard error."""
        return self._last_words.text

    def _send(self, message: Task | Acknowledged | Pause) -> None:
        with contextlib.suppress(OSError):  # `receive` detects that it has ended
            self._control.settimeout(SEND_SECONDS)
            self._control.sendall(msgspec.json.encode(message) + b"\n")

    def _line(self, seconds: float) -> bytes | None:
        while b"\n" not in self._received:
            if len(self._received) > LINE_BYTES_MAX:
                raise TrainerEnded("message too long")
            self._control.settimeout(seconds)
            try:
                received = self._control.recv(_RECEIVE_BYTES)
            except TimeoutError:
                return None
            except OSError as error:
                raise TrainerEnded("socket error") from error
            if not received:
                raise TrainerEnded("it ended")
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _check_feeds(self) -> None:
        for feed in self._feeds:
            if feed.failure is not None:
                raise feed.failure


class _Feed(threading.Thread):
    """Writes plaintext into a pipe, at the reader's pace."""

    def __init__(self, chunks: Generator[bytes, None, None]) -> None:
        super().__init__(name="feed", daemon=True)
        self.reading_end, self.descriptor = os.pipe()
        self._chunks = chunks
        self.failure: Error | None = None

    def run(self) -> None:
        # Set `failure` before closing the pipe: a truncated file must not pass for a complete one.
        failure: Error | None = Error(Kind.UNAVAILABLE, "A file could not be read to its end.")
        try:
            with contextlib.closing(self._chunks):
                for chunk in self._chunks:
                    left = memoryview(chunk)
                    while left:
                        left = left[os.write(self.descriptor, left) :]
            failure = None
        except BrokenPipeError:
            failure = None  # the trainer ended, or has read enough
        except Error as error:
            failure = error
        except Exception:
            # Outer boundary: Python would print the exception's values; our log leaves them out.
            logger.exception("a file could not be read for a trainer")
        finally:
            self.failure = failure
            os.close(self.descriptor)


class _LastWords(threading.Thread):
    """Reads a trainer's standard error and keeps its tail."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(name="last words", daemon=True)
        assert process.stderr is not None, "asked for when it was started"
        self._stream = process.stderr
        self._kept = b""

    @property
    def text(self) -> str:
        return self._kept.decode("utf-8", "replace").strip()

    def run(self) -> None:
        with self._stream:
            while chunk := os.read(self._stream.fileno(), LAST_WORDS_BYTES):
                self._kept = (self._kept + chunk)[-LAST_WORDS_BYTES:]
