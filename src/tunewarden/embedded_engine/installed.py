"""Checks whether the embedded engine's packages are installed, without importing them."""

import importlib.util

# Import names of the extra `local`.
PACKAGES = ("jinja2", "peft", "safetensors", "torch", "transformers")
REMEDY = "pip install 'tunewarden[local]'"


def missing() -> list[str]:
    """Return the packages that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]
