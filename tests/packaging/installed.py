"""Built wheels in an environment of their own, beside chosen packages of the one that runs the tests.

Nothing is downloaded: the packages are links into this environment.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from http.client import HTTPConnection
from importlib.metadata import distribution, requires
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.support import servers

ROOT = Path(__file__).parents[2]
# The verifier's distribution, which the server's needs.
RECEIPTS = ROOT / "packages" / "receipts"


def build_wheels(directory: Path, *projects: Path) -> list[Path]:
    """Build the wheels of these projects into an empty directory."""
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(directory)]
    run([sys.executable, "-m", "pip", "--quiet", "wheel", *options, *map(str, projects)])
    wheels = list(directory.glob("*.whl"))
    assert len(wheels) == len(projects)
    return wheels


def install(wheels: Sequence[Path], directory: Path, packages: set[str]) -> Path:
    """Install wheels and links to `packages` in a new environment; return the directory of its commands."""
    run([sys.executable, "-m", "venv", "--without-pip", str(directory)])
    (site,) = directory.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(directory / "bin" / "python")]
    run([*pip, "install", "--no-deps", "--no-index", *map(str, wheels)])
    for package in packages:
        found = distribution(package)
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(str(found.locate_file(top)))
    # Whatever the wheels' metadata asks for is there.
    run([*pip, "check"])
    return directory / "bin"


def needed(requirements: Iterable[Requirement]) -> set[str]:
    """Return the packages that these requirements bring here, and what those need in turn."""
    found: set[str] = set()
    todo = list(requirements)
    while todo:
        one = todo.pop()
        name = canonicalize_name(one.name)
        if name not in found and (one.marker is None or one.marker.evaluate({"extra": ""})):
            found.add(name)
            todo += map(Requirement, requires(name) or ())
    return found


def url_of(data: Path) -> str:
    """Return the address that the server on this data directory has noted."""
    return str(json.loads((data / "run" / "server.json").read_text())["url"])


def is_ready(data: Path) -> bool:
    """Tell whether the server on this data directory answers `/readyz` with 200."""
    try:
        url = urlsplit(url_of(data))
    except FileNotFoundError:
        return False
    connection = HTTPConnection(url.hostname or "", url.port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def serve_once(command: list[str], data: Path, environment: Mapping[str, str]) -> None:
    """Start a server on a data directory, wait until it answers, and stop it: it must say nothing but how to use it."""
    with subprocess.Popen(
        [*command, "serve", "--port", "0", "--data", str(data)],
        cwd=data.parent,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            servers.wait_until(lambda: is_ready(data), "it answers", 30)
        finally:
            process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert said == "", said


def run(command: list[str]) -> None:
    """Run a command that must succeed."""
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
