"""The trainer's end of the control socket."""

import os
import queue
import socket
import threading
from typing import Self

import msgspec

from tunewarden.clock import Clock
from tunewarden.trainer.messages import (
    ANSWER,
    TASK,
    Finished,
    Offer,
    Pause,
    Progress,
    Task,
    TrainerMessage,
    encode,
)

PROGRESS_SECONDS = 0.25
REPEAT_SECONDS = 1.5
ORPHANED = 1  # exit status


class Control:
    """The connection to the runner. Sending is thread-safe."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._lines = self._socket.makefile("rb")
        self._lock = threading.Lock()
        self._acknowledged: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._is_ending = False
        self.is_pausing = False

    def read_task(self) -> Task:
        """Return the first message, and watch for the runner's end from now on.

        Raises msgspec.DecodeError.
        """
        line = self._lines.readline()
        threading.Thread(target=self._listen, daemon=True).start()
        return TASK.decode(line)

    def send(self, message: TrainerMessage) -> None:
        """Send a message. Does not return if the runner is gone."""
        with self._lock:
            try:
                self._socket.sendall(encode(message))
            except OSError:
                os._exit(ORPHANED)

    def offer(self, message: Offer) -> None:
        """Send a message about files; return when the runner has acknowledged them."""
        self._is_ending = isinstance(message, Finished)
        self.send(message)
        self._acknowledged.get()

    def end_with(self, message: TrainerMessage) -> None:
        """Send the last message; the runner may close the socket from now on."""
        self._is_ending = True
        self.send(message)

    def close(self) -> None:
        """Close our end."""
        self._lines.close()
        self._socket.close()

    def _listen(self) -> None:
        for line in self._lines:
            try:
                answer = ANSWER.decode(line)
            except msgspec.DecodeError:
                break  # an invalid message: exit instead of guessing
            if isinstance(answer, Pause):
                self.is_pausing = True
            else:
                self._acknowledged.put(None)
        if not self._is_ending:
            # Exit at once, from this thread: the runner is gone, and the scratch directory is swept later.
            os._exit(ORPHANED)


class Reporter:
    """Reports progress from a separate thread, so that training never waits for it.

    Use it in a `with` block around the training; the last progress is reported before the block ends.
    """

    def __init__(self, control: Control, clock: Clock) -> None:
        self._control = control
        self._clock = clock
        self._latest: Progress | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._report, daemon=True)

    def note(self, progress: Progress) -> None:
        """Store the progress; does not block."""
        self._latest = progress

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _report(self) -> None:
        sent: Progress | None = None
        sent_at = self._clock.monotonic()
        is_over = False
        while not is_over:
            is_over = self._is_over.wait(PROGRESS_SECONDS)
            latest, now = self._latest, self._clock.monotonic()
            if latest is None or (latest is sent and now - sent_at < REPEAT_SECONDS):
                continue
            if now - sent_at < PROGRESS_SECONDS:  # the last one, when the block ended early
                self._clock.sleep(PROGRESS_SECONDS - (now - sent_at))
            sent, sent_at = latest, self._clock.monotonic()
            self._control.send(sent)
