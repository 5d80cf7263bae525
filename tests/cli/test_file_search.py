"""`tunewarden files search`: over HTTP, with --data, and without a server; the texts come from a file or from stdin."""

import json
from io import BytesIO
from pathlib import Path

import pytest
from tests.cli import in_process
from tests.cli.in_process import over_http
from tests.support import fine_tuning_rows, servers
from tests.support.servers import Server

from tunewarden.app import App
from tunewarden.cli.exit_codes import ExitCode
from tunewarden.registry.files import Owner

CHATS = b'{"content":"Hi"}\n{"content":"I am Jos\\u00e9"}\n'


def _stored(app: App, key: str, content: bytes, name: str) -> str:
    caller = fine_tuning_rows.caller_of(app, key)
    owner = Owner(caller.organization_id, caller.project_id, caller.key_id)
    return app.files.store(owner, filename=name, purpose="user_data", reader=BytesIO(content)).id


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("josé\n\nnobody at all\n", "utf-8")
    return path


@pytest.mark.parametrize("by", ["directory", "address"])
def test_lines_are_named_by_a_running_server(server: Server, texts: Path, by: str) -> None:
    where = {"TUNEWARDEN_DATA": str(server.data)} if by == "directory" else over_http(server)
    file = _stored(server.app, server.owner_key, CHATS, f"{by}.jsonl")
    done = in_process.run_cli("files", "search", "--text-file", str(texts), settings=where)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert f"{file}\t2\t1\tjson\t{by}.jsonl" in done.stdout.splitlines()
    assert "lines in" in done.stderr
    assert "josé" not in done.stdout + done.stderr


def test_json_is_a_line_each_and_the_texts_may_come_from_stdin(server: Server) -> None:
    file = _stored(server.app, server.owner_key, CHATS, "stdin.jsonl")
    done = server.cli("files", "search", "--text-file", "-", "--json", stdin="José\n")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    matches = [one for one in found if one["object"] == "file.search.match"]
    assert {"file": file, "line": 2}.items() <= next(
        one for one in matches if one["file"] == file
    ).items()
    assert found[-1]["object"] == "file.search.summary"


def test_a_directory_is_searched_without_a_server(tmp_path: Path, texts: Path) -> None:
    data = tmp_path / "data"
    servers.prepare_local_base(data)
    app = servers.open_data(data)
    key = (data / "owner.key").read_text().strip()
    file = _stored(app, key, CHATS, "alone.jsonl")
    asked = ("files", "search", "--text-file", str(texts), "--data", str(data))
    done = in_process.run_cli(*asked)
    assert done.stdout == f"{file}\t2\t1\tjson\talone.jsonl\n", done.stderr
    # It read under the file's guard, which is released: the deletion is not held up by it.
    deleted = in_process.run_cli("files", "delete", file, "--yes", "--data", str(data))
    assert deleted.returncode == ExitCode.DONE, deleted.stderr
    assert in_process.run_cli(*asked).stdout == ""


@pytest.mark.parametrize("content", ["", "\n \n", "ab\n", "\xff"])
def test_texts_that_cannot_be_looked_for_are_refused(
    server: Server, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(content.encode("latin-1"))
    done = in_process.on(server, "files", "search", "--text-file", str(path))
    assert done.returncode in {ExitCode.USAGE, ExitCode.FAILED}
    assert done.stdout == ""


def test_a_reader_is_refused(server: Server, texts: Path) -> None:
    where = over_http(server) | {"OPENAI_API_KEY": server.make_key("reader")}
    done = in_process.run_cli("files", "search", "--text-file", str(texts), settings=where)
    assert done.returncode == ExitCode.REFUSED
