"""A mutex in shared memory that nobody waits for long: it may belong to a process that was killed or stopped.

It is a robust POSIX mutex (pthread_mutexattr_setrobust(3)): the kernel gives up that of a dead owner, and the next one
who takes it learns of that. A stopped owner keeps it, so `take` gives up after `WAIT_SECONDS`: what it guards must bear
two writers at once, at the price of one lost update.

Called by `ctypes.PyDLL`, which keeps the GIL: the calls never wait.
"""

import ctypes
import errno
import os
from typing import Final

from tunewarden.clock import SystemClock

# More than glibc's and musl's pthread_mutex_t take on any platform.
BYTES: Final = 64
_ATTRIBUTE_BYTES: Final = 64
_SHARED: Final = 1  # PTHREAD_PROCESS_SHARED
_ROBUST: Final = 1  # PTHREAD_MUTEX_ROBUST
# Its owner keeps it for a microsecond, or for some milliseconds if it loses the processor then. The event loop waits.
WAIT_SECONDS: Final = 0.01
LOOK_SECONDS: Final = 0.0001
# How long it is not waited for after that, twice as long each time: its owner is probably stopped.
PAUSE_SECONDS: Final = 0.01
PAUSE_SECONDS_MAX: Final = 0.3

_clock = SystemClock()


class Mutex:
    """The mutex in the first `BYTES` of a memory. For one thread of each process."""

    __slots__ = ("_memory", "_not_before", "_pause", "_pointer", "give_back", "try_take")

    def __init__(self, memory: memoryview) -> None:
        """`memory` is writable and shared; one process calls `prepare` before any other uses it."""
        calls = ctypes.PyDLL(None)
        self._memory = memory  # it must outlive the pointer
        self._pointer = ctypes.c_void_p(
            ctypes.addressof(ctypes.c_char.from_buffer(memory)),
        )
        # The hot path calls these two itself: 0 from the first means that it is taken, anything else goes to `take`.
        self.try_take = calls.pthread_mutex_trylock
        self.give_back = calls.pthread_mutex_unlock
        self._not_before = 0.0
        self._pause = PAUSE_SECONDS

    @property
    def pointer(self) -> ctypes.c_void_p:
        """The argument of `try_take` and `give_back`."""
        return self._pointer

    def prepare(self) -> None:
        """Make the mutex, for all processes. Raises OSError."""
        calls = ctypes.PyDLL(None)
        attribute = ctypes.create_string_buffer(_ATTRIBUTE_BYTES)
        for failure in (
            calls.pthread_mutexattr_init(attribute),
            calls.pthread_mutexattr_setpshared(attribute, _SHARED),
            calls.pthread_mutexattr_setrobust(attribute, _ROBUST),
            calls.pthread_mutex_init(self._pointer, attribute),
            calls.pthread_mutexattr_destroy(attribute),
        ):
            if failure:
                raise OSError(failure, os.strerror(failure))

    def take(self, answer: int) -> bool:
        """Take it after `try_take` answered something else than 0; False: go on without it."""
        now = _clock.monotonic()
        until = now + WAIT_SECONDS
        while answer == errno.EBUSY:
            if now < self._not_before:
                return False
            if now > until:
                self._not_before = now + self._pause
                self._pause = min(2 * self._pause, PAUSE_SECONDS_MAX)
                return False
            _clock.sleep(LOOK_SECONDS)
            now = _clock.monotonic()
            answer = self.try_take(self._pointer)
        self._pause = PAUSE_SECONDS
        if answer == errno.EOWNERDEAD:
            # It was killed between two stores, each of which leaves a valid state.
            ctypes.PyDLL(None).pthread_mutex_consistent(self._pointer)
            return True
        return answer == 0
