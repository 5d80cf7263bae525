"""The engine's process: `python -m tunewarden.engine.worker --socket PATH`.

It dies with its parent, writes no core, and cannot be read by other processes of its user.
"""

import argparse
import os
import socket
import sys
from pathlib import Path

from tunewarden import processes

BACKLOG = 1024


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tunewarden.engine.worker")
    parser.add_argument("--parent", type=int, help="pid of the process to die with")
    parser.add_argument("--socket", type=Path, required=True, help="unix socket to listen on")
    parser.add_argument(
        "--threads", type=int, help="torch threads (default: every real core but one)"
    )
    parser.add_argument("--adapters", type=int, default=64, help="adapter slots per base")
    parser.add_argument("--rows", type=int, default=32, help="sequences in one batch")
    parser.add_argument("--waiting", type=int, default=256, help="sequences that may wait")
    parser.add_argument(
        "--prefix-mib",
        type=int,
        default=256,
        help="MiB a base keeps of prompts, for reuse; 0: none",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "auto"),
        default="float32",
        help="what bases compute in; auto: bfloat16 where base and processor are made for it. Twice as"
        " fast, half the memory, but an answer may depend on its company",
    )
    options = parser.parse_args(arguments)
    processes.die_with(options.parent or os.getppid())
    processes.keep_secrets_in_memory()
    from tunewarden.engine import service  # noqa: PLC0415  before the seconds that torch takes

    listener = _listen(options.socket)
    try:
        service.serve(
            listener,
            threads=options.threads,
            adapters=options.adapters,
            rows=options.rows,
            waiting_rows=options.waiting,
            prefix_mebibytes=options.prefix_mib,
            precision=options.dtype,
        )
    finally:
        options.socket.unlink(missing_ok=True)
    return 0


def _listen(path: Path) -> socket.socket:
    """Return a listening socket that only this user can connect to."""
    path.unlink(missing_ok=True)
    # Before it can be connected to: a deletion must be able to kill an engine that hangs (D5).
    path.with_suffix(".pid").write_bytes(processes.identity())
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(previous)
    listener.listen(BACKLOG)
    return listener


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
