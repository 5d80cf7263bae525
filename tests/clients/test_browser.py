"""A page in a real browser calls the server from another origin, as the page on SDKs shows: by leave, and not without."""

import json
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.clients.catalog import BROWSER
from tests.clients.recipes import recipes
from tests.clients.running import Ran
from tests.support import servers
from tests.support.servers import LOCAL_BASE, Server

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
ANSWER_SECONDS = 120
PAGE = """<!doctype html><body><script type="module">
const {{ baseUrl, key, model }} = {settings};
try {{
{code}
}} catch (error) {{
  document.body.textContent = `refused: ${{error}}`;
}}
await fetch("/shown", {{ method: "POST", body: document.body.textContent }});
</script>"""


class Page:
    """A page of an origin of its own, and what it showed."""

    def __init__(self) -> None:
        self.html = ""
        self.shown: queue.Queue[str] = queue.Queue()
        page = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(page.html.encode() if self.path == "/" else b"")

            def do_POST(self) -> None:
                length = int(self.headers.get("content-length", 0))
                page.shown.put(self.rfile.read(length).decode())
                self._answer(b"")

            def _answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/html; charset=utf-8")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def page() -> Iterator[Page]:
    made = Page()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@contextmanager
def browsing(url: str, directory: Path) -> Iterator[None]:
    """Open a page in Chromium for a block."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    command = [program, *FLAGS, f"--user-data-dir={directory}", url]
    with (directory.parent / "chromium.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def shows(page: Page, server: Server, directory: Path) -> str:
    """Return what the recipe's page shows after it has asked the server."""
    [recipe] = [one for one in recipes() if one.client == BROWSER.name]
    settings = {"baseUrl": server.url, "key": server.owner_key, "model": LOCAL_BASE}
    page.html = PAGE.format(settings=json.dumps(settings), code=recipe.code)
    with browsing(f"{page.origin}/", directory):
        return page.shown.get(timeout=ANSWER_SECONDS)


def answers(server: Server) -> bool:
    asked = {"model": LOCAL_BASE, "messages": [{"role": "user", "content": "Hello"}]}
    return server.post("/v1/chat/completions", asked).status == 200


def test_a_page_of_an_allowed_origin_gets_an_answer(
    page: Page,
    data: Path,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    allowed = {"cors_origins": page.origin}
    with servers.serving(
        data, settings=allowed, local_base=True, kind=servers.WithoutTorch
    ) as server:
        servers.wait_until(lambda: answers(server), "the base is loaded")
        began = time.monotonic()
        shown = shows(page, server, tmp_path / "profile")
        works = bool(shown) and not shown.startswith("refused")
        record_property("client", (BROWSER, Ran(works, time.monotonic() - began, shown)))
        assert works, shown


def test_a_page_is_refused_where_no_origin_is_allowed(
    page: Page, data: Path, tmp_path: Path
) -> None:
    with servers.serving(data, local_base=True, kind=servers.WithoutTorch) as server:
        assert shows(page, server, tmp_path / "profile") == "refused: TypeError: Failed to fetch"
