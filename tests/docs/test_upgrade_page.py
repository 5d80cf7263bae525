"""docs/how-to/upgrade.md: its blocks run, and the way back brings nothing back that was deleted after the upgrade."""

import re
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.support import servers
from tests.support.servers import Server

from tunewarden.cli.exit_codes import ExitCode

PAGE = (Path(__file__).parents[2] / "docs/how-to/upgrade.md").read_text("utf-8")
BLOCKS = {
    name: textwrap.dedent(code)
    for name, code in re.findall(r"^ *```sh (\w+)\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
}


def _follow(name: str, directory: Path) -> str:
    environment = servers.environment({}) | {
        "DATA": str(directory / "data"),
        "BACKUP": str(directory / "backup"),
        "NEWER": str(directory / "newer"),
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
    }
    ran = subprocess.run(
        ["sh", "-euc", BLOCKS[name]], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def _status(server: Server, model: str) -> int:
    return server.get(f"/v1/models/{model}", key=server.make_key("owner")).status


def test_there_and_back(tmp_path: Path) -> None:
    assert BLOCKS.keys() == {"before", "stopped", "check", "back"}
    data = tmp_path / "data"
    with servers.serving(data, local_base=True, kind=servers.WithoutTorch) as server:
        kept, gone = server.make_model().id, server.make_model().id
        _follow("before", tmp_path)
    _follow("stopped", tmp_path)
    with servers.serving(data, kind=servers.WithoutTorch) as server:
        assert kept in _follow("check", tmp_path)
        server.client().models.delete(gone)
        made = server.make_model().id
        owner_key = server.owner_key
        assert server.cli("audit", "list").returncode == 0
    (data / "tunewarden.toml").write_text("drain_seconds = 7\n")
    (data / "demo-base").mkdir()
    _written_by_a_newer_one(data)
    refused = servers.run_cli("serve", "--data", str(data), "--port", "0")
    assert refused.returncode == ExitCode.UNAVAILABLE
    assert "written by a newer Tunewarden" in refused.stderr
    data.rename(tmp_path / "newer")
    _follow("back", tmp_path)
    with servers.serving(data, kind=servers.WithoutTorch) as server:
        assert [_status(server, one) for one in (kept, gone, made)] == [200, 404, 404]
        # Nothing else of the directory is needed when it is erased.
        assert [one.id for one in server.client(owner_key).models.list()].count(kept) == 1
        assert kept in server.cli("models", "list").stdout
        assert _names(data) >= _names(tmp_path / "newer") - {"tunewarden.sqlite-writers"}
    swept = servers.run_cli("doctor", "--sweep", "--data", str(data))
    assert swept.returncode == 0, swept.stdout


def _names(data: Path) -> set[str]:
    return {one.name for one in data.iterdir()}


def _written_by_a_newer_one(data: Path) -> None:
    connection = sqlite3.connect(data / "tunewarden.sqlite")
    with connection:
        connection.execute("INSERT INTO migrations VALUES (9999, 'of a newer release', 0)")
    connection.close()


@pytest.mark.parametrize("word", ["`drain_seconds`", "`engine_version`"])
def test_what_it_names_is_there(word: str) -> None:
    assert word in PAGE
    pages = ("configuration.md", "errors.md")
    reference = Path(__file__).parents[2] / "docs/reference"
    assert any(word in (reference / page).read_text("utf-8") for page in pages)
