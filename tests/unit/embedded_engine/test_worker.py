"""The engine's process where it cannot listen."""

import os
import subprocess
import sys
from pathlib import Path


def test_a_path_that_is_too_long_for_a_socket_is_said(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    command = [sys.executable, "-m", "tunewarden.embedded_engine.worker"]
    ran = subprocess.run(
        [*command, "--parent", str(os.getpid()), "--socket", str(deep / "engine.sock")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == os.EX_UNAVAILABLE
    (line,) = ran.stderr.splitlines()
    assert line.endswith(
        "engine.sock cannot be made: AF_UNIX path too long; choose a data directory with a shorter one"
    )
