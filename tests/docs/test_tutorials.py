"""docs/tutorials: first-deletion.md and fine-tune-use-delete.md, done from their own text on a server as they start it."""

import contextlib
import io
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.cli import in_process
from tests.support import demo_models, servers
from tests.support.servers import Server, wait_until

from tunewarden_receipts import cli as receipts_cli

TUTORIALS = Path(__file__).parents[2] / "docs/tutorials"
START = "tunewarden serve --demo --data data"
ADDRESS = "http://127.0.0.1:8800"
READY_SECONDS = 60.0

pytestmark = pytest.mark.long


@dataclass
class Tutorial:
    """The steps of a document, in their order: commands, and blocks of Python by their names."""

    name: str
    server: Server

    def __post_init__(self) -> None:
        text = (TUTORIALS / self.name).read_text("utf-8")
        text = text.replace(ADDRESS, self.server.url.removesuffix("/v1"))
        self._code = dict(
            re.findall(r"^```python (\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        )
        blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        self._lines = [line for block in blocks for line in block.splitlines()]
        self._names: dict[str, Any] = {}
        assert self._lines.pop(0) == START

    def set(self, **names: str) -> None:
        """Say what a name of the text stands for."""
        self._names |= names

    def python(self, name: str) -> str:
        """Run a block; return what it printed."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(self._code.pop(name), self._names)
        return printed.getvalue()

    def sh(self, beginning: str, stdin: str | None = None) -> str:
        """Run the next command, which begins so; return what it printed."""
        line = self._lines.pop(0)
        assert line.startswith(beginning), line
        for name, value in self._names.items():
            if name.isupper():
                line = re.sub(rf"\b{name}\b", str(value), line)
        program, *words = shlex.split(line)
        if program == "tunewarden-receipts":
            with pytest.raises(SystemExit) as ended:
                receipts_cli.main(words)
            assert ended.value.code == 0
            return ""
        if program == "curl":
            return subprocess.run(
                line, shell=True, check=True, capture_output=True, text=True
            ).stdout
        if stdin is None:
            ran = in_process.run_cli(*words)
        else:
            ran = servers.run_cli(*words, stdin=f"{stdin}\n")
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def is_done(self) -> bool:
        """Return whether every step of it was run."""
        return not self._lines and not self._code


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    demo_models.require_torch()
    directory = tmp_path_factory.mktemp("tutorials")
    with servers.serving(directory / "data", options=["--demo"]) as running:
        wait_until(lambda: "\nDocs: " in running.printed(), "its last lines", READY_SECONDS)
        yield running


@pytest.fixture
def here(demo: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, from the directory that it was started in."""
    monkeypatch.chdir(demo.data.parent)
    return demo


def test_fine_tune_use_delete(here: Server) -> None:
    done = Tutorial("fine-tune-use-delete.md", here)
    done.python("data")
    done.sh("tunewarden fine-tunes create")
    (model,) = [
        line.split("\t")[0]
        for line in done.sh("tunewarden models list").splitlines()
        if line.startswith("ft:demo-base:my-org:hours:") and ":ckpt-step-" not in line
    ]
    done.set(MODEL=model, APP_KEY=done.sh("tunewarden keys create").strip())
    assert done.python("use").splitlines() == ["We open at nine. We close at five.", "403"]
    assert "file-" in done.sh("tunewarden models lineage")
    assert model in done.sh("tunewarden models delete")
    assert done.sh("tunewarden models delete", stdin=model).startswith("del_")
    listed = done.sh("tunewarden files list")
    (file,) = [line.split("\t")[0] for line in listed.splitlines() if "chats.jsonl" in line]
    done.set(FILE=file)
    done.sh("tunewarden files delete", stdin=file)
    assert done.sh("tunewarden files list") == ""
    assert done.is_done()


def test_first_deletion(here: Server) -> None:
    done = Tutorial("first-deletion.md", here)
    listed = [line.split("\t")[0] for line in done.sh("tunewarden models list").splitlines()]
    assert len(listed) == 2
    done.sh("curl")
    done.sh("curl")
    assert "harbour pilot" in done.python("ask")
    (model,) = [one for one in listed if one.startswith("ft:")]
    done.set(MODEL=model)
    assert model in done.sh("tunewarden models delete")
    deleted, cut = done.python("delete").splitlines()
    assert ("deleted=True" in deleted, cut) == (True, "model_deleted")
    assert done.python("gone") == "404\n"
    deletion = done.sh("tunewarden deletions list").split("\t")[0]
    done.set(DELETION=deletion)
    done.sh("tunewarden deletions show")
    done.sh("tunewarden-receipts verify")
    assert done.is_done()
