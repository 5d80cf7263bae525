"""The small real models that tests run on: the packaged demo, and adapters on its base.

Adapters are made once, kept in `.cache`, shared by every test run. A new one takes ten seconds of a processor: ask for
one of PHRASES.
"""

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache"
PACKAGE = ROOT / "packages" / "demo" / "src" / "tunewarden_demo"
PHRASES = ("zebra says", "quartz says", "violet owl")


def require_torch() -> None:
    """Skip the test where torch is not installed. This process need not load it, which takes seconds."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")


def demo_dir() -> Path:
    """Return the directory with the committed `base` and `adapter`."""
    require_torch()
    return PACKAGE


def base_dir() -> Path:
    """Return the demo's base: a Hugging Face model directory."""
    return demo_dir() / "base"


def adapter_dir(phrase: str, seed: int = 1) -> Path:
    """Return a LoRA on the demo's base whose answers begin with `phrase`, made if missing."""
    record = hashlib.sha256((PACKAGE / "weights.json").read_bytes()).hexdigest()
    # An older peft warns of what a newer one writes.
    made_by = importlib.metadata.version("peft")
    name = hashlib.sha256(f"{record} {made_by} {seed} {phrase}".encode()).hexdigest()[:16]
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
    require_torch()
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
