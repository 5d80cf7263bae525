"""A pytest plugin for the SDK's suite, whose files stay as they are. It knows nothing of the server.

Before each test it asks, over a Unix socket, for the data that the test's fixed ids are to find; after
the last one it tells what came of each. It gives the suite's clients keys that are keys, and lets the
requests that the suite would answer itself (contents of files) go to the server.
"""

import json
import os
import socket
import sys
from typing import IO

import pytest


class Seeds:
    """The plugin, with its connection."""

    def __init__(self) -> None:
        self._outcomes: dict[str, tuple[str, str]] = {}
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(os.environ["TEST_SEEDS_SOCKET"])
        self._stream: IO[str] = self._socket.makefile("rw")

    def _ask(self, **fields: object) -> dict[str, object]:
        self._stream.write(json.dumps(fields) + "\n")
        self._stream.flush()
        answer: dict[str, object] = json.loads(self._stream.readline())
        return answer

    def pytest_sessionstart(self) -> None:
        suite = sys.modules["tests.conftest"]
        suite.api_key = os.environ["TEST_SEEDS_KEY"]  # type: ignore[attr-defined]  # the suite's own module
        suite.admin_api_key = os.environ["TEST_SEEDS_ADMIN_KEY"]  # type: ignore[attr-defined]  # the same
        route = sys.modules["tests.respx2.models"].Route
        route.mock = lambda self, *_, **__: self.pass_through()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            self._outcomes[item.nodeid] = ("never run", "")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        answer = self._ask(before=item.nodeid)
        if "problem" in answer:
            raise RuntimeError(f"The data could not be restored: {answer['problem']}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            was = self._outcomes[report.nodeid][0]
            # What passed and then could not be torn down has not passed.
            if was in {"never run", "passed"}:
                self._outcomes[report.nodeid] = (report.outcome, report.longreprtext)

    def pytest_sessionfinish(self) -> None:
        self._ask(outcomes=self._outcomes)
        self._stream.close()
        self._socket.close()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Seeds())
