"""`python -m tunewarden.trainer --control FD`: do the one job that the runner gives (`messages.py`).

It dies with its parent, writes no core, and cannot be read by other processes of its user (I16).
"""

import argparse
import contextlib
import logging
import os
import shutil
import sys
import warnings
from pathlib import Path
from types import TracebackType

from tunewarden.clock import SystemClock
from tunewarden.processes import die_with, keep_secrets_in_memory
from tunewarden.trainer.control import Control
from tunewarden.trainer.failures import told, trace


def main(arguments: list[str]) -> None:
    """Do the job; return when it is finished or paused. Any exception is told, and the status is 1."""
    # First of all, and before the seconds that importing torch takes. A parent that is gone already
    # has closed its end of the socket.
    die_with(os.getppid())
    keep_secrets_in_memory()
    parser = argparse.ArgumentParser(prog="python -m tunewarden.trainer")
    parser.add_argument("--control", type=int, required=True, help="descriptor of the socket")
    control = Control(parser.parse_args(arguments).control)
    # The outermost boundary: from here on whatever is not caught is told to the runner.
    telling = _Telling(control)
    sys.excepthook = telling
    task = control.read_task()
    telling.scratch = Path(task.scratch)
    _quiet()
    from tunewarden.trainer import work  # noqa: PLC0415 - as said above

    work.run(task, control, SystemClock())


class _Telling:
    """What Python calls for an exception that nobody caught; the process then ends with 1."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self.scratch: Path | None = None

    def __call__(
        self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        del kind
        sys.stderr.write(trace(error, traceback) + "\n")
        with contextlib.suppress(OSError):
            for place in self.scratch.iterdir() if self.scratch is not None else ():
                if place.is_dir():
                    shutil.rmtree(place, ignore_errors=True)
                else:
                    place.unlink()
        self._control.end_with(told(error))


def _quiet() -> None:
    """Keep libraries from writing to standard error: what they say may hold data."""
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)


if __name__ == "__main__":
    main(sys.argv[1:])
