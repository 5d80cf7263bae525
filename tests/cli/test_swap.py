"""A server on a machine that swaps (I16). The kernel's list of swap devices is replaced in a mount namespace."""

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import openai
import pytest
from tests.support import bases, servers, uploading
from tests.support.servers import LOCAL_BASE, Server, wait_until
from tests.support.uploading import Field

from tunewarden.cli.exit_codes import ExitCode

SWAPS = (
    "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
    "/swap.img                               file\t\t8388604\t\t0\t\t-2\n"
)
NO_SWAPS = SWAPS.splitlines(keepends=True)[0]
SEEN = "SELECT at FROM swap_seen"
BESIDE = 'mount --bind "$0" /proc/swaps && exec "$@"'
NOT_HERE = "needs root and mount namespaces (unshare)"


@pytest.fixture
def list_of_swaps(tmp_path: Path) -> Path:
    """A file that stands where /proc/swaps is; a test may change it."""
    return _list(tmp_path)


@pytest.fixture(scope="module")
def swapping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that was started when nothing but a base was kept."""
    directory = tmp_path_factory.mktemp("swapping")
    prefix = _prefix(_list(directory))
    with servers.serving(
        directory / "data", prefix=prefix, local_base=True, kind=servers.WithoutTorch
    ) as running:
        yield running


def _list(directory: Path) -> Path:
    file = directory / "swaps"
    file.write_text(SWAPS)
    prefix = _prefix(file)
    try:
        tried = subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode
    except FileNotFoundError:
        tried = 1
    if tried != 0 or os.getuid() != 0:
        pytest.skip(NOT_HERE)
    return file


def _prefix(file: Path) -> Sequence[str]:
    return ("unshare", "--mount", "sh", "-c", BESIDE, str(file))


def _started(data: Path, file: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Start a server that is expected to refuse, and return how it ended."""
    command = [*_prefix(file), sys.executable, "-m", "tunewarden", "serve", "--port", "0"]
    return subprocess.run(
        [*command, "--data", str(data)],
        capture_output=True,
        text=True,
        timeout=30,
        env=servers.environment(settings),
        check=False,
    )


def test_a_server_with_other_peoples_weights_does_not_start(
    list_of_swaps: Path, data: Path
) -> None:
    servers.prepare_local_base(data)
    key = (data / "owner.key").read_text().strip()
    servers.import_adapter(servers.open_data(data), key)
    refused = _started(data, list_of_swaps)
    assert refused.returncode == ExitCode.UNAVAILABLE
    assert refused.stderr.startswith("Error: Memory may be swapped to /swap.img")
    assert "swap_may_hold_plain_weights" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_server_that_keeps_nothing_private_starts_and_warns(swapping: Server) -> None:
    assert "memory may be swapped to /swap.img" in swapping.log()
    models = swapping.client().models.list().data
    assert [one.id for one in models] == [LOCAL_BASE]


def test_the_demo_runs_where_memory_is_swapped_and_starts_again(
    list_of_swaps: Path, data: Path
) -> None:
    """Its weights are public: the two commands of the README work on a laptop that swaps."""
    pytest.importorskip("torch", reason="the demo needs the local engine")
    prefix = _prefix(list_of_swaps)
    with servers.serving(
        data, prefix=prefix, options=("--demo",), kind=servers.WithoutTorch
    ) as server:
        for starts in range(2):
            if starts:
                server.stop()
                server.start_again()
            listed = [one.id for one in server.client().models.list().data]
            [model] = [one for one in listed if one.startswith("ft:")]
            _answers(server, model)
        assert server.client().models.delete(model).deleted


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.files.create(file=("a.jsonl", b"{}"), purpose="fine-tune"),
        lambda client: client.uploads.create(
            bytes=2, filename="a.jsonl", mime_type="application/jsonl", purpose="fine-tune"
        ),
        lambda client: client.fine_tuning.jobs.create(model=LOCAL_BASE, training_file="file-x"),
    ],
    ids=["file", "upload", "job"],
)
def test_it_refuses_other_peoples_data_once_and_says_what_to_do(
    swapping: Server, ask: Callable[[openai.OpenAI], object]
) -> None:
    asked: list[str] = []
    client = swapping.client(max_retries=2)
    client._client.event_hooks["request"].append(lambda request: asked.append(str(request.url)))
    with pytest.raises(openai.InternalServerError) as refused:
        ask(client)
    assert len(asked) == 1, "trying again would not help"
    assert refused.value.status_code == 503
    assert refused.value.code == "memory_may_be_swapped"
    assert "memory.swap.max = 0" in refused.value.message


def test_it_refuses_an_import_over_http_and_on_the_command_line(
    swapping: Server, list_of_swaps: Path, tmp_path: Path
) -> None:
    adapter = bases.adapter()
    reply = uploading.post(
        swapping,
        "/v1/models",
        Field("base", LOCAL_BASE.encode()),
        Field("adapter_config", adapter.config, "adapter_config.json"),
        Field("adapter_model", adapter.weights, "adapter_model.safetensors"),
    )
    assert reply.status == 503
    assert reply.error["code"] == "memory_may_be_swapped"
    assert reply.header("x-should-retry") == "false"
    directory = tmp_path / "adapter"
    directory.mkdir()
    (directory / "adapter_config.json").write_bytes(adapter.config)
    (directory / "adapter_model.safetensors").write_bytes(adapter.weights)
    command = [
        "models",
        "import",
        str(directory),
        "--base",
        LOCAL_BASE,
        "--data",
        str(swapping.data),
    ]
    refused = subprocess.run(
        [*_prefix(list_of_swaps), sys.executable, "-m", "tunewarden", *command],
        capture_output=True,
        text=True,
        env=servers.environment({}),
        check=False,
    )
    assert refused.returncode == ExitCode.UNAVAILABLE
    assert "may swap memory to a disk" in refused.stderr
    assert len(swapping.client().models.list().data) == 1


def test_an_operator_can_accept_the_disk(list_of_swaps: Path, data: Path) -> None:
    settings = {"swap_may_hold_plain_weights": "true"}
    prefix = _prefix(list_of_swaps)
    with servers.serving(
        data, settings=settings, prefix=prefix, local_base=True, kind=servers.WithoutTorch
    ) as server:
        assert "as accepted" in server.log()
        assert server.client().files.create(file=b"{}", purpose="user_data").id
        model = server.make_model()
        body = {"model": model.id, "prompt": "Hello", "max_tokens": 1}
        wait_until(
            lambda: server.post("/v1/completions", body).status == 200, "the model answers", 60
        )


def test_swap_that_comes_later_keeps_weights_out_of_memory(list_of_swaps: Path, data: Path) -> None:
    list_of_swaps.write_text(NO_SWAPS)
    prefix = _prefix(list_of_swaps)
    with servers.serving(data, prefix=prefix, local_base=True, kind=servers.WithoutTorch) as server:
        loaded, other = server.make_model(), server.make_model()
        body = {"model": loaded.id, "prompt": "Hello", "max_tokens": 1}
        wait_until(
            lambda: server.post("/v1/completions", body).status == 200, "the model answers", 60
        )
        list_of_swaps.write_text(SWAPS)
        reply = server.post("/v1/completions", {**body, "model": other.id})
        assert reply.status == 503, "it is not in memory yet"
        assert reply.error["code"] == "memory_may_be_swapped"
        assert server.client().models.delete(other.id).deleted
        doctor = subprocess.run(
            [*prefix, sys.executable, "-m", "tunewarden", "doctor", "--data", str(data)],
            capture_output=True,
            text=True,
            env=servers.environment({}),
            check=False,
        )
        assert doctor.returncode == 1
        assert "FAIL swap: memory may be swapped to /swap.img" in doctor.stdout
        assert json.loads(reply.body)["error"]["type"] == "server_error"
        wait_until(lambda: server.app.database.peek(SEEN) != (0,), "the runner has noted it")
        list_of_swaps.write_text(NO_SWAPS)
        after = server.make_model()
        assert [_memory(server, one.id) for one in (loaded, after)] == ["swappable", "unswappable"]


def _answers(server: Server, model: str) -> None:
    """Return when a model answers."""
    body = {"model": model, "prompt": "Hello", "max_tokens": 1}
    wait_until(lambda: server.post("/v1/completions", body).status == 200, "the model answers")


def _memory(server: Server, model: str) -> str:
    """Delete a model; return what the leaf of its receipt says of memory."""
    path = f"/v1/models/{model}"
    deleted = server.request("DELETE", path, key=server.owner_key)
    assert deleted.status == 200
    deletion = deleted.header("tunewarden-deletion")
    receipt = server.get(f"/v1/deletions/{deletion}/receipt", key=server.owner_key).body
    payload = re.search(rb'"payload":"([^"]+)"', receipt)
    assert payload is not None
    said = json.loads(base64.b64decode(payload[1]))["predicate"]["memory"]
    assert isinstance(said, str)
    return said
