"""What a large file costs a worker: memory beyond what it had, and how fast it comes and goes.

`python -m benchmarks.uploads [--megabytes 1000] [--rounds 3]`. One worker of a real server, the stock SDK;
the file goes by `files.create`, by `upload_file_chunked` and back by `files.content`. Memory is the peak
(VmHWM) of the worker while that ran, less what it held before (VmRSS); MB are 10**6 bytes.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import openai
from benchmarks.startup import children, command_of, is_ready

PIECE = 1024 * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "data"
        source = Path(directory) / "large.bin"
        digest = write(source, options.megabytes * 10**6)
        command = [sys.executable, "-m", "tunewarden", "serve", "--data", str(data), "--port", "0"]
        environment = os.environ | {"TUNEWARDEN_FILE_BYTES_MAX": str(options.megabytes * 10**6)}
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
        try:
            address = data / "run" / "server.json"
            while not is_ready(address):
                time.sleep(0.01)
            time.sleep(1)
            rounds(server.pid, data, source, digest, options.rounds)
        finally:
            server.terminate()
            server.wait()


def rounds(supervisor: int, data: Path, source: Path, digest: str, count: int) -> None:
    """Run every way `count` times, and print what each took."""
    (worker,) = [pid for pid in children(supervisor) if "server.worker" in command_of(pid)]
    url = json.loads((data / "run" / "server.json").read_text())["url"]
    client = openai.OpenAI(base_url=url, api_key=(data / "owner.key").read_text().strip())
    # A small one first: code that is loaded by the first file is not what a large one costs.
    client.files.delete(client.files.create(file=b"small", purpose="user_data").id)
    size = source.stat().st_size
    for _ in range(count):
        made = [
            measure("files.create", worker, size, partial(create, client, source)),
            measure("uploads (64 MiB parts)", worker, size, partial(chunked, client, source)),
        ]
        for file_id in made:
            found = measure("files.content", worker, size, partial(read, client, file_id))
            assert found == digest, "what comes back is what was sent"
            client.files.delete(file_id)
        print(
            f"{'(a file, written and synced':<24}{size / 10**6 / plain(source):8.1f} MB/s)",
            flush=True,
        )


def plain(source: Path) -> float:
    """Return the seconds that it takes to copy the file and sync the copy: what the disk allows."""
    copy = source.with_name("copy.bin")
    began = time.perf_counter()
    with source.open("rb") as file, copy.open("wb") as other:
        while piece := file.read(PIECE):
            other.write(piece)
        other.flush()
        os.fsync(other.fileno())
    seconds = time.perf_counter() - began
    copy.unlink()
    return seconds


def create(client: openai.OpenAI, source: Path) -> str:
    with source.open("rb") as file:
        return client.files.create(file=file, purpose="user_data").id


def chunked(client: openai.OpenAI, source: Path) -> str:
    upload = client.uploads.upload_file_chunked(
        file=source, mime_type="application/octet-stream", purpose="user_data"
    )
    assert upload.file is not None
    return upload.file.id


def read(client: openai.OpenAI, file_id: str) -> str:
    digest = hashlib.sha256()
    with client.files.with_streaming_response.content(file_id) as answer:
        for piece in answer.iter_bytes(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def measure(what: str, worker: int, size: int, work: Callable[[], str]) -> str:
    """Run once; print the speed and by how much the worker's memory rose at most; return its answer."""
    Path(f"/proc/{worker}/clear_refs").write_text("5")  # VmHWM begins anew
    before = memory(worker, "VmRSS")
    began = time.perf_counter()
    answer = work()
    seconds = time.perf_counter() - began
    peak = memory(worker, "VmHWM")
    print(
        f"{what:<24} {size / 10**6 / seconds:7.1f} MB/s   worker {before:6.1f} MB before,"
        f" peak {peak - before:+6.1f} MB",
        flush=True,
    )
    return answer


def memory(pid: int, name: str) -> float:
    """Return a line of proc(5)'s status in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / 10**6
    raise ValueError(name)


def write(path: Path, size: int) -> str:
    """Write random bytes; return their SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, PIECE):
            piece = os.urandom(min(PIECE, size - start))
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


if __name__ == "__main__":
    main()
