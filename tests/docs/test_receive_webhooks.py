"""docs/how-to/receive-webhooks.md: its receiver runs and verifies what a real server sends; its commands run."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.support import servers
from tests.support.mail_server import free_port
from tests.support.servers import Server, WithoutTorch, wait_until

from tunewarden.webhooks.failures import Failure

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "receive-webhooks.md"
PUBLIC = "https://hooks.example.com/tunewarden"


def block(name: str) -> str:
    found = re.search(
        rf"^```python {name}\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert found is not None
    return found[1]


def test_the_page_explains_every_error() -> None:
    explained = PAGE.read_text("utf-8").partition("| `error` of a delivery")[2].partition("\n\n")[0]
    assert {one for one in Failure if f"`{one.value}`" not in explained} == set()


@contextmanager
def running(secret: str, port: int, output: Path) -> Iterator[None]:
    """Run the receiver of the page for a block."""
    with output.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-c", block("receiver")],
            env={**os.environ, "WEBHOOK_SECRET": secret, "PORT": str(port)},
            stdout=written,
        )
        try:
            yield
        finally:
            process.kill()
            process.wait()


def test_the_receiver_of_the_page_verifies_what_the_server_sends(tmp_path: Path) -> None:
    settings = {"webhook_http_to_loopback": "true"}
    with servers.serving(
        tmp_path / "data", settings=settings, kind=WithoutTorch, local_base=True
    ) as server:
        _receive(server, tmp_path / "output")


def _receive(server: Server, output: Path) -> None:
    port = free_port()
    create = block("create")
    assert PUBLIC in create
    known: dict[str, Any] = {"client": server.client(max_retries=0)}
    exec(create.replace(PUBLIC, f"http://127.0.0.1:{port}/"), known)
    exec(block("rotate"), known)
    model = server.make_model().id
    for secret in (known["endpoint"].signing_secret, known["new"].signing_secret):
        with running(secret, port, output):
            # Until it listens, the test is refused.
            wait_until(lambda: _tested(server, known["endpoint"].id), "the receiver answers")
            gone = server.make_model().id
            server.client().models.delete(gone)
            wait_until(partial(_is_printed, output, f"model.deleted {gone}"), "the event")
    with running(known["new"].signing_secret, port, output):
        wait_until(lambda: _tested(server, known["endpoint"].id), "the receiver answers")
        _run_the_commands(server, known["endpoint"].id, f"http://127.0.0.1:{port}/")
    assert model not in output.read_text(), "it asked for no such events"


def _run_the_commands(server: Server, endpoint: str, url: str) -> None:
    """Run each command of the page, in its order."""
    [delivery, *_] = server.cli("webhooks", "deliveries", endpoint).stdout.split("\t")
    names = {PUBLIC: url, "whe_…": endpoint, "whd_…": delivery}
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) == 5
    for line in lines:
        words = [names.get(word, word) for word in shlex.split(line, comments=True)]
        ran = server.cli(*words[1:])
        assert ran.returncode == 0, ran.stderr


def _is_printed(output: Path, line: str) -> bool:
    return line in output.read_text().splitlines()


def _tested(server: Server, endpoint: str) -> bool:
    done = server.cli("webhooks", "test", endpoint, "--event", "model.deleted")
    assert done.returncode in {0, 1, 2, 4}, done.stderr
    return done.stdout.strip() == "204"
