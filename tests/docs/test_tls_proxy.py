"""docs/how-to/tls-proxy.md: both configurations pass a stream on as it is made, and a deletion cuts it."""

import re
import ssl
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from tests.support import authority, proxies, servers
from tests.support.servers import Server, WithoutTorch

PAGE = (Path(__file__).parents[2] / "docs/how-to/tls-proxy.md").read_text("utf-8")
# More than any test waits for: it ends by the deletion only.
ENDLESS = {"fake": {"chunks": 100_000, "pause": 0.02}}
NGINX = """
user root; daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.log;
events {{ worker_connections 256; }}
http {{
access_log off;
client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
%s
}}
"""
CADDY = """
{{
  admin off
  auto_https disable_redirects
  skip_install_trust
  default_bind 127.0.0.1
}}
%s
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("tls") / "data"
    with servers.serving(data, local_base=True, kind=WithoutTorch) as running:
        yield running


def _nginx(directory: Path) -> str:
    block: str
    [block] = re.findall(r"```nginx\n(.*?)```", PAGE, re.DOTALL)
    block = (
        block.replace("{", "{{").replace("}", "}}").replace("127.0.0.1:8800", "127.0.0.1:{behind}")
    )
    for written, here in (
        ("listen 443 ssl", "listen 127.0.0.1:{port} ssl"),
        ("/etc/ssl/tunewarden.pem", f"{directory}/ca.pem"),
        ("/etc/ssl/tunewarden.key", f"{directory}/key.pem"),
    ):
        assert written in block
        block = block.replace(written, here)
    return NGINX.replace("%s", block)


def _caddy(directory: Path) -> str:
    block: str
    [block] = re.findall(r"```caddyfile\n(.*?)```", PAGE, re.DOTALL)
    block = (
        block.replace("{", "{{").replace("}", "}}").replace("127.0.0.1:8800", "127.0.0.1:{behind}")
    )
    certificate = f"  tls {directory}/ca.pem {directory}/key.pem\n"
    block = block.replace(
        "models.example.com {{\n", f"https://localhost:{{port}} {{{{\n{certificate}"
    )
    return CADDY.replace("%s", block)


@pytest.mark.parametrize("kind", proxies.KINDS)
def test_a_stream_passes_as_it_is_made_and_a_deletion_cuts_it(
    server: Server, kind: str, tmp_path: Path
) -> None:
    authority.server_context(tmp_path)
    template = {"nginx": _nginx, "caddy": _caddy}[kind](tmp_path)
    trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    model = server.make_model().id
    with proxies.in_front_of(server.address[1], kind, tmp_path, template) as address:
        with openai.OpenAI(
            base_url=f"https://localhost:{address[1]}/v1",
            api_key=server.owner_key,
            http_client=openai.DefaultHttpxClient(verify=trusted),
            timeout=60,
        ) as client:
            stream = client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": "Hello"}],
                stream=True,
                extra_body=ENDLESS,
            )
            assert next(stream).choices[0].delta.content
            assert client.models.delete(model).deleted
            with pytest.raises(openai.APIError) as ended:
                for _ in stream:
                    pass
        assert ended.value.code == "model_deleted"
