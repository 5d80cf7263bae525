"""The embedded engine as a real process on a real socket, for tests and benchmarks."""

import http.client
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import demo_models

from tunewarden.engine_protocol import paths

READY_SECONDS = 60
ANSWER_SECONDS = 120
BASE = "demo"


class UnixConnection(http.client.HTTPConnection):
    """http.client over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("engine", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Stream:
    """One streamed answer; iterating gives the events, `[DONE]` left out."""

    def __init__(self, connection: UnixConnection, response: http.client.HTTPResponse) -> None:
        self.connection = connection
        self.response = response
        self.is_done = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each event as it comes."""
        for line in self.response:
            text = line.decode().strip()
            if text == "data: [DONE]":
                self.is_done = True
            elif text:
                yield json.loads(text.removeprefix("data: "))
        self.close()

    def close(self) -> None:
        """Go away, as a client that has seen enough."""
        self.response.close()
        self.connection.close()


class EngineProcess:
    """Speaks to one engine process."""

    def __init__(self, path: Path, process: subprocess.Popen[bytes]) -> None:
        self.path = path
        self.process = process

    def send(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Return status and JSON of one exchange on a connection of its own."""
        connection = UnixConnection(self.path)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def chat(self, model: str, text: str, **more: Any) -> tuple[int, Any]:
        """Ask one question; greedy unless told otherwise."""
        return self.send("POST", paths.CHAT_COMPLETIONS, question(model, text, **more))

    def said(self, model: str, text: str, **more: Any) -> str:
        """Return the text of the answer to one question."""
        status, body = self.chat(model, text, **more)
        assert status == 200, body
        content: str = body["choices"][0]["message"]["content"]
        return content

    def stream(self, model: str, text: str, **more: Any) -> Stream:
        """Ask one question and return the stream of its answer."""
        connection = UnixConnection(self.path)
        body = json.dumps(question(model, text, stream=True, **more))
        connection.request("POST", paths.CHAT_COMPLETIONS, body)
        return Stream(connection, connection.getresponse())

    def load(self, name: str, source: Path) -> tuple[int, Any]:
        """Load a copy of an adapter under a name; the engine takes the copy."""
        directory = Path(tempfile.mkdtemp(dir="/dev/shm")) / "adapter"
        shutil.copytree(source, directory)
        status, body = self.send(
            "POST", paths.ADAPTERS, {"name": name, "base": BASE, "path": str(directory)}
        )
        assert not directory.exists()
        directory.parent.rmdir()
        return status, body

    def evict(self, *names: str) -> tuple[int, Any]:
        """Evict names."""
        return self.send("POST", paths.EVICTIONS, {"names": names})

    def base_state(self) -> dict[str, Any]:
        """Return what the engine says of the demo's base."""
        facts: dict[str, Any] = self.send("GET", paths.STATE)[1]["bases"][0]
        return facts

    def wait_for(self, condition: str, value: int) -> None:
        """Return when `running` or `waiting` has a value; the engine's state is the event."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while self.base_state()[condition] != value:
            assert time.monotonic() < deadline, f"{condition} never became {value}"
            time.sleep(0.005)


def question(model: str, text: str, **more: Any) -> dict[str, Any]:
    """Return a chat body, greedy unless told otherwise."""
    messages = [{"role": "user", "content": text}]
    return {"model": model, "messages": messages, "temperature": 0, **more}


def endless(tokens: int) -> dict[str, Any]:
    """Return parameters for an answer of exactly so many tokens: the end token is ruled out."""
    return {"max_tokens": tokens, "logit_bias": {str(end_token()): -100}}


def end_token() -> int:
    """Return the id of the demo's end token."""
    config = json.loads((demo_models.base_dir() / "config.json").read_text("utf-8"))
    return int(config["eos_token_id"])


@contextmanager
def running_engine(
    directory: Path, *options: str, python: str = sys.executable
) -> Iterator[EngineProcess]:
    """Start an engine process with the demo's base; end it with SIGTERM and see that it goes well."""
    path = directory / "engine.sock"
    command = [
        python,
        "-m",
        "tunewarden.embedded_engine.worker",
        "--socket",
        str(path),
        *options,
    ]
    process = subprocess.Popen(command)
    engine = EngineProcess(path, process)
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not _answers(engine):
            assert process.poll() is None, "the engine ended while starting"
            assert time.monotonic() < deadline, "the engine never became ready"
            time.sleep(0.02)
        status, body = engine.send(
            "POST", paths.BASES, {"name": BASE, "path": str(demo_models.base_dir())}
        )
        assert status == 200, body
        yield engine
        process.terminate()
        assert process.wait(20) == 0
        assert not path.exists()
    finally:
        process.kill()
        process.wait()


def _answers(engine: EngineProcess) -> bool:
    try:
        return engine.send("GET", paths.HEALTH)[0] == 200
    except OSError:
        return False
