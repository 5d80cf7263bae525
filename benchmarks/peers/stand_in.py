"""Becomes benchmarks/gateway/mock.c where the supervisor starts the embedded engine; on the load's processor."""

import argparse
import os
from pathlib import Path

from tunewarden import processes

BINARY = "BENCH_STAND_IN"
LOAD_CPU = 1

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    asked, _ = parser.parse_known_args()
    processes.die_with(asked.parent)
    os.sched_setaffinity(0, {LOAD_CPU})
    program = os.environ[BINARY]
    os.execv(program, [program, str(asked.socket)])
