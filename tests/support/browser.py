"""Debian's Chromium, driven by Playwright, and what it saw of a page: violations of its policy, requests, errors.

Both are asked for only here: without them the tests in a browser are skipped, with their count. `BROWSER_TESTS=required`
lets them fail instead.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from tests.support.console import Visitor

# Its own directory of packages (Makefile): nothing else of the tests needs them.
PACKAGES = Path(sys.prefix) / "browser"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# Told to the page before its own scripts run.
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`));
"""

WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 320, "height": 640}
# 1280 px at 200 %.
ENLARGED = {"width": 640, "height": 400}
FOCUSABLE = (
    "Array.from(document.querySelectorAll('a[href], button, input:not([type=hidden]), select, textarea, summary,"
    ' [tabindex="0"]\')).filter((one) => one.checkVisibility() && !one.disabled)'
)
# Where the keyboard is, and whether that can be seen.
FOCUSED = """() => {
  const one = document.activeElement;
  if (!one || one === document.body) return null;
  const style = getComputedStyle(one);
  one.dataset.seen = one.dataset.seen || String(Math.random());
  return { seen: one.dataset.seen, outline: style.outlineStyle, width: parseFloat(style.outlineWidth) };
}"""
# What a background alone would say; forced colours leave borders.
BARE = (
    "Array.from(document.querySelectorAll('button, .badge, .alert')).filter((one) =>"
    " one.checkVisibility() && getComputedStyle(one).borderTopStyle === 'none').map((one) => one.outerHTML)"
)


class Found(NamedTuple):
    """What drives a browser, and which."""

    playwright: Any
    axe: Any
    program: str


def found() -> Found:
    """Return both; skip the calling tests where one is missing."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if PACKAGES.is_dir() and str(PACKAGES) not in sys.path:
        sys.path.append(str(PACKAGES))
    try:
        from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415  may be absent
        from playwright.sync_api import sync_playwright  # noqa: PLC0415  may be absent
    except ModuleNotFoundError:
        return _missing("playwright: run `make setup`")
    if program is None:
        return _missing("chromium: apt-get install chromium")
    return Found(sync_playwright, Axe(), program)


def _missing(what: str) -> Found:
    if os.environ.get("BROWSER_TESTS") == "required":
        pytest.fail(f"not installed: {what}")
    pytest.skip(f"not installed: {what}")


@contextmanager
def launched(of: Found) -> Iterator[Any]:
    """Run a browser for a block; it has no network beyond this machine's loopback."""
    with of.playwright() as driver:
        # Root, which tests may run as, gets no sandbox from the kernel.
        options = [
            "--no-sandbox",
            "--disable-gpu",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
        ]
        browser = driver.chromium.launch(executable_path=of.program, args=options)
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A tab, and what went wrong in it."""

    def __init__(self, context: Any, address: str, issuer: str | None = None) -> None:
        """`address` is the server's; what is asked of any other is noted.

        `issuer`: the identity provider's, which one may be led to; what its own pages ask is its business.
        """
        self.page = context.new_page()
        self.page.add_init_script(WATCH)
        self.address, self.issuer = address, issuer
        self.elsewhere: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", self._note)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _note(self, request: Any) -> None:
        if request.url.startswith("data:") or _origin(request.url) in {self.address, self.issuer}:
            return
        if request.is_navigation_request() or _origin(request.frame.url) != self.issuer:
            self.elsewhere.append(request.url)

    def open(self, path: str) -> int:
        """Open a page of the server; return its status."""
        answer = self.page.goto(self.address + path)
        assert answer is not None
        return int(answer.status)

    def wrong(self) -> list[str]:
        """Return everything that went wrong on the page that is open."""
        return [*self.page.evaluate("window.violations"), *self.elsewhere, *self.errors]

    def is_wider_than_its_window(self) -> bool:
        """Return whether one must scroll sideways."""
        root = "document.documentElement"
        return bool(self.page.evaluate(f"{root}.scrollWidth > {root}.clientWidth"))


def _origin(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


def check_keyboard(page: Any) -> None:
    """Check that Tab reaches everything on a page that is to be used, and that one sees where it is."""
    page.evaluate("document.activeElement.blur()")
    reached, wanted = set(), page.evaluate(f"{FOCUSABLE}.length")
    # From wherever the keyboard was, and once around.
    for _ in range(2 * wanted + 2):
        page.keyboard.press("Tab")
        focus = page.evaluate(FOCUSED)
        if focus is None:
            continue
        assert focus["outline"] != "none", page.url
        assert focus["width"] >= 2, page.url
        reached.add(focus["seen"])
        if len(reached) == wanted:
            break
    left = f"{FOCUSABLE}.filter((one) => !one.dataset.seen).map((one) => one.outerHTML)"
    assert (len(reached), page.evaluate(left)) == (wanted, []), page.url


def tab_to(page: Any, name: str) -> None:
    """Press Tab until the link, button or field of this name has the focus."""
    wanted = page.get_by_role("link", name=name).or_(page.get_by_label(name))
    for _ in range(60):
        if wanted.evaluate("(one) => one === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"the keyboard does not reach {name!r}")


def follow(page: Any, name: str) -> None:
    """Follow a link, by the keyboard alone."""
    tab_to(page, name)
    page.keyboard.press("Enter")


def tab(chromium: Any, visitor: Visitor, **options: Any) -> Watched:
    """Open a tab with the session of a visitor."""
    context = chromium.new_context(viewport=options.pop("viewport", WIDE), **options)
    address = f"http://{visitor.host}"
    if visitor.cookie is not None:
        name, _, value = visitor.cookie.partition("=")
        context.add_cookies([{"name": name, "value": value, "url": f"{address}/console"}])
    return Watched(context, address)
