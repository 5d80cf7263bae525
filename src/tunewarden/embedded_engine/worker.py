"""The engine's process: `python -m tunewarden.embedded_engine.worker --socket PATH`.

It dies with its parent, dumps no core, and cannot be traced by other processes of its user.
"""

import argparse
import logging
import os
import socket
import sys
from pathlib import Path

from tunewarden import logs, processes, pulse
from tunewarden.embedded_engine import installed

IDENTITY_BYTES = 128
BACKLOG = 1024

logger = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM; return the exit status: EX_UNAVAILABLE if a package is missing."""
    options = _parser().parse_args(arguments)
    processes.die_with(options.parent or os.getppid())
    processes.keep_secrets_in_memory()
    missing = installed.missing()
    if missing:
        logs.to_stderr("engine", options.log_format)
        logger.error(
            "local bases are not served, their engine is not installed: %s (missing: %s)",
            installed.REMEDY,
            ", ".join(missing),
        )
        return os.EX_UNAVAILABLE
    from tunewarden.embedded_engine import service  # noqa: PLC0415  before the seconds that torch takes

    try:
        pulse.answer(options.socket.with_suffix(pulse.SUFFIX))
        listener = _listen(options.socket)
    except OSError as error:
        logs.to_stderr("engine", options.log_format)
        said = "local bases are not served: %s cannot be made: %s"
        # A path that is too long for a socket has no errno, but words of Python's.
        why = error.strerror or f"{error}; choose a data directory with a shorter one"
        logger.error(said, options.socket, why)  # noqa: TRY400  expected: no traceback
        return os.EX_UNAVAILABLE
    try:
        service.serve(
            listener,
            threads=options.threads,
            adapters=options.adapters,
            rows=options.rows,
            waiting_tokens=options.waiting,
            prefix_mebibytes=options.prefix_mib,
            precision=options.dtype,
        )
    finally:
        options.socket.unlink(missing_ok=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tunewarden.embedded_engine.worker")
    parser.add_argument("--parent", type=int, help="pid of the process to die with")
    parser.add_argument("--socket", type=Path, required=True, help="unix socket to listen on")
    parser.add_argument(
        "--threads", type=int, help="torch threads (default: every real core but one)"
    )
    parser.add_argument("--adapters", type=int, default=64, help="adapter slots per base")
    parser.add_argument("--rows", type=int, default=32, help="sequences in one batch")
    parser.add_argument("--waiting", type=int, default=1024 * 1024, help="tokens that may wait")
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
        " fast, half the memory, but a response may depend on the rest of its batch",
    )
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    return parser


def _listen(path: Path) -> socket.socket:
    """Return a listening socket that only this user can connect to."""
    path.unlink(missing_ok=True)
    # Before it accepts connections: a deletion must be able to kill a hung engine (D5).
    _note_identity(path.with_suffix(".pid"))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(previous)
    listener.listen(BACKLOG)
    return listener


def _note_identity(path: Path) -> None:
    """Write this process's identity, in place, so that it needs no space on a full disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, processes.identity().ljust(IDENTITY_BYTES), 0)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
