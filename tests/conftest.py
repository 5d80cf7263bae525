"""Fixtures that several suites share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import engines, servers
from tests.servers import Server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="Write the golden files anew instead of comparing with them.",
    )


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two workers and the tiny base, shared: leave no setting of it changed."""
    data = tmp_path_factory.mktemp("server") / "data"
    with servers.serving(data, workers=2, local_base=True) as running:
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory that does not exist yet."""
    return tmp_path / "data"


@pytest.fixture(scope="session")
def engine_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with four workers on the real embedded engine and the demo's base, shared."""
    data = tmp_path_factory.mktemp("engine-server") / "data"
    with engines.serving(data, workers=4) as running:
        yield running
