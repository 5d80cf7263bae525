"""One server for all tests of the console that leave it as it is: two workers, which share nothing but the data."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import administration, browser, console_targets, servers
from tests.support.browser import Found
from tests.support.console import Visitor
from tests.support.servers import Server, WithoutTorch


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("console") / "data"
    with servers.serving(data, workers=2, local_base=True, kind=WithoutTorch) as running:
        yield running


@pytest.fixture
def owner(server: Server) -> Visitor:
    return Visitor(server, server.owner_key)


@pytest.fixture(scope="session")
def targets(server: Server) -> dict[str, list[tuple[str, str]]]:
    """What stands for each name in a path. What changes something gets what is not there."""
    return console_targets.made(server)


@pytest.fixture(scope="module")
def admin_key(server: Server) -> str:
    return administration.make_admin_key(server.app)


@pytest.fixture(scope="module")
def admin(server: Server, admin_key: str) -> Visitor:
    """An Owner whose session administers the organization."""
    visitor = Visitor(server, server.owner_key)
    visitor.administer(admin_key)
    return visitor


@pytest.fixture(scope="module")
def found() -> Found:
    """The browser of this machine; skips where there is none."""
    return browser.found()


@pytest.fixture(scope="module")
def chromium(found: Found) -> Iterator[Any]:
    with browser.launched(found) as running:
        yield running
