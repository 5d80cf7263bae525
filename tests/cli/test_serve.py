"""`tunewarden serve` from its first start to its end, however it ends."""

import base64
import hashlib
import json
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
from tests.cli import in_process, terminal
from tests.support import servers
from tests.support.servers import LOCAL_BASE, ORGANIZATION, Server, is_alive, wait_until

from tunewarden.cli.exit_codes import ExitCode
from tunewarden.config import Config
from tunewarden.identity import key_format, session_rows
from tunewarden.server import start_checks


def _workers(server: Server) -> list[int]:
    return [pid for pid in server.processes()[1:] if "tunewarden.server.worker" in _command(pid)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_the_first_start_makes_an_owner_and_says_how_to_use_the_server(data: Path) -> None:
    with servers.serving(data) as server:
        wait_until(lambda: f"answers at {server.url}" in server.printed(), "it says so")
        assert "tunewarden bases add NAME" in server.printed()
        assert f"The Owner key is in {data}/owner.key" in server.printed()
        assert key_format.FORMAT.fullmatch(server.owner_key)
        assert server.client().models.list().data == []
        assert _last_lines(server)["Next"].startswith("no base model yet: tunewarden bases add ")
        mode = stat.S_IMODE((data / "owner.key").stat().st_mode)
        assert oct(mode) == "0o600"
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        key = server.owner_key
        server.stop()
        server.start_again()
        wait_until(lambda: server.printed().count("Tunewarden answers at") == 2, "it says so again")
        assert server.owner_key == key
        assert key not in server.log() + server.printed(), "a service's output is kept in logs"
        server.stop()
        (data / "owner.key").unlink()
        server.start_again()
        wait_until(lambda: f"{data}/owner.key is not there." in server.printed(), "it says so")
        advised = f"keys create --role owner --name owner --data {data}"
        assert advised in server.printed()
        assert servers.run_cli(*advised.split()).returncode == 0


def _last_lines(server: Server) -> dict[str, str]:
    """Return the five lines that a server's output ends with, by their names."""
    wait_until(lambda: "\nDocs: " in server.printed(), "the last lines are printed")
    last = [line.partition(":") for line in server.printed().splitlines()[-5:]]
    return {name: text.strip() for name, _, text in last}


def test_it_ends_with_its_address_the_fingerprint_of_its_log_a_command_and_documents(
    server: Server,
) -> None:
    last = _last_lines(server)
    assert list(last) == ["API", "Console", "Log key", "Next", "Docs"]
    assert last["API"] == server.url
    # A link that signs in is for a terminal: this goes to logs.
    console = f"{server.url[: -len('/v1')]}/console"
    said = f"{console} (sign in with: tunewarden console link --data {server.data})"
    assert last["Console"] == said
    pem = server.get("/.well-known/tunewarden-log-key").body.splitlines()
    digest = hashlib.sha256(base64.b64decode(pem[1])).hexdigest()
    assert last["Log key"].split()[0] == f"sha256:{digest}"
    assert last["Next"] == f"tunewarden keys create --role reader --name app --data {server.data}"
    assert last["Docs"].startswith("docs/index.md of the release"), "not what needs a key"
    assert (Path(__file__).parents[2] / "docs/index.md").exists()
    docs = last["Docs"].split()[-1].removeprefix(server.url[: -len("/v1")])
    assert server.get(docs, key=server.owner_key).status == 200
    (made, *_) = servers.run_cli(*shlex.split(last["Next"])[1:]).stdout.splitlines()
    assert key_format.FORMAT.fullmatch(made)


def test_a_terminal_shows_the_first_key_once_and_each_time_a_link_to_the_console(
    data: Path,
) -> None:
    shown = []
    for _ in range(2):
        with terminal.running("serve", "--port", "0", data=data) as running:
            running.wait_for("Docs: ")
            running.interrupt()
            assert running.end() == 0
            shown.append(running.shown)
    key = (data / "owner.key").read_text().strip()
    assert [text.count(key) for text in shown] == [1, 0]
    links = [re.findall(r"/console/links/(\w{43}) \(signs in once", text) for text in shown]
    assert [len(found) for found in links] == [1, 1]
    with servers.open_data(data).database.read() as tx:
        (first,), (second,) = links
        assert session_rows.key_of_link(tx, first) == session_rows.key_of_link(tx, second)
        assert session_rows.key_of_link(tx, second) == f"key_{key.split('-')[2]}"


@pytest.mark.parametrize(
    ("host", "is_warned"),
    [
        ("0.0.0.0", True),
        ("::", True),
        ("gateway.example", True),
        ("::1", False),
        ("localhost", False),
    ],
)
def test_plain_http_beyond_loopback_is_warned_of(
    host: str, *, is_warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    start_checks.warn_of_plain_http(Config(host=host))
    assert ("speaks plain HTTP" in caplog.text) is is_warned


def test_the_snippet_names_the_newest_model(data: Path) -> None:
    pytest.importorskip("torch", reason="the engine must answer")
    servers.prepare_local_base(data)
    app = servers.open_data(data)
    key = (data / "owner.key").read_text().strip()
    model = servers.import_adapter(app, key, suffix="shown")
    with servers.serving(data) as server:
        wait_until(lambda: model.id in server.printed(), "the snippet is printed")
        assert f'client.models.delete("{model.id}")' in server.printed()
        assert f'OpenAI(base_url="{server.url}"' in server.printed()
        # Whoever pastes it at once gets an answer: it comes when the engine has the base.
        assert f"Loading {LOCAL_BASE}" in server.printed().partition("from openai")[0]
        body = {"model": model.id, "prompt": "Hello", "max_tokens": 1}
        assert server.post("/v1/completions", body).status == 200


def test_a_second_server_on_the_same_data_is_refused(server: Server) -> None:
    before = (server.data / "run" / "server.json").read_bytes()
    second = servers.run_cli("serve", "--data", str(server.data), "--port", "0")
    assert second.returncode == ExitCode.CONFLICT
    assert second.stderr == f"Error: A server is already running on {server.data}.\n"
    # The same on the port of the first, which is the usual mistake.
    third = servers.run_cli("serve", "--data", str(server.data), "--port", str(server.address[1]))
    assert (third.returncode, third.stderr) == (second.returncode, second.stderr)
    assert (server.data / "run" / "server.json").read_bytes() == before
    assert server.get("/readyz").status == 200


def test_a_port_in_use_is_said_in_one_line_and_nothing_is_made(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = servers.run_cli("serve", "--data", str(data), "--port", port)
    assert refused.returncode == ExitCode.UNAVAILABLE
    assert refused.stderr.startswith(f"Error: Cannot listen on 127.0.0.1:{port}: ")
    assert refused.stderr.count("\n") == 1
    assert not data.exists()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_in_order(data: Path, how: signal.Signals) -> None:
    with servers.serving(data, workers=2) as server:
        # Each that the fork server starts is two for a moment.
        wait_until(lambda: len(server.processes()) == 5, "fork server, two workers, runner")
        family = server.processes()
        # A client that keeps its connection open must not hold the stop up.
        kept = HTTPConnection(*server.address, timeout=5)
        kept.request("GET", "/healthz")
        kept.getresponse().read()
        server.process.send_signal(how)
        assert server.process.wait(timeout=8) == 0
        kept.close()
        assert [pid for pid in family if is_alive(pid)] == []
        assert "Traceback" not in server.log()


def test_ctrl_c_while_the_demo_is_trained_ends_it_without_a_traceback(data: Path) -> None:
    pytest.importorskip("torch", reason="the demo is trained")
    command = [sys.executable, "-m", "tunewarden", "serve", "--demo-train", "--data", str(data)]
    with subprocess.Popen(
        [*terminal.HEARING_CTRL_C, *command, "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env=servers.environment({}),
        start_new_session=True,
    ) as process:
        below = servers.descendants
        wait_until(
            lambda: any("tunewarden.demo" in _command(one) for one in below(process.pid)),
            "the demo is being trained",
        )
        family = below(process.pid)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
        _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "Traceback" not in said
    assert [pid for pid in family if is_alive(pid)] == []


def test_a_killed_supervisor_leaves_no_process(data: Path) -> None:
    with servers.serving(data, workers=2, local_base=True) as server:
        wait_until(lambda: len(server.processes()) == 6, "the engine is started too")
        family = server.processes()
        server.kill()
        wait_until(lambda: not [pid for pid in family if is_alive(pid)], "all have ended", 5)
        server.start_again()
        assert server.client().models.list().data[0].id == LOCAL_BASE


def test_a_killed_worker_is_started_again_and_requests_go_on(data: Path) -> None:
    with servers.serving(data, workers=2) as server:
        stop = threading.Event()
        failures: list[str] = []
        counts = [0]

        def ask() -> None:
            while not stop.is_set():
                try:
                    status = server.get("/v1/models", key=server.owner_key).status
                    counts[0] += 1
                except (OSError, HTTPException):
                    continue  # it was the one that is killed
                if status != 200:
                    failures.append(f"status {status}")

        asking = threading.Thread(target=ask)
        asking.start()
        for _ in range(3):
            victim = _workers(server)[0]
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: len(_workers(server)) == 2 and not is_alive(victim), "two again")  # noqa: B023  called at once
            before = counts[0]
            wait_until(lambda: counts[0] > before + 5, "requests go on")  # noqa: B023  called at once
        stop.set()
        asking.join()
        print(f"{counts[0]} requests were answered while 3 workers were killed")
        assert failures == []


def test_a_stopped_worker_holds_up_no_new_connection(data: Path) -> None:
    with servers.serving(data, workers=2) as server:
        stopped = _workers(server)[0]
        os.kill(stopped, signal.SIGSTOP)
        try:
            assert {server.get("/healthz").status for _ in range(20)} == {200}
        finally:
            os.kill(stopped, signal.SIGCONT)


def test_the_runner_is_started_again_too(data: Path) -> None:
    def runner() -> list[int]:
        return [one for one in server.processes() if "tunewarden.server.runner" in _command(one)]

    with servers.serving(data, local_base=True, kind=servers.WithoutTorch) as server:
        wait_until(runner, "the runner runs")
        killed = runner()
        os.kill(killed[0], signal.SIGKILL)
        wait_until(lambda: runner() not in ([], killed), "it runs again")
        model = server.make_model()
        server.client().models.delete(model.id)
        blobs = f"{model.internal_id}/"
        wait_until(lambda: not server.app.blobs.names(blobs), "it erases blobs")


def test_settings_come_from_flags_then_environment_then_file(data: Path) -> None:
    data.mkdir(mode=0o700)
    (data / "tunewarden.toml").write_text('workers = 3\nhost = "127.0.0.2"\nport = 1\n')
    with servers.serving(data, workers=1, settings={"host": "127.0.0.3"}) as server:
        assert len(_workers(server)) == 1
        assert server.address[0] == "127.0.0.3"


REFUSED: dict[str, tuple[dict[str, str], str, str]] = {
    "an unknown setting": ({"TUNEWARDEN_PROT": "1"}, "", "Unknown setting 'prot'"),
    "text for a number": ({"TUNEWARDEN_WORKERS": "many"}, "", "'workers' must be"),
    "no worker": ({"TUNEWARDEN_WORKERS": "0"}, "", "'workers' must be"),
    "a negative time": ({"TUNEWARDEN_FENCE_SECONDS": "-1"}, "", "'fence_seconds' must be"),
    "no number at all": ({"TUNEWARDEN_FENCE_SECONDS": "nan"}, "", "'fence_seconds' must be"),
    "endless": ({"TUNEWARDEN_DELETION_SECONDS": "inf"}, "", "'deletion_seconds' must be"),
    "yes for true": ({"TUNEWARDEN_SCRATCH_MAY_BE_A_DISK": "yes"}, "", "must be true or false"),
    "a port that is none": ({"TUNEWARDEN_PORT": "99999"}, "", "'port' must be"),
    "a type that is none": ({"TUNEWARDEN_ENGINE_DTYPE": "int3"}, "", "'engine_dtype' must be"),
    "an unknown setting in the file": ({}, "wrokers = 1", "Unknown setting 'wrokers'"),
    "a boolean for a number": ({}, "workers = true", "'workers' must be"),
    "a fraction for a number": ({}, "workers = 1.5", "'workers' must be"),
    "a number for text": ({}, "host = 5", "'host' must be"),
    "a list for a flag": ({}, "scratch_may_be_a_disk = []", "must be true or false"),
    "a number for a path": ({}, "scratch = 5", "'scratch' must be"),
    "no TOML": ({}, "workers =", "is not valid TOML"),
    "a file that is not text": ({}, "\udcff", "is not valid TOML"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_wrong_setting_is_refused_in_one_line(data: Path, what: str) -> None:
    environment, file, said = REFUSED[what]
    data.mkdir(mode=0o700)
    if file:
        (data / "tunewarden.toml").write_text(file, "utf-8", errors="surrogateescape")
    command = ["serve", "--data", str(data), *(["--port", "0"] if "port" not in said else [])]
    refused = in_process.run_cli(*command, settings=environment)
    assert refused.returncode == 1
    assert said in refused.stderr
    assert refused.stderr.startswith("Error: ")
    assert refused.stderr.count("\n") == 1, refused.stderr
    assert not (data / "tunewarden.sqlite").exists()


def test_a_server_beside_commands_that_look_for_it_starts_all_the_same(data: Path) -> None:
    """`bases add &` looks whether a server runs, by its lock: that must never keep one from starting."""
    with servers.serving(data) as server:
        server.stop()
        stop = threading.Event()
        looking = threading.Thread(target=_look, args=(data, stop.is_set))
        looking.start()
        try:
            for _ in range(3):
                server.start_again()
                server.stop()
        finally:
            stop.set()
            looking.join()


def _look(data: Path, is_over: Callable[[], bool]) -> None:
    from tunewarden.cli import data_directory  # noqa: PLC0415  in the process that is timed
    from tunewarden.config import Config  # noqa: PLC0415  in the process that is timed

    while not is_over():
        data_directory.server_url(Config(data=data))


def test_where_the_server_listens_is_noted_for_commands(server: Server) -> None:
    noted = json.loads((server.data / "run" / "server.json").read_text())
    assert (noted["url"], noted["pid"]) == (server.url, server.process.pid)
    assert server.cli("models", "list").stdout.startswith(f"{LOCAL_BASE}\tsystem\t")
    assert ORGANIZATION in server.cli("keys", "list").stdout
