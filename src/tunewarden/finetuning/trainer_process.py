"""A trainer: a process of its own that is fed through pipes, asked over a socket, and dies with us.

Plain training data passes through the pipes only, never through a file (I16).
"""

import contextlib
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
from tunewarden.trainer.messages import Pause, Taken, Task, Told

# What is run; tests put a stand-in here.
TRAINER = "tunewarden.trainer"
LINE_BYTES_MAX = 1024 * 1024
LAST_WORDS_BYTES = 4096
# Children of a killed trainer could hold its standard error for longer than it lived.
LAST_WORDS_SECONDS = 1.0
# A socket holds more than all that we ever say at once.
SEND_SECONDS = 1.0
# Answers to clients come first where both need the same processors.
NICENESS = 10

_RECEIVE_BYTES = 64 * 1024
_TOLD: msgspec.json.Decoder[Told] = msgspec.json.Decoder(Told)


class TrainerEnded(Exception):
    """The trainer closed its end, or said what cannot be understood."""


@dataclass(frozen=True, slots=True)
class Data:
    """The plain bytes of the files, to be read once, each in a thread of its own."""

    training: Generator[bytes, None, None]
    validation: Generator[bytes, None, None] | None


class TrainerProcess:
    """One running trainer. `end` must be called, by the thread that started it."""

    def __init__(self, task: Task, data: Data, *, keeps_open: int) -> None:
        """Start it; `task.training` and `.validation` are filled in. Raises OSError.

        `keeps_open` is a descriptor that it has too, so that a lock lasts until it is really gone.
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

    def receive(self, seconds: float) -> Told | None:
        """Return what it says next, or None if that is nothing for so long.

        Raises TrainerEnded; and what kept its files from being read, before anything that it says
        of a file that was cut short is believed.
        """
        line = self._line(seconds)
        self._check_feeds()
        if line is None:
            return None
        try:
            return _TOLD.decode(line)
        except msgspec.DecodeError as error:
            raise TrainerEnded(f"it said what cannot be understood: {error}") from error

    def taken(self) -> None:
        """Tell it that what it offered last is stored."""
        self._send(Taken())

    def ask_to_pause(self) -> None:
        """Ask it to hand over its state and end."""
        self._send(Pause())

    def end(self, *, patience_seconds: float = 0.0) -> int:
        """Kill it unless it ends by itself in time; return its status once nothing is left of it."""
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
        """The end of what it wrote to its standard error."""
        return self._last_words.text

    def _send(self, message: Task | Taken | Pause) -> None:
        with contextlib.suppress(OSError):  # That it ended is found by `receive`.
            self._control.settimeout(SEND_SECONDS)
            self._control.sendall(msgspec.json.encode(message) + b"\n")

    def _line(self, seconds: float) -> bytes | None:
        while b"\n" not in self._received:
            if len(self._received) > LINE_BYTES_MAX:
                raise TrainerEnded("it said too much at once")
            self._control.settimeout(seconds)
            try:
                received = self._control.recv(_RECEIVE_BYTES)
            except TimeoutError:
                return None
            except OSError as error:
                raise TrainerEnded("its socket broke") from error
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
    """Writes plain bytes into a pipe, as fast as they are read from it."""

    def __init__(self, chunks: Generator[bytes, None, None]) -> None:
        super().__init__(name="feed", daemon=True)
        self.reading_end, self.descriptor = os.pipe()
        self._chunks = chunks
        self.failure: Error | None = None

    def run(self) -> None:
        # `failure` is set before the pipe ends: a file that is cut short must not pass for a file.
        failure: Error | None = Error(Kind.UNAVAILABLE, "A file could not be read to its end.")
        try:
            with contextlib.closing(self._chunks):
                for chunk in self._chunks:
                    left = memoryview(chunk)
                    while left:
                        left = left[os.write(self.descriptor, left) :]
            failure = None
        except BrokenPipeError:
            failure = None  # It ended, or has read enough.
        except Error as error:
            failure = error
        finally:
            self.failure = failure
            os.close(self.descriptor)


class _LastWords(threading.Thread):
    """Reads a trainer's standard error and keeps the end of it."""

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
