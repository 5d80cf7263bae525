"""The modules of a vLLM that is not installed, and a scratch directory in memory."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import vllm

from tunewarden import ids, mounts, swap
from tunewarden_vllm import leases

Install = Callable[..., None]


class FakeClock:
    """The clock of leases: it stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    found = FakeClock()
    monkeypatch.setattr(leases, "boottime", found)
    return found


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return what replaces the installed vLLM by another version or environment."""

    def replace(version: str = "0.32.0", **envs: Any) -> None:
        for name, module in vllm.modules(version, **envs).items():
            monkeypatch.setitem(sys.modules, name, module)

    return replace


@pytest.fixture(autouse=True)
def scratch(monkeypatch: pytest.MonkeyPatch, install: Install, tmp_path: Path) -> Path:
    """Return the scratch directory, which counts as memory; no test depends on this machine's swap."""
    install()
    root = tmp_path / f"scratch-{ids.token(8)}"
    root.mkdir()
    monkeypatch.setenv("TUNEWARDEN_SCRATCH", str(root))
    monkeypatch.setattr(mounts, "file_system_of", lambda _: mounts.FileSystem("tmpfs", frozenset()))
    monkeypatch.setattr(swap, "places", tuple)
    return root
