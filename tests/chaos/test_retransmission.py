"""What was sent and not acknowledged: the kernel would send it again, after the DELETE's answer (I2, D4).

A client in a network namespace of its own loses its address while the answer comes, and gets it back later.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import proxies, servers
from tests.support.servers import LOCAL_BASE, Server, wait_until

SPACE = f"tw{os.getpid()}"
OURS, THEIRS = "10.254.77.1", "10.254.77.2"
IMPATIENT = Path(__file__).parents[1] / "fakes" / "impatient"
ROUNDS = 12
ATTEMPTS = 10
ANSWER_SECONDS = 0.3  # longer than an address takes to be lost, or the attempt is made again
# Sends a request, loses its address before the answer can come, says so, and reads when a line comes.
CLIENT = """
import socket, subprocess, sys, time
address, theirs, device, head, body = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5]
host, port = address.split(":")
s = socket.create_connection((host, int(port)))
s.sendall(head.replace("|", "\\r\\n").encode() + body.encode())
subprocess.run(["ip", "addr", "del", theirs + "/30", "dev", device], check=True)
try:
    s.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    print("answered before", flush=True)
except BlockingIOError:
    print("lost", flush=True)
sys.stdin.readline()
subprocess.run(["ip", "addr", "add", theirs + "/30", "dev", device], check=True)
s.settimeout(6)
try:
    data = s.recv(65536)
except (TimeoutError, ConnectionResetError) as error:
    data = type(error).__name__.encode()
sys.stdout.buffer.write(data)
"""


def _ip(*arguments: str) -> bool:
    return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def device() -> Iterator[str]:
    """A namespace with a link to this one; the name of its end of the link."""
    if shutil.which("ip") is None or os.getuid() != 0 or not _ip("netns", "add", SPACE):
        pytest.skip("needs root, iproute2 and network namespaces")
    try:
        assert _ip("link", "add", f"{SPACE}a", "type", "veth", "peer", f"{SPACE}b", "netns", SPACE)
        assert _ip("addr", "add", f"{OURS}/30", "dev", f"{SPACE}a")
        assert _ip("link", "set", f"{SPACE}a", "up")
        for command in (
            ("addr", "add", f"{THEIRS}/30", "dev", f"{SPACE}b"),
            ("link", "set", f"{SPACE}b", "up"),
        ):
            assert _ip("-n", SPACE, *command)
        yield f"{SPACE}b"
    finally:
        _ip("netns", "del", SPACE)


@pytest.fixture(scope="module")
def server(device: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("retransmission") / "data"
    settings = {"host": OURS}
    with servers.serving(
        data, settings=settings, local_base=True, kind=servers.WithoutTorch
    ) as running:
        yield running


@contextlib.contextmanager
def _asking(server: Server, model: str, device: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a client that asks for a whole answer, loses its address before that comes, and waits for a line.

    The server has handed the answer to the kernel when the block begins: the usage is counted with it.
    """
    counted = (
        "SELECT SUM(u.requests) FROM usage u JOIN usage_series s ON s.n = u.series_n"
        " WHERE u.seconds = 86400 AND s.model_id = :id"
    )
    body = json.dumps({"model": model, "prompt": "Hello", "fake": {"seconds": ANSWER_SECONDS}})
    head = (
        f"POST /v1/completions HTTP/1.1|host: x|authorization: Bearer {server.owner_key}"
        f"|content-type: application/json|content-length: {len(body)}||"
    )
    address = ":".join(map(str, server.address))
    command = ["ip", "netns", "exec", SPACE, sys.executable, "-c", CLIENT]
    for asked in range(2, 2 + ATTEMPTS):
        with subprocess.Popen(
            [*command, address, THEIRS, device, head, body],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as client:
            assert client.stdout is not None
            if client.stdout.readline() == b"lost\n":
                sent = (asked,)
                wait_until(
                    lambda: server.app.database.peek(counted, id=model) == sent,  # noqa: B023  called at once
                    "the answer is sent",
                )
                yield client
                return
            client.communicate(b"go on\n", timeout=30)  # `ip` was slower than the answer.
    raise AssertionError("the answer always came before the address was lost")


def _warm(server: Server, model: str) -> None:
    body = {"model": model, "prompt": "Hello", "max_tokens": 1}
    wait_until(lambda: server.post("/v1/completions", body).status == 200, "the model answers")


def test_an_answer_that_was_lost_is_not_sent_again_after_the_delete(
    server: Server, device: str
) -> None:
    model = server.make_model().id
    _warm(server, model)
    with _asking(server, model, device) as client:
        began = time.monotonic()
        assert server.client().models.delete(model).deleted
        took = time.monotonic() - began
        received, _ = client.communicate(b"go on\n", timeout=30)
    assert b"choices" not in received, "the model's output came after the answer"
    print(f"received {received.decode()!r}, DELETE took {took:.2f} s")


def test_control_without_a_delete_the_lost_answer_is_sent_again(
    server: Server, device: str
) -> None:
    model = server.make_model().id
    _warm(server, model)
    with _asking(server, model, device) as client:
        time.sleep(0.5)
        received, _ = client.communicate(b"go on\n", timeout=30)
    assert b"choices" in received


def test_the_next_request_on_a_pooled_connection_is_not_harmed(tmp_path: Path) -> None:
    """nginx keeps connections: another organization's request follows the deleted model's answer on one."""
    with servers.serving(tmp_path / "data", local_base=True, kind=servers.WithoutTorch) as behind:
        with proxies.in_front_of(behind.address[1], "nginx", tmp_path) as front:
            assert _failed(behind, front) == 0, "through nginx"
        assert _failed(behind, behind.address) == 0, "from a client that keeps its connection"


def test_control_whoever_resets_at_once_harms_the_next_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(IMPATIENT))
    with servers.serving(tmp_path / "data", local_base=True, kind=servers.WithoutTorch) as behind:
        failed = _failed(behind, behind.address)
    print(f"{failed} of {ROUNDS} next requests were reset")
    assert failed


def _failed(behind: Server, front: tuple[str, int]) -> int:
    """Ask a model, delete it directly, and ask as another on the first connection; how often did that fail?"""
    key, other = behind.owner_key, behind.make_key("reader", organization="others")
    body = {"model": LOCAL_BASE, "prompt": "Hello", "max_tokens": 1}
    _warm(behind, LOCAL_BASE)
    failed = 0
    for _ in range(ROUNDS):
        model = behind.make_model().id
        with proxies.connection(front) as pooled, proxies.connection(behind.address) as direct:
            direct.connect()
            # A conversation: from here on the client's kernel delays its acknowledgements (tcp(7)).
            for name in (LOCAL_BASE, LOCAL_BASE, model):
                assert proxies.ask(pooled, "/v1/completions", key, {**body, "model": name}) == 200
            direct.request(
                "DELETE", f"/v1/models/{model}", headers={"authorization": f"Bearer {key}"}
            )
            assert direct.getresponse().status == 200
            try:
                failed += proxies.ask(pooled, "/v1/completions", other, body) != 200
            except OSError:
                failed += 1
    return failed
