"""The vLLM that these tests run."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def program(request: pytest.FixtureRequest) -> Path:
    """Return the command `vllm` of the version that was asked for."""
    release = request.config.getoption("--vllm")
    found = ROOT / ".cache" / f"vllm-{release}" / "venv" / "bin" / "vllm"
    assert found.exists(), f"make test-vllm VLLM={release}"
    return found
