"""Peers in throw-away environments under .cache/bench. What cannot be had is reported, never imitated."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "bench"
DONE = ".ready"
INSTALL_SECONDS = 900
# Environment -> what pip puts into it.
PYTHON = {
    "fastapi": ("fastapi", "uvicorn", "uvloop", "httptools", "httpx"),
    "litellm": ("litellm[proxy]",),
    "vllm-router": ("vllm-router",),
    "plots": ("matplotlib",),
    "py-spy": ("py-spy",),
}
PORTKEY = "@portkey-ai/gateway"


class NotInstalled(Exception):
    """It cannot be had here; the message says why."""


@dataclass(frozen=True, slots=True)
class Installed:
    """Where it is, and which version."""

    path: Path
    version: str


def python_environment(name: str) -> Installed:
    """A virtual environment with what PYTHON says; `path` is its directory."""
    here = CACHE / name
    if not (here / DONE).exists():
        shutil.rmtree(here, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(here)])
        pip = [str(here / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "-q"]
        _run([*pip, "install", *PYTHON[name]])
        (here / DONE).touch()
    packages = [package.split("[")[0] for package in PYTHON[name]]
    program = "import sys, importlib.metadata as m\nfor name in sys.argv[1:]: print(name, m.version(name))"
    listed = _run([str(here / "bin" / "python"), "-c", program, *packages])
    return Installed(here, ", ".join(listed.splitlines()))


def nginx() -> Installed:
    """The one in PATH, else Debian's package, unpacked here; `path` is the program."""
    found = shutil.which("nginx")
    here = CACHE / "nginx"
    program = Path(found) if found else here / "usr" / "sbin" / "nginx"
    if not program.exists():
        _unpack("nginx", here)
    asked = subprocess.run([program, "-v"], capture_output=True, text=True, check=False)
    if asked.returncode:
        raise NotInstalled(f"it does not start: {asked.stderr.strip()}")
    return Installed(program, asked.stderr.strip().rpartition("/")[2])


def haproxy() -> Installed:
    """The one in PATH, else Debian's package and its libraries, unpacked here; `path` is the program."""
    found = shutil.which("haproxy")
    here = CACHE / "haproxy"
    program = Path(found) if found else here / "usr" / "sbin" / "haproxy"
    if not program.exists():
        for package in ("liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1", "haproxy"):
            _unpack(package, here)
    asked = subprocess.run(
        [program, "-v"], capture_output=True, text=True, check=False, env=libraries(here)
    )
    if asked.returncode:
        raise NotInstalled(f"it does not start: {asked.stderr.strip()}")
    return Installed(program, asked.stdout.split()[2])


def libraries(here: Path) -> dict[str, str]:
    """The environment for a program of a package that was unpacked at `here`."""
    found = sorted({str(path.parent) for path in here.glob("usr/lib/**/*.so*")})
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(found)}


def portkey() -> Installed:
    """From npm; `path` is the script that Node runs."""
    here = CACHE / "portkey"
    if shutil.which("npm") is None:
        raise NotInstalled("there is no npm")
    if not (here / DONE).exists():
        here.mkdir(parents=True, exist_ok=True)
        quiet = ["--silent", "--no-audit", "--no-fund", "--prefix", str(here)]
        _run(["npm", "install", *quiet, PORTKEY])
        (here / DONE).touch()
    package = here / "node_modules" / PORTKEY
    version = json.loads((package / "package.json").read_text())["version"]
    node = _run(["node", "--version"]).strip()
    return Installed(package / "build" / "start-server.js", f"{version}, Node {node}")


def _unpack(package: str, here: Path) -> None:
    here.mkdir(parents=True, exist_ok=True)
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise NotInstalled(f"{package} is not in PATH, and only Debian's package is known here")
    _run(["apt-get", "download", package], directory=here)
    for archive in here.glob(f"{package}_*.deb"):
        _run(["dpkg", "-x", str(archive), str(here)])
        archive.unlink()


def _run(command: list[str], *, directory: Path | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=directory,
            timeout=INSTALL_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(f"{command[0]}: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NotInstalled(f"{command[0]}: {said[-1] if said else done.returncode}")
    return done.stdout
