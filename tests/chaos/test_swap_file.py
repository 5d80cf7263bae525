"""A real swap file, to which every page of a server is written on purpose: are weights or files in it? (I16)

Only in `make torture`, and as root: a swap file is the whole machine's.
"""

import contextlib
import ctypes
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.lab import budgets
from tests.support import bases, servers, uploading
from tests.support.servers import LOCAL_BASE, Server, wait_until
from tests.support.uploading import Field

pytestmark = pytest.mark.skipif(
    not budgets.is_long() or os.getuid() != 0, reason="needs root and TUNEWARDEN_TORTURE=1"
)
SWAP_MEBIBYTES = 1024
PIECE_BYTES = 16  # of a row or a column of a weight, four numbers
# A file of 16 MiB, and how much of it may have been in the buffers that all connections of a worker read with.
BLOCKS, BLOCK_BYTES = 4096, 4096
BUFFERED_BYTES_MAX = 1024 * 1024
PROCESS_MADVISE, MADV_PAGEOUT = 440, 21  # on x86-64 and arm64; process_madvise(2)


class _Range(ctypes.Structure):
    _fields_ = (("begin", ctypes.c_void_p), ("length", ctypes.c_size_t))


@contextlib.contextmanager
def _swapping(file: Path) -> Iterator[Path]:
    """Swap to a file of this test's for a block."""
    with file.open("wb") as empty:
        for _ in range(SWAP_MEBIBYTES):
            empty.write(bytes(1024 * 1024))
    file.chmod(0o600)
    subprocess.run(["mkswap", "--quiet", str(file)], check=True)
    if subprocess.run(["swapon", str(file)], check=False).returncode != 0:
        pytest.skip("this system cannot swap to a file")
    try:
        yield file
    finally:
        subprocess.run(["swapoff", str(file)], check=True)
        file.unlink()


def _page_out(pid: int) -> int:
    """Have the kernel write a process's private pages to swap; return how many KiB it has there then."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    try:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            fields = line.split()
            if "w" in fields[1]:
                begin, end = (int(number, 16) for number in fields[0].split("-"))
                one = _Range(begin, end - begin)
                libc.syscall(PROCESS_MADVISE, process, ctypes.byref(one), 1, MADV_PAGEOUT, 0)
    finally:
        os.close(process)
    status = Path(f"/proc/{pid}/status").read_text()
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmSwap"))


def _found(swap: Path, needles: list[bytes]) -> int:
    """Return how many needles, of equal length, are in the swap file, read past the page cache."""
    os.sync()
    read = ["dd", f"if={swap}", "bs=1M", "iflag=direct", "status=none"]
    disk = subprocess.run(read, capture_output=True, check=True).stdout
    if len(needles) < 100:
        return sum(needle in disk for needle in needles)
    return len(set(re.findall(re.escape(needles[0][:-7]) + rb"\d{6}-", disk)) & set(needles))


def _adapter(seed: int) -> tuple[bases.Adapter, list[bytes]]:
    """Return an adapter of random numbers, and pieces of its rows and columns as any copy would hold them."""
    numbers = np.random.default_rng(seed)
    first = numbers.standard_normal((bases.RANK, bases.HIDDEN)).astype(np.float32)
    pieces = [row[at : at + 4].tobytes() for row in first for at in range(0, bases.HIDDEN, 4)]
    pieces += [np.ascontiguousarray(column).tobytes() for column in first.T]
    assert all(len(piece) == PIECE_BYTES for piece in pieces)
    return bases.Adapter(bases.adapter_config(), bases.adapter_weights(first=first)), pieces


def _import(server: Server, adapter: bases.Adapter) -> servers.Reply:
    return uploading.post(
        server,
        "/v1/models",
        Field("base", LOCAL_BASE.encode()),
        Field("adapter_config", adapter.config, "adapter_config.json"),
        Field("adapter_model", adapter.weights, "adapter_model.safetensors"),
    )


def _written(server: Server) -> int:
    return sum(_page_out(pid) for pid in server.processes())


def _send_all(server: Server, head: bytes, body: bytes) -> bytes:
    """Send a request to its end, whatever is answered meanwhile, as a client does that reads late."""
    with server.connect() as connection:
        connection.settimeout(10)
        connection.sendall(head)
        with contextlib.suppress(ConnectionError, TimeoutError):
            connection.sendall(body)
        with contextlib.suppress(ConnectionError, TimeoutError):
            return connection.recv(65536)
    return b""


def test_what_a_swapping_server_refuses_is_not_kept(tmp_path: Path, data: Path) -> None:
    """Refused on its head. What was read before the refusal had left passed through buffers, and no more is there."""
    seed = budgets.new_seed()
    canaries = [f"canary-{seed}-{number:06}-".encode() for number in range(BLOCKS)]
    file = b"".join(canary.ljust(BLOCK_BYTES, b".") for canary in canaries)
    form = uploading.form(Field("purpose", b"user_data"), Field("file", file, "a.txt"))
    with _swapping(tmp_path / "swap") as swap, servers.serving(data, local_base=True) as server:
        head = (
            f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.owner_key}\r\n"
            f"content-type: {uploading.CONTENT_TYPE}\r\ncontent-length: {len(form)}\r\n\r\n"
        )
        answers = [_send_all(server, head.encode(), form) for _ in range(10)]
        kibibytes = _written(server)
        found = _found(swap, canaries)
    print(
        f"seed {seed} {kibibytes} KiB swapped, of {BLOCKS} blocks of {BLOCK_BYTES} bytes, each sent"
        f" {len(answers)} times, {found} were in read buffers"
    )
    assert kibibytes > 10_000, "nothing was swapped"
    assert b" 503 " in answers[0]
    assert found * BLOCK_BYTES <= BUFFERED_BYTES_MAX


def test_control_where_the_operator_accepts_swap_the_weights_are_in_the_file(
    tmp_path: Path, data: Path
) -> None:
    seed = budgets.new_seed()
    adapter, needles = _adapter(seed)
    settings = {"swap_may_hold_plain_weights": "true"}
    with (
        _swapping(tmp_path / "swap") as swap,
        servers.serving(data, local_base=True, settings=settings) as server,
    ):
        model = str(_import(server, adapter).json["id"])
        body = {"model": model, "prompt": "Hello", "max_tokens": 1}
        wait_until(
            lambda: server.post("/v1/completions", body).status == 200, "the model answers", 60
        )
        kibibytes = _written(server)
        found = _found(swap, needles)
        assert server.request("DELETE", f"/v1/models/{model}", key=server.owner_key).status == 200
        left = _found(swap, needles)
    print(
        f"seed {seed} {kibibytes} KiB swapped, {found} of {len(needles)} pieces in the file,"
        f" {left} after the DELETE"
    )
    assert found > 0
