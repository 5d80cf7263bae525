"""`tunewarden.server.worker` that counts what it does: bytecode instructions, and calls of functions in C.

Counts do not depend on what else the machine does. They are for benchmarks/peers/guard.py, which reads them from the
file that BENCH_COUNTS names: two numbers of 8 bytes.
"""

import mmap
import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from tunewarden.server import worker

COUNTS = "BENCH_COUNTS"


def main() -> None:
    """Count in the thread that serves, from now on."""
    with Path(os.environ[COUNTS]).open("r+b") as file:
        counts = memoryview(mmap.mmap(file.fileno(), 16)).cast("Q")

    def inside(frame: FrameType, event: str, _: Any) -> Any:
        if event == "opcode":
            counts[0] += 1
        return inside

    def called(frame: FrameType, event: str, _: Any) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return inside

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if event == "c_call":
            counts[1] += 1

    sys.settrace(called)
    sys.setprofile(profile)
    worker.main(*sys.argv[1:])


if __name__ == "__main__":
    main()
