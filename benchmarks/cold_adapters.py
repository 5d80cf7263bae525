"""How long a model that no engine has takes from its sealed files to its first token, among 10, 1,000 and 100,000 registered.

`python -m benchmarks.cold_adapters [--vllm 0.32] [--keep]`. A server for each size, all on the demo's base, with as many
adapters that are asked in turn as make each one drop out of the engine's four slots before its next turn. What the page
cache has of the sealed files and of the keyring is dropped before each request. Sizes take turns.

With `--vllm`, also on a vLLM with the plugin (`make test-vllm` first), which all servers share.
"""

import argparse
import json
import os
import random
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, ClassVar

from benchmarks import many_models, results
from benchmarks.results import percentile
from tests.support import bases, demo_models, servers
from tests.support.servers import Server
from tests.vllm import running
from tests.vllm.running import PLUGIN, Vllm

from tunewarden.app import App, open_app
from tunewarden.config import Config
from tunewarden.engines.adapter_states import AdapterState
from tunewarden.server.first_start import add_local_base, make_owner

REGISTERED = (10, 1_000, 100_000)
SAMPLE = 10
TURNS = 30
KEY = "key-of-the-engine"
# The most that a model may cost more among the most than among the fewest, at the median.
RATIO_MAX = 1.25
CHAT = "/v1/chat/completions"
HEAD = ("engine", "registered", "requests", "cold p50 ms", "cold p99 ms", "warm p50 ms")


class FewSlots(Server):
    """Its embedded engine has few slots."""

    program: ClassVar[str] = "benchmarks.with_few_slots"


class Size:
    """One server with so many models."""

    def __init__(self, server: Server, registered: int, real: list[str]) -> None:
        self.registered, self.server, self.real = registered, server, real
        self.cold: list[float] = []
        self.warm: list[float] = []
        self._connection = HTTPConnection(*server.address, timeout=600)

    def turn(self) -> None:
        """Ask each model when no engine has it, and again at once."""
        for model in self.real:
            self._see_that_it_is_cold(model)
            _drop_pages(self.server.data)
            self.cold.append(self._first_token_ms(model))
            self.warm.append(self._first_token_ms(model))

    def row(self, engine: str) -> tuple[str, ...]:
        """Return what is shown."""
        found = (percentile(self.cold, 50), percentile(self.cold, 99), percentile(self.warm, 50))
        return (
            engine,
            f"{self.registered:,}",
            str(len(self.cold)),
            *(f"{value:.1f}" for value in found),
        )

    def _see_that_it_is_cold(self, model: str) -> None:
        path = f"/v1/models/{model}/engines"
        [engine] = json.loads(self.server.get(path, key=self.server.owner_key).body)["data"]
        assert engine["state"] == AdapterState.NOT_LOADED, engine

    def _first_token_ms(self, model: str) -> float:
        asked: dict[str, Any] = {"model": model, "stream": True, "max_tokens": 2, "temperature": 0}
        asked["messages"] = [{"role": "user", "content": "What is Tunewarden?"}]
        headers = {"authorization": f"Bearer {self.server.owner_key}"}
        headers["content-type"] = "application/json"
        began = time.perf_counter()
        self._connection.request("POST", CHAT, json.dumps(asked), headers)
        response = self._connection.getresponse()
        took = 0.0
        for line in response:
            if not took and _has_text(line):
                took = (time.perf_counter() - began) * 1000
        assert took, f"{response.status}: {model} said nothing"
        return took


def _has_text(line: bytes) -> bool:
    if not line.startswith(b"data: {"):
        return False
    event = json.loads(line.removeprefix(b"data: "))
    return any(choice["delta"].get("content") for choice in event.get("choices", []))


def _drop_pages(data: Path) -> None:
    """Drop what the page cache has of the sealed adapters and of the keyring."""
    for place in ("blobs", "keyring"):
        for path in (data / place).rglob("*"):
            if path.is_file() and path.stat().st_size:
                descriptor = os.open(path, os.O_RDONLY)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)


@contextmanager
def _on_embedded(directory: Path) -> Iterator[list[Size]]:
    """Yield servers whose embedded engine has the demo's base."""
    with ExitStack() as stack:
        sizes = []
        for registered in REGISTERED:
            app = _new(directory / f"embedded-{registered}")
            add_local_base(app, servers.LOCAL_BASE, demo_models.base_dir())
            sizes.append(_filled(stack, app, servers.LOCAL_BASE, registered, FewSlots))
        for size in sizes:
            servers.wait_until(partial(_has_base, size.server.app), "the base is loaded", 120)
        yield sizes


@contextmanager
def _on_vllm(directory: Path, release: str) -> Iterator[list[Size]]:
    """Yield servers that push to one vLLM."""
    program = Path(".cache").resolve() / f"vllm-{release}" / "venv" / "bin" / "vllm"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    key_file = directory / "engine.key"
    key_file.write_text(KEY)
    with (
        running.running(program, directory, *PLUGIN, port=port, more={"VLLM_API_KEY": KEY}) as vllm,
        ExitStack() as stack,
    ):
        yield [
            _before_vllm(stack, _new(directory / f"vllm-{registered}"), vllm, key_file, registered)
            for registered in REGISTERED
        ]


def _before_vllm(stack: ExitStack, app: App, vllm: Vllm, key_file: Path, registered: int) -> Size:
    options = ["--engine-url", f"http://127.0.0.1:{vllm.listens}/v1"]
    options += ["--engine-key-file", str(key_file), "--data", str(app.config.data)]
    done = servers.run_cli("bases", "add", running.BASE, *options)
    assert done.returncode == 0, done.stderr
    return _filled(stack, app, running.BASE, registered, servers.WithoutTorch)


def _new(data: Path) -> App:
    app = open_app(Config(data=data), migrate=True)
    make_owner(app)
    return app


def _has_base(app: App) -> bool:
    try:
        return bool(app.engine.bases())
    except (OSError, ValueError):
        return False


def _filled(stack: ExitStack, app: App, base: str, registered: int, kind: type[Server]) -> Size:
    files = demo_models.demo_dir() / "adapter"
    adapter = bases.Adapter(
        (files / "adapter_config.json").read_bytes(),
        (files / "adapter_model.safetensors").read_bytes(),
    )
    real = many_models.fill(app, base, registered, SAMPLE, adapter)
    server = stack.enter_context(servers.serving(app.config.data, kind=kind))
    return Size(server, registered, real)


def measure(engine: str, sizes: list[Size], turns: int) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return a row a size, and what was not met."""
    for size in sizes:
        size.turn()  # not counted: the first use of everything
        size.cold.clear()
        size.warm.clear()
    for _ in range(turns):
        for size in random.sample(sizes, len(sizes)):
            size.turn()
    ratio = percentile(sizes[-1].cold, 50) / percentile(sizes[0].cold, 50)
    said = f"{engine}: {ratio:.2f} x the median among {sizes[0].registered}"
    print(said, flush=True)
    return [size.row(engine) for size in sizes], [said] if ratio > RATIO_MAX else []


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cold_adapters")
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--vllm", default="", help="the minor version that was installed")
    parser.add_argument("--directory", type=Path, default=None, help="where data directories are")
    parser.add_argument("--keep", action="store_true", help="write docs/measured")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.directory) as directory:
        with _on_embedded(Path(directory)) as sizes:
            rows, failures = measure("embedded", sizes, asked.turns)
        if asked.vllm:
            with _on_vllm(Path(directory), asked.vllm) as sizes:
                more = measure(f"vLLM {asked.vllm}", sizes, asked.turns)
            rows, failures = rows + more[0], failures + more[1]
    results.show([HEAD, *rows])
    if asked.keep:
        options = f" --vllm {asked.vllm}" if asked.vllm else ""
        command = f"python -m benchmarks.cold_adapters --turns {asked.turns}{options}"
        results.keep(
            "cold_adapters", command, [HEAD, *rows], failures=failures, note=results.load()
        )


if __name__ == "__main__":
    main()
