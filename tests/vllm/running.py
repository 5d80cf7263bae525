"""A real vLLM on the demo's base, with the plugin or without, and a client of it over its unix socket."""

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

import msgspec
from tests.support import demo_models, process_memory
from tests.vllm.inside import vllm_probe

from tunewarden.engine_protocol import paths
from tunewarden.engine_protocol.messages import (
    LEASE_SECONDS_MAX,
    EvictedAdapter,
    EvictionAnswer,
    Renewal,
    Renewed,
    decoded,
    push_head,
)

BASE = "tiny"
SLOTS = 4
RANK_MAX = 16
MEMBER = "member-1"
PLUGIN = (
    "--middleware", "tunewarden_vllm.middleware.Middleware",
    "--worker-extension-cls", "tunewarden_vllm.worker.WorkerExtension",
)  # fmt: skip
END = b"0\r\n\r\n"  # of a response in chunks
# A start takes half a minute of a processor, on a machine that others use.
START_SECONDS = 600.0
STOP_SECONDS = 60.0
ASK_SECONDS = 300.0
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",  # for the probe
    "PYTHONPATH": str(Path(vllm_probe.__file__).parent),
}


class Vllm:
    """A running `vllm serve`."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        listens: str | int,
        log: Path,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.process = process
        self._tls = tls
        self.listens = listens  # a unix socket's path, or a port of loopback
        self.log = log

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Send a request; return the status and the body."""
        with contextlib.closing(self._connected()) as connection:
            connection.request(method, path, body, {"content-type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()

    def push(self, name: str, adapter: Path) -> tuple[int, bytes]:
        config = (adapter / "adapter_config.json").read_bytes()
        weights = (adapter / "adapter_model.safetensors").read_bytes()
        path = paths.push_path(name, BASE, MEMBER)
        return self.ask("PUT", path, push_head(len(config)) + config + weights)

    def has_lease(self) -> None:
        """Begin a lease that lasts longer than the tests."""
        nonce = ""
        for begins in (True, False):
            asked = Renewal(MEMBER, LEASE_SECONDS_MAX, nonce, begins)
            status, body = self.ask("POST", paths.LEASE, msgspec.json.encode(asked))
            assert status == 200, body
            nonce = decoded(body, Renewed).nonce

    def load(self, name: str, adapter: Path) -> None:
        status, body = self.push(name, adapter)
        assert status == 200, body

    def evict(self, *names: str) -> list[EvictedAdapter]:
        status, body = self.ask("POST", paths.EVICTIONS, json.dumps({"names": names}).encode())
        assert status == 200, body
        return decoded(body, EvictionAnswer).evicted

    def chat(self, model: str, tokens: int = 12, **more: Any) -> tuple[int, Any]:
        """Return the status, and the text or the error."""
        status, body = self.ask("POST", paths.CHAT_COMPLETIONS, _chat(model, tokens, **more))
        found = json.loads(body)
        return status, found["choices"][0]["message"]["content"] if status == 200 else found[
            "error"
        ]

    def stream(self, model: str, tokens: int) -> "Stream":
        connection = self._connected()
        body = _chat(model, tokens, stream=True, ignore_eos=True)
        connection.request(
            "POST", paths.CHAT_COMPLETIONS, body, {"content-type": "application/json"}
        )
        return Stream(connection.sock)

    def held(self) -> dict[str, Any]:
        """Return what its one worker holds: the probe's look."""
        [worker] = json.loads(self.ask("GET", vllm_probe.PATH)[1])
        assert isinstance(worker, dict)
        return worker

    def processes(self) -> list[int]:
        """Return the pids of all its processes."""
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):  # a thread that has just ended
                    todo += map(int, task.read_text().split())
        return found

    def count_in_memory(self, patterns: Sequence[bytes]) -> dict[int, int]:
        """Return how often its processes have these bytes in memory, by pid."""
        return {pid: process_memory.count(pid, patterns) for pid in self.processes()}

    def _connected(self) -> HTTPConnection:
        if self._tls is not None:
            assert isinstance(self.listens, int)
            return HTTPSConnection(
                "127.0.0.1", self.listens, timeout=ASK_SECONDS, context=self._tls
            )
        connection = HTTPConnection("127.0.0.1", timeout=ASK_SECONDS)
        if isinstance(self.listens, str):
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(ASK_SECONDS)
            connection.sock.connect(self.listens)
        else:
            connection.port = self.listens
        return connection


class Stream:
    """One response as server-sent events, read only when a test says so, without a buffer in between."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._read = b""

    def read(self, count: int) -> None:
        """Read until this many events have come, or more."""
        while self._read.count(b"data: {") < count:
            piece = self._socket.recv(65536)
            assert piece, self._read
            self._read += piece

    def waiting_bytes(self) -> int:
        """Return how many bytes have arrived and were not read."""
        return int(struct.unpack("i", fcntl.ioctl(self._socket, termios.FIONREAD, bytes(4)))[0])

    def rest(self) -> bytes:
        """Read to the end of the response; return what came since `read`."""
        raw = b"" if not self._read.endswith(END) else END
        with contextlib.suppress(ConnectionResetError):
            while not raw.endswith(END) and (piece := self._socket.recv(65536)):
                raw += piece
        self._socket.close()
        return raw

    def whole(self) -> bytes:
        """Read to the end of the response; return all of it."""
        return self._read + self.rest()


def events_in(raw: bytes) -> list[dict[str, Any]]:
    """Return the whole events in a part of a response."""
    lines = [line for line in raw.split(b"\n") if line.startswith(b"data: {")]
    return [json.loads(line.removeprefix(b"data: ")) for line in lines]


@contextlib.contextmanager
def running(
    program: Path,
    directory: Path,
    *flags: str,
    port: int | None = None,
    more: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Vllm]:
    """Start vLLM; stop it at the end. With `tls`, `flags` have its certificates. Raises AssertionError, with the end of its log, if it does not start."""
    log, listens = directory / "vllm.log", str(directory / "vllm.sock") if port is None else port
    where = (
        ["--uds", listens]
        if isinstance(listens, str)
        else ["--host", "127.0.0.1", "--port", str(port)]
    )
    command = [
        str(program), "serve", str(demo_models.base_dir()), "--served-model-name", BASE, "--enable-lora",
        "--max-loras", str(SLOTS), "--max-cpu-loras", str(SLOTS), "--max-lora-rank", str(RANK_MAX),
        "--max-model-len", "2048", "--max-num-seqs", "16", "--middleware", "vllm_probe.Probe", *where, *flags,
    ]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=os.environ | ENVIRONMENT | dict(more or {}),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    vllm = Vllm(process, listens, log, tls)
    try:
        _wait_until_ready(vllm)
        yield vllm
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def patterns_of(adapter: Path) -> list[bytes]:
    """Return pieces of some of an adapter's A matrices, which vLLM stores as they are in the file."""
    data = (adapter / "adapter_model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    names = [name for name in header if re.search(r"lora_A", name)]
    begins = [8 + size + header[name]["data_offsets"][0] for name in names]
    return [data[begin : begin + 64] for begin in begins[:: len(begins) // 4]]


def _wait_until_ready(vllm: Vllm) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if vllm.process.poll() is not None:
            break
        with contextlib.suppress(OSError):
            if vllm.ask("GET", paths.HEALTH)[0] == 200:
                return
        time.sleep(0.2)
    raise AssertionError(f"vLLM did not start:\n{vllm.log.read_text('utf-8', 'replace')[-4000:]}")


def _chat(model: str, tokens: int, **more: Any) -> bytes:
    messages = [{"role": "user", "content": "What is Tunewarden?"}]
    usual = {"model": model, "messages": messages, "max_tokens": tokens, "temperature": 0}
    return json.dumps(usual | more).encode()
