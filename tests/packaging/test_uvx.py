"""`uvx --from WHEEL tunewarden serve`: uv resolves the wheel's metadata, and the server runs and stops under it."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.packaging import installed
from tests.support import servers

from tunewarden.cli.exit_codes import ExitCode
from tunewarden.embedded_engine.installed import DEMO_BY_UVX

CACHE = installed.ROOT / ".cache"
UV = CACHE / "uv" / "bin" / "uv"
NO_NETWORK = "Failed to fetch"
DOWNLOAD_SECONDS = 120


@pytest.fixture(scope="module")
def uvx(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the command that runs `tunewarden` from the wheel without the network: what it needs is in uv's cache."""
    if not UV.is_file():
        pytest.skip("uv is not installed: make setup")
    directory = tmp_path_factory.mktemp("uvx")
    installed.build_wheels(directory, installed.ROOT, installed.RECEIPTS)
    (wheel,) = directory.glob("tunewarden-*.whl")
    # The versions of the lock: a new release of others must not fail this.
    lock = installed.ROOT / "requirements" / "core.txt"
    command = [str(UV), "tool", "run", "--quiet", "--no-config", "--cache-dir", str(CACHE / "uvx")]
    command += ["--python", sys.executable, "--constraints", str(lock)]
    # The verifier of receipts, which the server needs, of this tree.
    command += ["--find-links", str(directory), "--from", str(wheel)]
    offline = [*command, "--offline", "tunewarden"]
    if _run([*offline, "--version"]).returncode != 0:
        loaded = _run([*command, "tunewarden", "--version"])
        if NO_NETWORK in loaded.stderr:
            pytest.skip("uv has not what the wheel needs in its cache, and reaches no index")
        assert loaded.returncode == 0, loaded.stderr
    return offline


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env=servers.environment({}),
        capture_output=True,
        text=True,
        timeout=DOWNLOAD_SECONDS,
        check=False,
    )


def test_uvx_runs_the_server_from_the_wheel(uvx: list[str], tmp_path: Path) -> None:
    installed.serve_once(uvx, tmp_path / "data", servers.environment({}))


def test_uvx_says_what_the_demo_needs(uvx: list[str], tmp_path: Path) -> None:
    ran = _run([*uvx, "serve", "--demo", "--port", "0", "--data", str(tmp_path / "data")])
    assert ran.returncode == ExitCode.UNAVAILABLE
    assert ran.stderr.startswith(f"Error: The demo needs the local engine: {DEMO_BY_UVX} (")
    assert ran.stderr.count("\n") == 1
