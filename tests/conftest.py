"""Fixtures that several suites share. Their imports are their own: tests that need no server load none."""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING

import pytest
from tests import groups

from tunewarden import swap

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.servers import Server
    from xdist.remote import Producer
    from xdist.scheduler import Scheduling

# Of torch in this process, before it is loaded: test files run side by side, and threads that wait for each other
# spin while another process has their core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Without torch (`make pythons`, a bare `make quick`), what needs the engine is left out.
HAS_ENGINE = importlib.util.find_spec("torch") is not None
collect_ignore = [] if HAS_ENGINE else list(groups.NEED_ENGINE)


def pytest_configure() -> None:
    from hypothesis import HealthCheck, settings  # noqa: PLC0415  a sixth of a second: only where tests run

    # On a busy machine one example may take as long as it likes.
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="Write the golden files anew instead of comparing with them.",
    )
    parser.addoption(
        "--group",
        choices=["quick", "test", "batteries", "vllm", "clients", "image", "uvx", "fuzz"],
        help="Only what `make quick`, `make test`, `make batteries`, `make test-vllm`, `make test-clients`, `make test-image` or `make fuzz-api` runs.",
    )
    parser.addoption(
        "--clients",
        default="",
        help="Names of the clients that `make test-clients` tries; light: those of CI.",
    )
    parser.addoption(
        "--openapi", default="", help="OpenAI's description of its API, for `make fuzz-api`."
    )
    parser.addoption(
        "--vllm", default="0.32", help="The minor version of vLLM that `make test-vllm` installed."
    )
    parser.addoption(
        "--deletes", type=int, default=20, help="Deletions under load, on a real vLLM."
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    from tests import scheduling  # noqa: PLC0415  only where it is needed

    return scheduling.ByServer(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    group = config.getoption("--group")
    if group is None or not collection_path.name.startswith("test_"):
        return None
    return None if groups.has(group, collection_path) else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--group") == "quick":
        long = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
    items.sort(key=lambda item: groups.rank(item.path))


@pytest.fixture(autouse=True, scope="session")
def _nothing_is_swapped() -> Iterator[None]:
    """Test the same on a machine that swaps: what tests keep is no secret (servers.py for other processes)."""
    with pytest.MonkeyPatch.context() as patch:
        if swap.places():
            from tests.support import servers  # noqa: F401, PLC0415  which looks for itself, before

            patch.setattr(swap, "places", lambda: ())
        yield


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two workers and the tiny base on the engine's stand-in, shared: leave no setting of it changed."""
    from tests.support import servers  # noqa: PLC0415  only where it is needed

    data = tmp_path_factory.mktemp("server") / "data"
    with servers.serving(data, workers=2, local_base=True, kind=servers.WithoutTorch) as running:
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory that does not exist yet."""
    return tmp_path / "data"


@pytest.fixture(scope="session")
def engine_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with four workers on the real embedded engine and the demo's base, shared."""
    from tests.support import demo_models, engines  # noqa: PLC0415  only where it is needed

    demo_models.require_torch()
    data = tmp_path_factory.mktemp("engine-server") / "data"
    with engines.serving(data, workers=4) as running:
        yield running
