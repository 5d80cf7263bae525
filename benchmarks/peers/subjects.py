"""What is compared: each is started once, on the gateway's processor, and answers on a port of its own."""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from string import Template

from benchmarks.gateway.__main__ import SDK_HEADERS
from benchmarks.peers import install, requests
from benchmarks.peers.install import NotInstalled
from benchmarks.peers.programs import free_port, listens, pinned, running
from benchmarks.peers.stand_in import BINARY, LOAD_CPU
from tests.chaos.fake_engine_server import FakeEngineServer
from tests.support import servers

from tunewarden.cli import local_operations
from tunewarden.config import Config

GATEWAY_CPU = 0
START_SECONDS = 90.0
# Chosen names, as they stand in the tables.
TUNEWARDEN = "Tunewarden, fine-tune"
TUNEWARDEN_REMOTE = "Tunewarden, remote base"
NGINX = "nginx, unix socket"
NGINX_TCP = "nginx"
HAPROXY = "HAProxy"
VLLM = "vLLM router"
FASTAPI = "FastAPI + httpx"
PORTKEY = "Portkey gateway"
LITELLM = "LiteLLM proxy"
DIRECT = "no gateway"
REMOTE_BASE = "stand-in"
KEY = "sk-benchmark-0123456789abcdef"
NGINX_CONF = Template("""$user worker_processes 1; daemon off; pid $here/nginx.pid; error_log $here/nginx.log warn;
events { worker_connections 4096; multi_accept on; use epoll; }
http {
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s; tcp_nodelay on;
  client_body_buffer_size 128k; client_max_body_size 32m;
  client_body_temp_path $here/body; proxy_temp_path $here/proxy; fastcgi_temp_path $here/f;
  uwsgi_temp_path $here/u; scgi_temp_path $here/s;
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; proxy_read_timeout 600s;
  upstream near { server unix:$socket; keepalive 512; keepalive_requests 100000000; }
  upstream far { server 127.0.0.1:$upstream; keepalive 512; keepalive_requests 100000000; }
  server { listen 127.0.0.1:$port backlog=1024; location / { proxy_pass http://near; } }
  server { listen 127.0.0.1:$port_tcp backlog=1024; location / { proxy_pass http://far; } }
}
""")
HAPROXY_CONF = Template("""global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  option http-keep-alive
  http-reuse always
frontend in
  bind 127.0.0.1:$port
  default_backend out
backend out
  server far 127.0.0.1:$upstream pool-max-conn 512
""")
LITELLM_CONF = Template("""model_list:
  - model_name: "$model"
    litellm_params:
      model: openai/stand-in
      api_base: http://127.0.0.1:$upstream/v1
      api_key: upstream-key
general_settings:
  master_key: $key
litellm_settings:
  request_timeout: 600
  telemetry: false
  num_retries: 0
""")
LITELLM_SETTINGS = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",
}


@dataclass(frozen=True, slots=True)
class Subject:
    """One that is measured. `process` is the root of its processes; None if it has none of its own."""

    name: str
    port: int
    version: str = ""
    link: str = "TCP"  # to the stand-in for the engine
    checks: str = "none"
    key: str = KEY
    model: str = REMOTE_BASE
    headers: tuple[str, ...] = ()
    process: int | None = None
    # Scenario -> connections, where it does not bear as many as the others.
    fewer: Mapping[str, int] = field(default_factory=dict)

    def request(self, scenario: requests.Scenario) -> bytes:
        """Return what it is asked, whole."""
        return requests.request(
            self.model,
            self.key,
            [*SDK_HEADERS.splitlines(), *self.headers],
            stream=scenario.is_stream,
        )


@dataclass(slots=True)
class Bench:
    """Everything that runs. `missing` says why a peer is not there."""

    here: Path
    stand_in: Path
    running: contextlib.ExitStack
    subjects: list[Subject] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    upstream: int = 0
    socket: str = ""


def start(bench: Bench, wanted: Sequence[str]) -> None:
    """Start the stand-in, then each subject; those that cannot be had are noted in `missing`."""
    bench.upstream, bench.socket = free_port(), str(bench.here / "stand-in.sock")
    command = [str(bench.stand_in), bench.socket, str(bench.upstream)]
    bench.running.enter_context(running(command, LOAD_CPU, bench.here / "stand-in.log"))
    servers.wait_until(lambda: listens(bench.upstream), "the stand-in listens")
    bench.subjects.append(Subject(DIRECT, bench.upstream))
    for name, begin in STARTS.items():
        if name not in wanted:
            continue
        began = time.monotonic()
        try:
            begun = begin(bench)
            for subject in begun:
                wait_for(subject)
        except NotInstalled as reason:
            bench.missing[name] = str(reason)
            print(f"{name}: not here: {reason}", flush=True)
            continue
        bench.subjects += begun
        print(f"{name}: answers after {time.monotonic() - began:.1f} s", flush=True)


def _tunewarden(bench: Bench) -> list[Subject]:
    """One real server: a fine-tune on the embedded engine's stand-in, and a base at the stand-in's port."""
    data = bench.here / "data"
    os.environ[BINARY] = str(bench.stand_in)
    servers.prepare_local_base(data)
    url = f"http://127.0.0.1:{bench.upstream}/v1"
    with contextlib.redirect_stdout(None):
        local_operations.add_base(Config(data=data), REMOTE_BASE, path=None, engines=[(url, None)])
    with pinned(GATEWAY_CPU):
        server = bench.running.enter_context(_closing(StandInServer(data, workers=1)))
    shared = Subject(
        TUNEWARDEN,
        server.address[1],
        version=_revision(),
        link="unix",
        checks="key, model, guard, usage",
        key=server.owner_key,
        model=server.make_model().id,
        process=server.process.pid,
    )
    remote = replace(
        shared,
        name=TUNEWARDEN_REMOTE,
        model=REMOTE_BASE,
        link="TCP",
        checks="key, model, usage",
    )
    return [shared, remote]


class StandInServer(FakeEngineServer):
    """Everything real but the engine, which is the stand-in in C."""

    program = "benchmarks.peers.with_stand_in"


@contextlib.contextmanager
def _closing(server: StandInServer) -> Iterator[StandInServer]:
    try:
        yield server
        server.stop()
    finally:
        if server.process.poll() is None:
            server.kill()


def _nginx(bench: Bench) -> list[Subject]:
    installed = install.nginx()
    near, far = free_port(), free_port()
    written = NGINX_CONF.substitute(
        user="user root;" if os.geteuid() == 0 else "",  # for its files below a private directory
        here=bench.here,
        socket=bench.socket,
        upstream=bench.upstream,
        port=near,
        port_tcp=far,
    )
    (bench.here / "nginx.conf").write_text(written)
    options = ["-p", str(bench.here), "-e", str(bench.here / "nginx.log")]
    command = [str(installed.path), *options, "-c", str(bench.here / "nginx.conf")]
    pid = bench.running.enter_context(running(command, GATEWAY_CPU, bench.here / "nginx.out"))
    tcp = Subject(NGINX_TCP, far, version=installed.version, process=pid)
    return [tcp, replace(tcp, name=NGINX, port=near, link="unix")]


def _haproxy(bench: Bench) -> list[Subject]:
    installed = install.haproxy()
    port = free_port()
    path = bench.here / "haproxy.cfg"
    path.write_text(HAPROXY_CONF.substitute(port=port, upstream=bench.upstream))
    command = [str(installed.path), "-db", "-f", str(path)]
    settings = install.libraries(install.CACHE / "haproxy")
    pid = _begin(bench, HAPROXY, command, settings)
    return [Subject(HAPROXY, port, version=installed.version, process=pid)]


def _vllm_router(bench: Bench) -> list[Subject]:
    installed = install.python_environment("vllm-router")
    port = free_port()
    here = ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())]
    there = ["--worker-urls", f"http://127.0.0.1:{bench.upstream}", "--policy", "round_robin"]
    program = str(installed.path / "bin" / "vllm-router")
    pid = _begin(bench, VLLM, [program, *here, *there, "--log-level", "error"])
    return [Subject(VLLM, port, version=installed.version, process=pid)]


def _fastapi(bench: Bench) -> list[Subject]:
    installed = install.python_environment("fastapi")
    port = free_port()
    program = str(installed.path / "bin" / "python")
    options = ["--host", "127.0.0.1", "--port", str(port), "--no-access-log", "--log-level"]
    command = [program, "-m", "uvicorn", "benchmarks.peers.fastapi_httpx:app", *options, "warning"]
    upstream = f"http://127.0.0.1:{bench.upstream}/v1"
    settings = {"UPSTREAM": upstream, "KEY": KEY, "MODEL": requests.MODEL}
    pid = _begin(bench, FASTAPI, command, {**os.environ, **settings})
    checks = "key, model"
    return [
        Subject(FASTAPI, port, installed.version, checks=checks, model=requests.MODEL, process=pid)
    ]


def _portkey(bench: Bench) -> list[Subject]:
    installed = install.portkey()
    port = free_port()
    # Without it, every stream is a 500: the file says why.
    shim = ["--import", str(Path(__file__).with_name("portkey.mjs"))]
    command = ["node", *shim, str(installed.path), f"--port={port}", "--headless"]
    pid = _begin(bench, PORTKEY, command, {**os.environ, "NODE_ENV": "production"})
    there = f"x-portkey-custom-host: http://127.0.0.1:{bench.upstream}/v1"
    headers = ("x-portkey-provider: openai", there)
    return [Subject(PORTKEY, port, installed.version, headers=headers, process=pid)]


def _litellm(bench: Bench) -> list[Subject]:
    installed = install.python_environment("litellm")
    port = free_port()
    path = bench.here / "litellm.yaml"
    path.write_text(LITELLM_CONF.substitute(model=requests.MODEL, upstream=bench.upstream, key=KEY))
    options = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    command = [str(installed.path / "bin" / "litellm"), "--config", str(path), *options]
    pid = _begin(bench, LITELLM, command, {**os.environ, **LITELLM_SETTINGS})
    checks = "key, model, usage"
    return [
        Subject(
            LITELLM,
            port,
            installed.version,
            checks=checks,
            model=requests.MODEL,
            process=pid,
            fewer={"json64": 16, "sse16": 4},
        )
    ]


STARTS: dict[str, Callable[[Bench], list[Subject]]] = {
    "tunewarden": _tunewarden,
    "nginx": _nginx,
    "haproxy": _haproxy,
    "vllm-router": _vllm_router,
    "fastapi": _fastapi,
    "portkey": _portkey,
    "litellm": _litellm,
}


def _begin(
    bench: Bench, name: str, command: list[str], settings: Mapping[str, str] | None = None
) -> int:
    log = bench.here / f"{name.split(maxsplit=1)[0].lower()}.log"
    return bench.running.enter_context(running(command, GATEWAY_CPU, log, settings))


def wait_for(subject: Subject) -> None:
    """Wait until it answers a chat with 200."""
    deadline = time.monotonic() + START_SECONDS
    said = "nothing"
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, HTTPException):
            status, body = _ask(subject)
            if status == 200:
                return
            said = f"{status} {body[:200]!r}"
        time.sleep(0.1)
    raise NotInstalled(f"it does not answer a chat after {START_SECONDS:.0f} s, but {said}")


def _ask(subject: Subject) -> tuple[int, bytes]:
    head, _, body = subject.request(requests.SCENARIOS["json1"]).partition(b"\r\n\r\n")
    pairs = [line.split(": ", 1) for line in head.decode().split("\r\n")[1:]]
    headers = {name: value for name, value in pairs if name not in {"host", "content-length"}}
    connection = HTTPConnection("127.0.0.1", subject.port, timeout=10)
    try:
        connection.request("POST", requests.PATH, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _revision() -> str:
    asked = subprocess.run(
        ["git", "-C", str(install.ROOT), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip()
