"""Reverse proxies in front of a server, configured as their documentation says for WebSocket and keep-alive."""

import http.client
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.servers import wait_until

NGINX = """
user root; daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  upstream server {{ server 127.0.0.1:{behind}; keepalive 16; }}
  server {{
    listen 127.0.0.1:{port};
    client_max_body_size 0;
    location / {{
      proxy_pass http://server; proxy_http_version 1.1; proxy_buffering off;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
    }}
  }}
}}
"""
CADDY = """
{{
  admin off
  auto_https off
}}
http://127.0.0.1:{port} {{
  bind 127.0.0.1
  reverse_proxy 127.0.0.1:{behind}
}}
"""
KINDS = ("nginx", "caddy")


@contextmanager
def in_front_of(
    behind: int, kind: str, directory: Path, template: str = ""
) -> Iterator[tuple[str, int]]:
    """Run a proxy before the server on this port; yield its address. Skip the test where there is none.

    `template`: its configuration with the fields of NGINX, in place of the usual one.
    """
    program = shutil.which(kind, path="/usr/sbin:/usr/bin:/usr/local/bin:/usr/local/sbin")
    if program is None:
        pytest.skip(f"{kind} is not installed (Debian: apt-get install {kind})")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address: tuple[str, int] = free.getsockname()
    file = directory / f"{kind}.conf"
    usual = NGINX if kind == "nginx" else CADDY
    file.write_text((template or usual).format(directory=directory, port=address[1], behind=behind))
    arguments = {
        "nginx": ["-p", str(directory), "-c", str(file)],
        "caddy": ["run", "--adapter", "caddyfile", "--config", str(file)],
    }
    output = (directory / f"{kind}.out").open("wb")
    home = {"HOME": str(directory), "XDG_DATA_HOME": str(directory)}
    process = subprocess.Popen([program, *arguments[kind]], stdout=output, stderr=output, env=home)
    try:
        wait_until(lambda: _listens(address), f"{kind} listens")
        yield address
    finally:
        process.terminate()
        process.wait(timeout=20)
        output.close()


def _listens(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def connection(front: tuple[str, int]) -> Iterator[http.client.HTTPConnection]:
    """Yield a client's connection to a proxy."""
    opened = http.client.HTTPConnection(*front, timeout=60)
    try:
        yield opened
    finally:
        opened.close()


def ask(through: http.client.HTTPConnection, path: str, key: str, body: dict[str, object]) -> int:
    """Post JSON; return the status, the answer being read."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    through.request("POST", path, json.dumps(body), headers)
    response = through.getresponse()
    response.read()
    return response.status
