"""Our gateway, one worker with every check on, beside nginx as a plain proxy to the same engine's stand-in.

`python -m benchmarks.gateway [--rounds 7] [--nginx PATH]`. Gateway and nginx are pinned to CPU 0, the stand-in and the
load generator (C, compiled here) to CPU 1. All run at once and are measured in turn, in random order;
take the ratios, not the figures.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Template

from tests.support import lone_worker, servers

from tunewarden.engine_protocol.messages import VERSION

HERE = Path(__file__).parent
GATEWAY_CPU, LOAD_CPU = 0, 1
# Scenario -> (connections, is it a stream)
SCENARIOS = {"json64": (64, False), "json1": (1, False), "sse16": (16, True)}
WHAT = {"json64": "req/s", "json1": "p50 us", "sse16": "streams/s"}
# What openai-python 1.x and 2.x send.
SDK_HEADERS = """accept: application/json
accept-encoding: gzip, deflate
connection: keep-alive
user-agent: OpenAI/Python 2.9.0
x-stainless-lang: python
x-stainless-package-version: 2.9.0
x-stainless-os: Linux
x-stainless-arch: x64
x-stainless-runtime: CPython
x-stainless-runtime-version: 3.11.7
x-stainless-async: false
x-stainless-retry-count: 0
x-stainless-read-timeout: 600
content-type: application/json"""
NGINX = Template("""$user worker_processes 1; daemon off; pid $here/nginx.pid; error_log $here/nginx.log warn;
events { worker_connections 4096; multi_accept on; use epoll; }
http {
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s; tcp_nodelay on;
  client_body_buffer_size 128k; client_max_body_size 32m;
  client_body_temp_path $here/body; proxy_temp_path $here/proxy; fastcgi_temp_path $here/f;
  uwsgi_temp_path $here/u; scgi_temp_path $here/s;
  upstream engine { server unix:$engine; keepalive 512; keepalive_requests 100000000; }
  server { listen 127.0.0.1:$port backlog=1024; location / {
    proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; } }
}
""")


@dataclass(frozen=True, slots=True)
class Started:
    """The subjects' ports, a key and a model, and the gateway's one worker."""

    ports: dict[str, int]
    key: str
    model: str
    worker: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--nginx", default=shutil.which("nginx"))
    parser.add_argument("--only", choices=[*SCENARIOS], nargs="*", default=[*SCENARIOS])
    parser.add_argument("--hold", action="store_true", help="load the gateway until interrupted")
    asked = parser.parse_args()
    if shutil.which("cc") is None:
        sys.exit(
            "no C compiler: the load generator must not be the bottleneck, so it is C. Install cc."
        )
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as running:
        here = Path(name)
        begun = started(here, running, asked.nginx)
        ports = begun.ports
        if asked.hold:
            _hold(here, begun, asked.only[0])
        measured: dict[tuple[str, str], list[dict[str, float]]] = {}
        for _ in range(asked.rounds):
            for scenario in asked.only:
                for subject in random.sample(sorted(ports), len(ports)):
                    sent = request(here, scenario, begun.key, begun.model)
                    found = _measure(here, ports[subject], scenario, sent, asked.seconds)
                    measured.setdefault((scenario, subject), []).append(found)
        _show(measured, asked.only, sorted(ports))


def started(here: Path, running: contextlib.ExitStack, nginx: str | None) -> Started:
    """Start everything."""
    for program in ("mock", "load"):
        command = [
            "cc",
            "-O2",
            f"-DPROTOCOL_VERSION={VERSION}",
            "-o",
            str(here / program),
            str(HERE / f"{program}.c"),
        ]
        subprocess.run(command, check=True)
    data = here / "data"
    servers.prepare_local_base(data)
    engine = data / "run" / "engine.sock"
    running.enter_context(_process([str(here / "mock"), str(engine)], LOAD_CPU))
    with pinned(GATEWAY_CPU):
        worker = lone_worker.LoneWorker(data)
    running.callback(worker.kill)
    key = worker.owner_key
    model = servers.import_adapter(servers.open_data(data), key)
    ports = {"gateway": worker.address[1]}
    if nginx is None:
        print("no nginx: give its path by --nginx (`apt-get download nginx`, `dpkg -x` will do)")
    else:
        ports["nginx"] = 18_000 + os.getpid() % 1000
        user = "user root;" if os.geteuid() == 0 else ""  # the socket is for its owner only
        written = NGINX.substitute(user=user, here=here, engine=engine, port=ports["nginx"])
        (here / "nginx.conf").write_text(written)
        command = [nginx, "-p", str(here), "-e", str(here / "nginx.log"), "-c"]
        running.enter_context(_process([*command, str(here / "nginx.conf")], GATEWAY_CPU))
    time.sleep(0.5)
    return Started(ports, key, model.id, worker.process.pid)


@contextlib.contextmanager
def _process(command: list[str], cpu: int) -> Iterator[None]:
    with pinned(cpu), subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.terminate()


@contextlib.contextmanager
def pinned(cpu: int) -> Iterator[None]:
    """What is started in the block runs on one processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def request(here: Path, scenario: str, key: str, model: str) -> Path:
    said = [
        {"role": "system", "content": "You answer questions about our product. " * 12},
        {"role": "user", "content": "How do I reset my password? It does not work any more."},
    ]
    fields = {"model": model, "messages": said, "temperature": 0.2}
    if SCENARIOS[scenario][1]:
        fields["stream"] = True
    body = json.dumps(fields, separators=(",", ":")).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: 127.0.0.1", *SDK_HEADERS.splitlines()]
    lines += [f"authorization: Bearer {key}", f"content-length: {len(body)}", "", ""]
    path = here / f"{scenario}.http"
    path.write_bytes("\r\n".join(lines).encode() + body)
    return path


def load_command(here: Path, port: int, scenario: str, seconds: float, sent: Path) -> list[str]:
    """Return the command that loads a port for so long."""
    connections = SCENARIOS[scenario][0]
    return [str(here / "load"), str(port), str(connections), str(seconds), str(sent)]


def _measure(here: Path, port: int, scenario: str, sent: Path, seconds: float) -> dict[str, float]:
    command = load_command(here, port, scenario, seconds, sent)
    with pinned(LOAD_CPU):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    assert not found["refused"], f"port {port}: {found}"
    assert not found["broken"], f"port {port}: {found}"
    return found


def _hold(here: Path, begun: Started, scenario: str) -> None:
    """For profiles: load one scenario without end."""
    sent = request(here, scenario, begun.key, begun.model)
    while True:
        print(_measure(here, begun.ports["gateway"], scenario, sent, 10)["rate"])


def _show(
    measured: dict[tuple[str, str], list[dict[str, float]]],
    scenarios: list[str],
    subjects: list[str],
) -> None:
    for scenario in scenarios:
        field = "p50" if scenario == "json1" else "rate"
        for subject in subjects:
            runs = measured[scenario, subject]
            figures = [
                statistics.median(run[name] for run in runs) for name in ("rate", "p50", "p99")
            ]
            print(
                f"{scenario:8} {subject:8} {figures[0]:9.0f}/s  p50 {figures[1]:7.0f}  p99 {figures[2]:7.0f} us"
            )
        if len(subjects) == 2:
            pairs = zip(measured[scenario, "gateway"], measured[scenario, "nginx"], strict=True)
            ratios = sorted(ours[field] / theirs[field] for ours, theirs in pairs)
            middle = statistics.median(ratios)
            print(
                f"{scenario:8} {WHAT[scenario]}: {middle:.2f} x nginx (from {ratios[0]:.2f} to {ratios[-1]:.2f})"
            )


if __name__ == "__main__":
    main()
