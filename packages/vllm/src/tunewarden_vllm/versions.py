"""Which versions of vLLM the plugin knows: it depends on parts of vLLM that are no public interface."""

from importlib import import_module

# Minor versions on which `make test-vllm` has run.
SUPPORTED = ("0.31", "0.32")


class NotSupported(Exception):
    """vLLM, or how it was started, is not what the plugin was tested on. The text says what is supported."""


def check(version: str) -> None:
    """Raise NotSupported for a version that is not known."""
    if ".".join(version.split(".")[:2]) not in SUPPORTED:
        known = ", ".join(f"{one}.x" for one in SUPPORTED)
        raise NotSupported(
            f"tunewarden-vllm does not know vLLM {version}: it was tested on {known}. Install one of these, or a release"
            " of tunewarden-vllm that names this version."
        )


def check_running() -> None:
    """Raise NotSupported if the vLLM of this process is not known."""
    check(import_module("vllm").__version__)
