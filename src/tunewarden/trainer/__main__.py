"""`python -m tunewarden.trainer --control FD`: run one training job for the runner (`messages.py`).

It dies with its parent, dumps no core, and cannot be traced by other processes of its user (I16).
"""

import argparse
import contextlib
import faulthandler
import logging
import os
import shutil
import sys
import warnings
from pathlib import Path
from types import TracebackType

from tunewarden.clock import SystemClock
from tunewarden.logs import trace
from tunewarden.processes import die_with, keep_secrets_in_memory
from tunewarden.trainer.control import Control
from tunewarden.trainer.failures import failure_of


def main(arguments: list[str]) -> None:
    """Run the job; return when it is finished or paused. Any exception is reported, and the exit status is 1."""
    # Before importing torch, which takes seconds. A parent that has ended already
    # has closed its end of the socket.
    die_with(os.getppid())
    keep_secrets_in_memory()
    parser = argparse.ArgumentParser(prog="python -m tunewarden.trainer")
    parser.add_argument("--control", type=int, required=True, help="descriptor of the socket")
    control = Control(parser.parse_args(arguments).control)
    # Outer boundary: from here on uncaught exceptions are reported to the runner.
    telling = _Telling(control)
    sys.excepthook = telling
    task = control.read_task()
    telling.scratch = Path(task.scratch)
    telling.stderr = _quiet()
    from tunewarden.trainer import work  # noqa: PLC0415 - as said above

    work.run(task, control, SystemClock())


class _Telling:
    """The excepthook: reports an uncaught exception to the runner; the process then exits with 1."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self.scratch: Path | None = None
        self.stderr = sys.stderr.fileno()

    def __call__(
        self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        del kind
        os.write(self.stderr, f"{trace(error, traceback)}\n".encode())
        with contextlib.suppress(OSError):
            for place in self.scratch.iterdir() if self.scratch is not None else ():
                if place.is_dir():
                    shutil.rmtree(place, ignore_errors=True)
                else:
                    place.unlink()
        self._control.end_with(failure_of(error))


def _quiet() -> int:
    """Redirect standard error for everybody else, and return a duplicate of it.

    Output of libraries may hold data: a panic of the tokenizer quotes its input. A crash
    of native code still leaves its location.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    faulthandler.enable(kept)
    return kept


if __name__ == "__main__":
    main(sys.argv[1:])
