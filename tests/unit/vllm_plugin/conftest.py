"""The modules of a vLLM that is not installed, and a scratch directory in memory."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import vllm

from tunewarden import ids, mounts, swap

Install = Callable[..., None]


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
