"""`tunewarden tour`: what it shows is what it does, what it prints can be sent by others, and a lie is found."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.cli import in_process
from tests.cli.in_process import over_http
from tests.support import engines, servers
from tests.support.servers import Server, is_alive, wait_until

from tunewarden.cli import forms, tour, tour_command, tour_server
from tunewarden.cli.exit_codes import ExitCode
from tunewarden.cli.tour_calls import Calls, Reply
from tunewarden.errors import Error, Kind
from tunewarden_receipts import cli as receipts_cli

STEPS = ["make", "chat", "mark", "delete", "gone", "receipt", "log"]


def _taken(server: Server, *options: str) -> subprocess.CompletedProcess[str]:
    return in_process.run_cli("tour", *options, settings=over_http(server))


def _models(server: Server) -> list[str]:
    return sorted(model.id for model in server.client().models.list())


@pytest.fixture(scope="module")
def taken(engine_server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a tour says as JSON, and what it kept; another entry of the log comes before."""
    client = engine_server.client()
    client.models.delete(engines.import_model(engine_server, "zebra says"))
    before = _models(engine_server)
    keep = tmp_path_factory.mktemp("tour") / "kept"
    ran = _taken(engine_server, "--json", "--keep", str(keep))
    assert ran.returncode == 0, ran.stderr
    assert _models(engine_server) == before
    found: dict[str, Any] = json.loads(ran.stdout)
    calls = [call for one in found["steps"] for call in one["calls"]]
    return {**found, "kept": keep, "calls": calls}


def test_it_deletes_a_model_of_its_own_and_keeps_the_proof(taken: dict[str, Any]) -> None:
    assert [step["name"] for step in taken["steps"]] == STEPS
    found = {step["name"]: " ".join(step["found"]) for step in taken["steps"]}
    assert taken["model"] in found["make"]
    assert "model_deleted" in found["delete"]
    assert found["gone"].count("404 model_not_found") == 2
    assert "0 entries before" not in found["log"], "a proof of nothing"
    kept = taken["kept"]
    assert {one.name for one in kept.iterdir()} == {
        "receipt.json",
        "log.pem",
        "before.txt",
        "after.txt",
    }
    with pytest.raises(SystemExit) as ended:
        receipts_cli.main(
            ["verify", str(kept / "receipt.json"), "--log-key", str(kept / "log.pem")]
        )
    assert ended.value.code == 0


def test_the_stock_sdk_and_curl_do_what_it_printed(
    taken: dict[str, Any], engine_server: Server, tmp_path: Path
) -> None:
    """Its lines are run again, for another model: they are no decoration."""
    model = engines.import_model(engine_server, "zebra says")
    client = engine_server.client(max_retries=0)
    lines = [call.replace(taken["model"], model) for call in taken["calls"]]
    lines = [line for line in lines if "client." in line]
    chat, stream, delete, *gone = lines
    run: dict[str, Any] = {"client": client}
    assert eval(chat, run).choices[0].message.content
    exec(stream, run)
    next(run["stream"])
    assert eval(delete, run).deleted
    with pytest.raises(openai.APIError) as cut:
        list(run["stream"])
    assert cut.value.code == "model_deleted"
    for line in gone:
        with pytest.raises(openai.NotFoundError):
            eval(line, run)
    if shutil.which("curl") is None:
        return
    curl = [call for call in taken["calls"] if call.startswith("curl")]
    assert len(curl) == 4
    for line in curl:
        ran = subprocess.run(
            line, shell=True, cwd=tmp_path, env={"KEY": engine_server.owner_key}, check=False
        )
        assert ran.returncode == 0
    for name in ("receipt.json", "log.pem"):
        assert (tmp_path / name).read_bytes() == (taken["kept"] / name).read_bytes()


def test_a_person_reads_the_same(engine_server: Server, taken: dict[str, Any]) -> None:
    ran = in_process.on(engine_server, "tour")
    assert ran.returncode == 0, ran.stderr
    assert f'client = OpenAI(base_url="{engine_server.url}", api_key=KEY)' in ran.stdout
    assert f"KEY is in {engine_server.data / 'owner.key'}" in ran.stdout
    assert engine_server.owner_key not in ran.stdout
    assert ran.stdout.count("\n   > ") == len(taken["calls"])
    refused = _taken(engine_server, "--keep", str(taken["kept"]))
    assert (refused.returncode, "is not empty" in refused.stderr) == (ExitCode.USAGE, True)


def _lying(monkeypatch: pytest.MonkeyPatch, method: str, part: str, answer: Reply) -> None:
    """Have the server answer requests after the deletion with this."""
    real = Calls.send
    deleted: list[str] = []

    def send(self: Calls, verb: str, path: str, fields: object = None) -> Reply:
        if deleted and verb == method and part in path:
            return answer
        deleted.extend([path] * (verb == "DELETE"))
        return real(self, verb, path, fields)

    monkeypatch.setattr(Calls, "send", send)


@pytest.mark.parametrize(
    ("method", "part", "said"),
    [
        ("POST", "/chat/completions", "The server answered 200, not 404."),
        ("GET", "/models/", "The server answered 200, not 404."),
        ("GET", "/receipt", "not canonical JSON"),
    ],
)
def test_what_is_not_as_it_says_is_found(
    engine_server: Server, monkeypatch: pytest.MonkeyPatch, method: str, part: str, said: str
) -> None:
    _lying(monkeypatch, method, part, Reply(200, {}, b'{"a": 1}'))
    ran = _taken(engine_server)
    assert (ran.returncode, said in ran.stderr) == (ExitCode.FAILED, True), ran.stderr


def test_a_log_that_was_rewritten_is_found(
    engine_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Calls.fetch

    def fetch(self: Calls, path: str) -> bytes:
        found = real(self, path)
        return found[::-1] if "tile" in path else found

    monkeypatch.setattr(Calls, "fetch", fetch)
    ran = _taken(engine_server)
    assert ran.returncode == ExitCode.FAILED
    assert "The log was not only appended to" in ran.stderr


def test_a_tour_that_fails_leaves_no_model(
    engine_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _models(engine_server)
    monkeypatch.setattr(
        Calls, "fetch", lambda _, path: (_ for _ in ()).throw(Error(Kind.UNAVAILABLE, path))
    )
    assert _taken(engine_server).returncode == ExitCode.UNAVAILABLE
    assert _models(engine_server) == before


def test_what_a_killed_tour_left_is_removed_by_a_later_one_and_nothing_else(
    engine_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    namesake = engines.import_model(engine_server, "zebra says", suffix="tour")
    before = _models(engine_server)
    settings = servers.environment({}) | over_http(engine_server)
    command = [sys.executable, "-u", "-m", "tunewarden", "tour"]
    killed = subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    assert any("answers the stock openai SDK" in line for line in killed.stdout)
    killed.kill()
    killed.wait()
    killed.stdout.close()
    (left,) = set(_models(engine_server)) - set(before)
    assert _taken(engine_server).returncode == 0
    assert left in _models(engine_server), "it may be running"
    monkeypatch.setattr(tour, "LEFT_SECONDS", -1)
    ran = _taken(engine_server)
    assert f"{left} was left by a tour that was killed: removed." in ran.stdout
    assert _models(engine_server) == before
    assert namesake in before


def test_an_address_without_a_path_is_printed_as_the_sdk_needs_it(engine_server: Server) -> None:
    root = engine_server.url.removesuffix("/v1")
    settings = {"TUNEWARDEN_URL": root, "TUNEWARDEN_API_KEY": engine_server.owner_key}
    ran = in_process.run_cli("tour", settings=settings)
    assert ran.returncode == 0, ran.stderr
    assert f'OpenAI(base_url="{engine_server.url}", api_key=KEY)' in ran.stdout


def test_where_nothing_may_be_imported_it_takes_a_server_of_its_own(
    engine_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refusals = forms.import_adapter, ["This server's machine may swap memory."]

    def imported(*given: Any) -> Any:
        if refusals:
            raise Error(Kind.FORBIDDEN, refusals.pop(), code=tour_command.SWAPPED)
        return real(*given)

    @contextmanager
    def own() -> Iterator[tuple[str, str, str]]:
        yield engine_server.url, engine_server.owner_key, "there"

    monkeypatch.setattr(forms, "import_adapter", imported)
    monkeypatch.setattr(tour_command, "_own_server", own)
    ran = _taken(engine_server)
    assert ran.returncode == 0, ran.stderr
    assert "may swap memory.\nThe demo's weights are public" in ran.stderr


def test_without_a_demo_it_says_which_command_starts_one(server: Server, tmp_path: Path) -> None:
    refused = _taken(server)
    assert refused.returncode == ExitCode.NOT_FOUND
    assert "tunewarden serve --demo --data NEW_DIRECTORY" in refused.stderr
    nowhere = in_process.run_cli("tour", "--data", str(tmp_path / "data"))
    assert nowhere.returncode == ExitCode.UNAVAILABLE
    assert f"tunewarden serve --demo --data {tmp_path / 'data'}" in nowhere.stderr
    reader = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-tw-none"}
    assert in_process.run_cli("tour", settings=reader).returncode == ExitCode.REFUSED


def test_where_no_server_runs_it_starts_one_and_leaves_nothing(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    temporary = Path(tempfile.mkdtemp(prefix="tour-", dir="/tmp"))
    command = [sys.executable, "-m", "tunewarden", "tour", "--json"]
    # A setting of the user's own server, which the tour's must not have.
    settings = {"PORT": "1", "SCRATCH": "/nowhere"}
    environment = servers.environment(settings) | {"TMPDIR": str(temporary)}
    started = subprocess.Popen(
        command,
        cwd=here,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said, errors = started.communicate(timeout=120)
    assert started.returncode == 0, errors
    assert json.loads(said)["model"].startswith("ft:demo-base:my-org:tour:")
    assert [*temporary.iterdir(), *here.iterdir()] == []
    killed = subprocess.Popen(
        command, cwd=here, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: list(temporary.rglob("server.json")), "its server has started", 60)
    family = servers.descendants(killed.pid)
    assert family
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    wait_until(lambda: not any(map(is_alive, family)), "its server ends with it")
    shutil.rmtree(temporary)


def test_a_temporary_directory_may_be_too_deep_for_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    made = tour_server._new_directory()
    made.rmdir()
    assert (made.parent, list(deep.iterdir())) == (Path("/tmp"), [])
