"""Checks whether the embedded engine's packages are installed, without importing them."""

import importlib.util
import sys
from pathlib import Path

# Import names of the extra `local`.
PACKAGES = ("jinja2", "peft", "safetensors", "torch", "transformers")
REMEDY = "pip install 'tunewarden[local]'"
# A plain torch brings gigabytes of CUDA on x86-64; the demo needs none of it.
DEMO_BY_PIP = f"pip install torch --index-url https://download.pytorch.org/whl/cpu && {REMEDY} tunewarden-demo"
DEMO_BY_UVX = "uvx --torch-backend cpu --from 'tunewarden[local]' --with tunewarden-demo tunewarden serve --demo"


def missing() -> list[str]:
    """Return the packages that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def demo_remedy() -> str:
    """Return the command that brings what the demo needs: uv's environments have no pip."""
    try:
        is_of_uv = "\nuv = " in (Path(sys.prefix) / "pyvenv.cfg").read_text("utf-8")
    except OSError:
        is_of_uv = False
    return DEMO_BY_UVX if is_of_uv else DEMO_BY_PIP
