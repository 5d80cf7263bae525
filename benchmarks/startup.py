"""How long a server takes to be ready without an engine, and what a worker weighs.

`python benchmarks/startup.py [--rounds 5] [--workers 2]`. Prints medians; "ready" is a 200 of /readyz.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

READY_SECONDS_MAX = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "data"
        first, _ = start(data, options.workers)
        rounds = [start(data, options.workers) for _ in range(options.rounds)]
    ready = [seconds for seconds, _ in rounds]
    weights = [weight for _, found in rounds for weight in found]
    print(f"first start (with set-up)   {first:.2f} s")
    print(
        f"start to ready, median      {statistics.median(ready):.2f} s (min {min(ready):.2f}, max {max(ready):.2f})"
    )
    print(
        f"worker RSS at ready, median {statistics.median(weights):.1f} MB (max {max(weights):.1f})"
    )


def start(data: Path, workers: int) -> tuple[float, list[float]]:
    """Start a server once; return seconds to ready and the RSS of each worker in MB."""
    address = data / "run" / "server.json"
    address.unlink(missing_ok=True)
    began = time.perf_counter()
    command = [sys.executable, "-m", "tunewarden", "serve", "--data", str(data)]
    process = subprocess.Popen(
        [*command, "--port", "0", "--workers", str(workers)], stdout=subprocess.DEVNULL
    )
    try:
        while not is_ready(address):
            if time.perf_counter() - began > READY_SECONDS_MAX:
                raise SystemExit("the server did not start")
            time.sleep(0.002)
        seconds = time.perf_counter() - began
        time.sleep(1)  # every worker has started by now
        return seconds, [
            rss(pid) for pid in children(process.pid) if "server.worker" in command_of(pid)
        ]
    finally:
        process.terminate()
        process.wait()


def is_ready(address: Path) -> bool:
    try:
        parts = urlsplit(json.loads(address.read_text())["url"])
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=5)
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, ValueError, HTTPException):
        return False


def children(pid: int) -> list[int]:
    return [int(found) for found in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def rss(pid: int) -> float:
    """Return a process's resident memory in MB (2**20 bytes)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


if __name__ == "__main__":
    main()
