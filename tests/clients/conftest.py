"""The table of `make test-clients`."""

import pytest
from tests.clients.catalog import BROWSER, CLIENTS, Client
from tests.clients.running import Ran

COLUMNS = "{:<22} {:<12} {:<6} {:>7}  {}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "client" in metafunc.fixturenames:
        asked = _asked(metafunc.config)
        chosen = [one for one in CLIENTS if one.name in asked]
        metafunc.parametrize("client", chosen, ids=lambda one: one.name)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if BROWSER.name not in _asked(config):
        items[:] = [item for item in items if item.path.name != "test_browser.py"]


def _asked(config: pytest.Config) -> set[str]:
    """The names of the clients to try."""
    known = {one.name: one for one in (*CLIENTS, BROWSER)}
    asked = set(config.getoption("--clients").split()) or set(known)
    if "light" in asked:
        asked |= {name for name, one in known.items() if one.is_light}
    unknown = asked - {*known, "light"}
    if unknown:
        raise pytest.UsageError(f"no such clients: {', '.join(sorted(unknown))}")
    return asked


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        for name, value in report.user_properties
        if name == "client"
    ]
    if not rows:
        return
    terminalreporter.section("clients")
    terminalreporter.line(COLUMNS.format("client", "version", "works", "seconds", "what was done"))
    for client, ran in rows:
        terminalreporter.line(_row(client, ran))


def _row(client: Client, ran: Ran) -> str:
    works = "yes" if ran.works else "no"
    why = f"{client.does}; fails: {client.fails}" if client.fails else client.does
    return COLUMNS.format(client.name, client.version, works, f"{ran.seconds:.1f}", why)
