"""Four real vLLM behind one gateway: a deletion reaches all of them, and one is killed. They need 11 GB of memory."""

import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.support import demo_models, fleets, servers
from tests.support.pushed_models import Pushed
from tests.support.servers import WithoutTorch
from tests.vllm.running import BASE, PLUGIN, Vllm, running

KEY = "key-of-the-engines"
REPLICAS = 4
MEMORY_KIB = 12 * 1024**2


@pytest.fixture(scope="module")
def engines(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Vllm]]:
    available = re.search(r"MemAvailable: +(\d+)", Path("/proc/meminfo").read_text("utf-8"))
    assert available is not None
    if int(available[1]) < MEMORY_KIB:
        pytest.skip(f"four vLLM need {MEMORY_KIB // 1024**2} GB of memory")
    with ExitStack() as stack:
        found = []
        for _ in range(REPLICAS):
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            directory, more = tmp_path_factory.mktemp("engine"), {"VLLM_API_KEY": KEY}
            started = running(program, directory, *PLUGIN, port=port, more=more)
            found.append(stack.enter_context(started))
        yield found


def test_a_deletion_reaches_four_replicas_and_one_may_die(
    engines: list[Vllm], tmp_path: Path
) -> None:
    key_file = tmp_path / "engine.key"
    key_file.write_text(KEY)
    with servers.serving(tmp_path / "data", kind=WithoutTorch) as server:
        urls = [f"http://127.0.0.1:{one.listens}/v1" for one in engines]
        options = [part for url in urls for part in ("--engine-url", url)]
        done = server.cli("bases", "add", BASE, *options, "--engine-key-file", str(key_file))
        assert done.returncode == 0, done.stderr
        pushed = Pushed(server, BASE)
        fleets.deleted_everywhere_while_one_dies(
            pushed,
            victim=pushed.imported(demo_models.adapter_dir("zebra")),
            other=pushed.imported(demo_models.adapter_dir("quartz")),
            says="quartz",
            kill_first=lambda: os.kill(engines[0].process.pid, signal.SIGKILL),
        )
        for one in engines[1:]:
            assert set(one.held()["sums"]) == {0.0}
