"""Who answers a command: a server at an address, the server of a data directory, or the application in this process."""

import hashlib
import json
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cli import in_process
from tests.fakes.cutting_proxy import CuttingProxy
from tests.support import bases, servers
from tests.support.servers import LOCAL_BASE, Server

from tunewarden.cli.exit_codes import ExitCode
from tunewarden.config import Config
from tunewarden.exclusive_use import with_no_server
from tunewarden.registry import models
from tunewarden.registry.drafts import Draft, Drafts

CLOSED = "http://127.0.0.1:9/v1"


def _adapter(directory: Path, adapter: bases.Adapter) -> Path:
    """Write an adapter as PEFT does; return its directory."""
    path = directory / "adapter"
    path.mkdir()
    (path / "adapter_config.json").write_bytes(adapter.config)
    (path / "adapter_model.safetensors").write_bytes(adapter.weights)
    return path


def test_an_answer_that_is_cut_short_is_no_answer(server: Server) -> None:
    with server.connect() as connection:
        key = server.owner_key
        request = f"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n"
        connection.sendall(request.encode())
        head = connection.recv(64 * 1024).partition(b"\r\n\r\n")[0]
    with CuttingProxy(server.address) as proxy:
        # The first answer says that it is a server of ours; the second one has a few bytes of its body.
        proxy.skip, proxy.lose, proxy.after_bytes = 1, 1, len(head) + 14
        settings = {"OPENAI_BASE_URL": proxy.url, "OPENAI_API_KEY": server.owner_key}
        ran = in_process.run_cli("models", "list", settings=settings)
    assert ran.returncode == ExitCode.UNAVAILABLE
    assert "gave no answer, or not all of it" in ran.stderr


# Without a server


def test_without_a_server_the_application_answers(data: Path, tmp_path: Path) -> None:
    servers.prepare_local_base(data)
    where = ("--data", str(data))
    adapter = _adapter(tmp_path, bases.adapter())
    imported = in_process.run_cli("models", "import", str(adapter), "--base", LOCAL_BASE, *where)
    model = imported.stdout.removesuffix("\n")
    assert "No server is running on this data directory" in imported.stderr
    assert f"id: {model}\n" in in_process.run_cli("models", "show", model, *where).stdout
    plan = in_process.run_cli("models", "delete", model, "--dry-run", *where)
    assert f"model: {model}\n" in plan.stdout
    deleted = in_process.run_cli("models", "delete", model, "--yes", *where)
    assert deleted.stdout.startswith("del_"), deleted.stderr
    missing = in_process.run_cli("models", "show", model, *where)
    assert missing.returncode == ExitCode.NOT_FOUND
    receipt = tmp_path / "receipt.json"
    deletion = deleted.stdout.removesuffix("\n")
    shown = in_process.run_cli("deletions", "show", deletion, "--receipt", str(receipt), *where)
    assert shown.returncode == 0
    verified = in_process.run_cli("receipts", "verify", str(receipt), "--json", *where)
    assert json.loads(verified.stdout)["disclosed"]["artifact_id"] == model


def test_a_server_and_the_application_answer_alike(data: Path, tmp_path: Path) -> None:
    commands = (
        ("models", "list"),
        ("models", "show", LOCAL_BASE),
        ("files", "list"),
        ("fine-tunes", "list"),
        ("deletions", "list"),
        ("models", "show", "ft:nobody"),
        ("files", "delete", "file-nobody", "--yes"),
    )

    def answers() -> list[tuple[int, str, str]]:
        ran = [in_process.run_cli(*one, "--data", str(data), "--json") for one in commands]
        return [(one.returncode, one.stdout, one.stderr) for one in ran]

    with servers.serving(data, local_base=True, kind=servers.WithoutTorch) as server:
        model = server.make_model()
        server.client().files.create(file=b"{}", purpose="user_data")
        server.client().models.delete(model.id)
        unfinished = "SELECT 1 FROM deletions WHERE blobs_erased_at IS NULL"
        # The list of deletions must not change between the two.
        servers.wait_until(lambda: server.app.database.peek(unfinished) is None, "it is erased")
        by_address = [
            in_process.run_cli(*one, "--json", settings=in_process.over_http(server))
            for one in commands
        ]
        served = answers()
    assert served == [(one.returncode, one.stdout, one.stderr) for one in by_address]
    assert answers() == served


def test_a_server_that_does_not_listen_is_no_obstacle(data: Path) -> None:
    """As one that is being stopped, or has used up its connections: what is asked here is safe beside it."""
    servers.prepare_local_base(data)
    with with_no_server(Config(data=data)):
        (data / "run" / "server.json").write_text(json.dumps({"url": CLOSED}))
        listed = in_process.run_cli("models", "list", "--data", str(data))
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.startswith(LOCAL_BASE)


def test_an_import_seals_what_it_checked_though_the_directory_changes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = bases.adapter("before"), bases.adapter("after")
    assert len(first.weights) == len(second.weights)
    servers.prepare_local_base(data)
    adapter = _adapter(tmp_path, first)
    file = adapter / "adapter_model.safetensors"
    importing = Drafts.importing

    @contextmanager
    def changing(drafts: Drafts, project_id: str, size: int) -> Iterator[Draft]:
        """Change the directory between the check and the sealing."""
        with importing(drafts, project_id, size) as draft, file.open("r+b") as weights:
            weights.write(second.weights)
            weights.flush()
            yield draft

    monkeypatch.setattr(Drafts, "importing", changing)
    imported = in_process.run_cli(
        "models", "import", str(adapter), "--base", LOCAL_BASE, "--data", str(data)
    )
    assert imported.returncode == 0, imported.stderr
    made = imported.stdout.removesuffix("\n")
    assert file.read_bytes() == second.weights, "the control"
    app = servers.open_data(data)
    row = app.database.peek("SELECT n, manifest FROM artifacts WHERE id = :id", id=made)
    assert row is not None
    with tempfile.TemporaryDirectory(dir="/dev/shm") as out:
        app.imports.unseal(models.by_n(app.database, row[0]), Path(out))
        stored = (Path(out) / "adapter_model.safetensors").read_bytes()
    assert hashlib.sha256(stored).hexdigest() == json.loads(row[1])["weights_sha256"]
    assert stored == first.weights


def test_a_data_directory_without_its_owners_key_says_what_to_set(data: Path) -> None:
    servers.prepare_local_base(data)
    (data / "owner.key").unlink()
    refused = in_process.run_cli("models", "list", "--data", str(data))
    assert refused.returncode == ExitCode.REFUSED
    assert "Set TUNEWARDEN_URL and TUNEWARDEN_API_KEY" in refused.stderr


@pytest.mark.parametrize("is_served", [True, False])
def test_what_is_no_text_is_refused_in_one_line(
    server: Server, data: Path, tmp_path: Path, is_served: bool
) -> None:
    if not is_served:
        servers.prepare_local_base(data)
    where = ("--data", str(server.data if is_served else data))
    adapter = str(_adapter(tmp_path, bases.adapter()))
    named = tmp_path / "\udcff.jsonl"
    named.write_bytes(b"{}")
    for command in (
        ("models", "show", "\udcff"),
        ("models", "delete", "\udcff", "--yes"),
        ("files", "list", "--purpose", "\udcff"),
        ("files", "upload", str(named)),
        ("models", "import", adapter, "--base", "\udcff"),
        ("fine-tunes", "create", "--model", "\udcff", "--file", "file-x"),
    ):
        refused = in_process.run_cli(*command, *where)
        assert refused.returncode in {ExitCode.FAILED, ExitCode.NOT_FOUND}, command
        assert refused.stdout == ""
        assert refused.stderr.startswith("Error: "), command
        assert refused.stderr.count("\n") == 1, command


# At an address


def test_our_names_come_before_the_sdks(server: Server) -> None:
    ours = {"TUNEWARDEN_URL": server.url, "TUNEWARDEN_API_KEY": server.owner_key}
    others = {"OPENAI_BASE_URL": CLOSED, "OPENAI_API_KEY": "sk-x"}
    for settings in (ours, ours | others, in_process.over_http(server)):
        listed = in_process.run_cli("models", "list", settings=settings)
        assert LOCAL_BASE in listed.stdout, listed.stderr
    root = {**ours, "TUNEWARDEN_URL": server.url.removesuffix("/v1")}
    assert LOCAL_BASE in in_process.run_cli("models", "list", settings=root).stdout
    # They are no settings of a server, so that its commands run beside them.
    assert in_process.on(server, "bases", "list", settings=ours).returncode == 0


def test_a_key_goes_to_the_address_beside_it_alone(server: Server) -> None:
    mixed = {"TUNEWARDEN_URL": server.url, "OPENAI_API_KEY": server.owner_key}
    refused = in_process.run_cli("models", "list", settings=mixed)
    assert refused.returncode == ExitCode.REFUSED
    assert refused.stderr == "Error: Set TUNEWARDEN_API_KEY beside TUNEWARDEN_URL.\n"


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1",
        "https://API.OpenAI.com./v1",
        "https://eu.api.openai.com/v1",
        "http://openai.com",
        "https://api。openai。com/v1",
        "https://ⓞpenai.com/v1",
        "https://my-resource.openai.azure.com/openai/v1",
    ],
)
def test_hosts_of_openai_are_refused_before_anything_is_sent(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected: list[object] = []
    monkeypatch.setattr(socket, "create_connection", lambda *where, **_: connected.append(where))
    for names in (
        ("OPENAI_BASE_URL", "OPENAI_API_KEY"),
        ("TUNEWARDEN_URL", "TUNEWARDEN_API_KEY"),
    ):
        settings = dict(zip(names, (url, "sk-x"), strict=True))
        for command in (("models", "delete", "ft:x", "--yes"), ("models", "list")):
            refused = in_process.run_cli(*command, settings=settings)
            assert refused.returncode == ExitCode.REFUSED
            assert "is OpenAI's" in refused.stderr
            assert "Set TUNEWARDEN_URL" in refused.stderr
    assert connected == []


def test_a_host_that_only_looks_like_openais_is_asked() -> None:
    settings = {"OPENAI_BASE_URL": "http://127.0.0.1:9/openai.com", "OPENAI_API_KEY": "sk-x"}
    refused = in_process.run_cli("models", "list", settings=settings)
    assert refused.returncode == ExitCode.UNAVAILABLE


def test_a_server_that_is_not_there_is_said_in_one_line() -> None:
    gone = {"OPENAI_BASE_URL": CLOSED, "OPENAI_API_KEY": "sk-x"}
    for arguments in (("models", "list"), ("deletions", "list")):
        refused = in_process.run_cli(*arguments, settings=gone)
        assert refused.returncode == ExitCode.UNAVAILABLE
        assert refused.stderr == f"Error: No server answers at {CLOSED}. Is it running?\n"


def test_an_address_that_is_none_is_said_in_one_line() -> None:
    for url in (
        "nonsense",
        "ftp://x/v1",
        "http://",
        "http://x:port/v1",
        "http://x:99999",
        "http://u:p@x/v1",
        "http://[::1",
    ):
        refused = in_process.run_cli(
            "models", "list", settings={"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "sk-x"}
        )
        assert refused.returncode == ExitCode.FAILED
        said = "is not a server's URL. Use one such as http://127.0.0.1:8800/v1."
        assert refused.stderr == f"Error: {url.rstrip('/')} {said}\n"


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (b"HTTP/1.0 404 Not Found\r\n\r\n<html>", ExitCode.REFUSED, "is not a Tunewarden server"),
        (b'HTTP/1.0 200 OK\r\n\r\n{"data": []}', ExitCode.REFUSED, "is not a Tunewarden server"),
        (b"HTTP/1.0 500 Oops\r\n\r\n", ExitCode.REFUSED, "is not a Tunewarden server"),
        (b"HTTP/1.0 502 Bad Gateway\r\n\r\n", ExitCode.UNAVAILABLE, "No server answers"),
        (b"no HTTP at all\r\n\r\n", ExitCode.UNAVAILABLE, "No server answers"),
    ],
)
@pytest.mark.parametrize(
    "command", [("models", "list"), ("models", "delete", "ft:x", "--yes"), ("files", "list")]
)
def test_a_stranger_gets_neither_a_key_nor_a_request_that_deletes(
    answer: bytes, status: int, said: str, command: tuple[str, ...]
) -> None:
    received = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        answering = threading.Thread(target=_answer_once, args=(listening, answer, received))
        answering.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        settings = {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "sk-secret"}
        refused = in_process.run_cli(*command, settings=settings)
        answering.join()
    assert refused.returncode == status
    assert said in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert received.startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert b"sk-secret" not in received
    assert b"DELETE" not in received


def _answer_once(listening: socket.socket, answer: bytes, received: bytearray) -> None:
    connection, _ = listening.accept()
    with connection:
        received += connection.recv(65536)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(65536):
            received += data


def test_a_server_says_that_it_is_one_of_ours_to_whoever_asks(server: Server) -> None:
    for key in (None, server.owner_key, "sk-wrong"):
        assert server.get("/v1/models", key=key).header("tunewarden-api") == "v1"


@pytest.mark.parametrize("command", [("keys", "list"), ("bases", "list"), ("doctor",)])
def test_a_command_of_the_servers_machine_is_refused_beside_a_servers_url(
    command: tuple[str, ...],
) -> None:
    settings = {"TUNEWARDEN_URL": CLOSED, "TUNEWARDEN_API_KEY": "sk-x"}
    refused = in_process.run_cli(*command, settings=settings)
    assert refused.returncode == ExitCode.REFUSED
    assert "give the data directory with --data" in refused.stderr
