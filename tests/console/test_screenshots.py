"""The pictures in docs/how-to/console.md are of the console: `pytest tests/console/test_screenshots.py --update-golden`.

Ids and times differ each time, so that without the option it is only held that the pictures are there.
"""

import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import browser, servers
from tests.support import fine_tuning_rows as rows
from tests.support.console import Visitor
from tests.support.servers import Server, WithoutTorch

from tunewarden.finetuning.states import State

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "how-to" / "console.md"
PICTURE = re.compile(r"!\[[^\]]+\]\(\.\./images/(console-[a-z]+\.png)\)")
BYTES_MAX = 150_000


def test_each_picture_is_there_and_no_other() -> None:
    named = PICTURE.findall(PAGE.read_text("utf-8"))
    assert len(named) == 6
    assert sorted(named) == sorted(path.name for path in DOCS.glob("images/console-*.png"))
    for name in named:
        content = (DOCS / "images" / name).read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n", name
        assert struct.unpack(">I", content[16:20])[0] == browser.WIDE["width"], name
        assert len(content) < BYTES_MAX, name


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with servers.serving(
        tmp_path / "data", workers=2, local_base=True, kind=WithoutTorch
    ) as running:
        yield running


def test_the_pictures_are_made(server: Server, pytestconfig: pytest.Config) -> None:
    if not pytestconfig.getoption("--update-golden"):
        pytest.skip("pictures are made with --update-golden")
    found = browser.found()
    with browser.launched(found) as chromium:
        for name, path, scheme, prepare in _pictures(server):
            tab = browser.tab(chromium, Visitor(server, server.owner_key), color_scheme=scheme)
            tab.open(path)
            tab.page.wait_for_load_state("networkidle")
            prepare(tab.page)
            tab.page.screenshot(path=DOCS / "images" / f"console-{name}.png")
            tab.page.context.close()


def _pictures(server: Server) -> Iterator[tuple[str, str, str, Callable[[Any], object]]]:
    """Yield each picture: its name, the page, light or dark, and what is done before it is taken."""
    *_, billing, legal = (
        server.make_model(suffix=suffix).id
        for suffix in ("support", "harbour-pilot", "support", "billing-faq", "legal")
    )
    server.post("/v1/holds", {"model": legal, "reason": "case 17, until the court has decided"})
    server.post("/v1/aliases", {"name": "billing-live", "model": billing})
    gone = server.make_model(suffix="old-support").id
    deleted = server.request("DELETE", f"/v1/models/{gone}", key=server.owner_key)
    deletion = f"/console/deletions/{deleted.header('tunewarden-deletion')}"
    job = rows.make_job(server.app, server.owner_key, state=State.PAUSED)
    for step in range(1, 41):
        data = {"step": step, "total_steps": 80, "train_loss": 0.4 + 2.2 / step**0.7}
        if step % 10 == 0:
            data["valid_loss"] = 0.55 + 2.0 / step**0.7
        rows.tell(server.app, job, f"Step {step}/80: training loss", data)
    yield "home", "/console", "light", lambda page: None
    yield "models", "/console/models", "light", lambda page: None
    yield "blocked", f"/console/models/{legal}/delete", "light", lambda page: None
    yield "deletion", deletion, "light", lambda page: None
    yield "receipt", deletion, "dark", _verify
    yield "job", f"/console/jobs/{job}", "dark", _show_curves


def _show_curves(page: Any) -> None:
    page.locator("svg.chart").first.evaluate("(one) => one.scrollIntoView({block: 'center'})")


def _verify(page: Any) -> None:
    button = page.get_by_role("button", name="Verify in this browser")
    button.click()
    page.get_by_role("status").filter(has_text="Valid").wait_for()
    button.evaluate("(one) => one.scrollIntoView({block: 'center'})")
