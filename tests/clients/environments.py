"""An environment for each client, in `.cache/clients`, from exact pins (docs/decisions/0029).

`pins/NAME.txt` is a virtual environment's, `pins/NAME/` an npm project's. One that is there is used
again until its pins change. Clients that need none (curl, Java) have neither.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PINS = Path(__file__).parent / "pins"
PLACE = ROOT / ".cache" / "clients"
UV = ROOT / ".cache" / "uv" / "bin" / "uv"
NODE = ROOT / ".venv" / "node" / "node_modules" / ".bin"
STAMP = "installed"
# The largest one is a gigabyte, and a new machine has to fetch it.
INSTALL_SECONDS = 900


def has_pins(name: str) -> bool:
    """Tell if a client needs an environment."""
    return (PINS / f"{name}.txt").exists() or (PINS / name).is_dir()


def prepared(name: str, seconds: float = INSTALL_SECONDS) -> Path:
    """Return the directory of an environment, which is installed if it is not there as pinned: in `seconds` for each step."""
    place = PLACE / name
    place.mkdir(parents=True, exist_ok=True)
    with (PLACE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = place / STAMP
        digest = _digest(name)
        if not stamp.exists() or stamp.read_text() != digest:
            shutil.rmtree(place)
            place.mkdir()
            _install(name, place, seconds)
            stamp.write_text(digest)
    return place


def pinned(name: str, package: str) -> str:
    """Return the version that a client's environment has of a package."""
    pins = PINS / f"{name}.txt"
    if pins.exists():
        [found] = re.findall(rf"^{re.escape(package)}==(\S+)", pins.read_text(), re.MULTILINE)
        return str(found)
    packages = json.loads((PINS / name / "package-lock.json").read_text())["packages"]
    return str(packages[f"node_modules/{package}"]["version"])


def search_path(place: Path) -> str:
    """Return PATH with the commands of an environment first."""
    first = [place / "venv" / "bin", place / "node_modules" / ".bin", NODE]
    return os.pathsep.join([*map(str, first), os.environ["PATH"]])


def _digest(name: str) -> str:
    files = [PINS / f"{name}.txt", PINS / name / "package.json", PINS / name / "package-lock.json"]
    content = b"".join(file.read_bytes() for file in files if file.exists())
    return hashlib.sha256(content + sys.version.encode()).hexdigest()


def _install(name: str, place: Path, seconds: float) -> None:
    pins = PINS / f"{name}.txt"
    if pins.exists():
        venv = place / "venv"
        make = (str(UV), "venv", "--quiet", "--no-config", "--python", sys.executable, str(venv))
        _run(*make, seconds=seconds)
        python = str(venv / "bin" / "python")
        sync = (str(UV), "pip", "sync", "--quiet", "--no-config", "--python", python, str(pins))
        _run(*sync, seconds=seconds)
    else:
        shutil.copytree(PINS / name, place, dirs_exist_ok=True)
        install = ("npm", "ci", "--silent", "--no-audit", "--no-fund", "--prefix", str(place))
        _run(*install, seconds=seconds)


def _run(*command: str, seconds: float) -> None:
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds)
    if ran.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: {ran.stdout}{ran.stderr}")
