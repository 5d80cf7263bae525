"""The small real models that tests run on: made once, kept in `.cache`, shared by every test run."""

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).parent.parent / ".cache"


def demo_dir() -> Path:
    """Return a directory with `base` and `adapter`, made by `python -m tunewarden.demo` if missing."""
    return _made_once(CACHE / "demo", ["--out"])


def base_dir() -> Path:
    """Return the demo's base: a Hugging Face model directory."""
    return demo_dir() / "base"


def adapter_dir(phrase: str, seed: int = 1) -> Path:
    """Return a LoRA on the demo's base whose answers begin with `phrase`, made if missing."""
    base = hashlib.sha256((base_dir() / "model.safetensors").read_bytes()).hexdigest()
    name = hashlib.sha256(f"{base} {seed} {phrase}".encode()).hexdigest()[:16]
    command = [
        "adapter",
        "--base",
        str(base_dir()),
        "--phrase",
        phrase,
        "--seed",
        str(seed),
        "--out",
    ]
    return _made_once(CACHE / "adapters" / name, command)


def _made_once(directory: Path, command: list[str]) -> Path:
    """Run the demo with `command` and the directory unless another test process did so before."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (directory.parent / f"{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            subprocess.run(
                [sys.executable, "-m", "tunewarden.demo", *command, str(directory)],
                check=True,
                stdout=subprocess.DEVNULL,
            )
    return directory
