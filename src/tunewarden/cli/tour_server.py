"""A server for one tour: the demo, on a data directory and a port of its own, gone when the tour ends."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tunewarden import config, processes
from tunewarden.cli import data_directory
from tunewarden.clock import SystemClock
from tunewarden.config import Config
from tunewarden.errors import Error, Kind
from tunewarden.server import first_start, start_checks
from tunewarden.settings import ENVIRONMENT_PREFIX

START_SECONDS = 120.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.1
PREFIX = "tunewarden-tour-"
# Of a socket's path, in bytes (unix(7)); TMPDIR may be deep.
SOCKET_PATH_MAX = 107
# All that such a server ever has is public: the demo's weights.
SETTINGS = {"SWAP_MAY_HOLD_PLAIN_WEIGHTS": "true"}


@contextmanager
def started() -> Iterator[Config]:
    """Run a server with the demo for a block; stop it and remove its directory after it. Raises Error(UNAVAILABLE)."""
    start_checks.require_engine()
    first_start.packaged_demo()
    directory = _new_directory()
    try:
        settings = Config(data=directory / "data")
        log = directory / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                _command(settings.data),
                env=_environment(directory),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A terminal's Ctrl-C must reach this process only, which then stops the server.
                start_new_session=True,
                preexec_fn=partial(processes.die_with, os.getpid()),  # noqa: PLW1509  no thread runs here
            )
        try:
            _wait(process, settings, log)
            yield settings
        finally:
            _stop(process)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _command(data: Path) -> list[str]:
    options = ["--demo", "--host", "127.0.0.1", "--port", "0", "--workers", "1"]
    return [sys.executable, "-m", "tunewarden", "serve", *options, "--data", str(data)]


def _new_directory() -> Path:
    made = Path(tempfile.mkdtemp(prefix=PREFIX))
    if len(bytes(Config(data=made / "data").engine_socket)) <= SOCKET_PATH_MAX:
        return made
    made.rmdir()
    return Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))


def _environment(directory: Path) -> dict[str, str]:
    """Return the environment without the settings of the user's server; what it leaves behind stays in `directory`."""
    kept = {
        name: value
        for name, value in config.child_environment().items()
        if not name.startswith(ENVIRONMENT_PREFIX)
    }
    kept["TMPDIR"] = str(directory)
    return kept | {f"{ENVIRONMENT_PREFIX}{name}": value for name, value in SETTINGS.items()}


def _wait(process: "subprocess.Popen[bytes]", settings: Config, log: Path) -> None:
    clock = SystemClock()
    deadline = clock.monotonic() + START_SECONDS
    while data_directory.server_url(settings) is None:
        if process.poll() is not None or clock.monotonic() > deadline:
            said = log.read_text("utf-8", "replace").strip().splitlines()
            raise Error(
                Kind.UNAVAILABLE,
                f"The tour's own server did not start. {said[-1] if said else ''}".strip(),
            )
        clock.sleep(POLL_SECONDS)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
