"""Every page of the console in a real browser: nothing from elsewhere, no script but ours, for everybody's eyes and hands."""

import re
from typing import Any

import pytest
from tests.console.test_authorization import visitors
from tests.support import browser
from tests.support.browser import Found
from tests.support.console import Visitor
from tests.support.servers import Server

from tunewarden.console.pages import PAGES

__all__ = ["visitors"]

pytestmark = pytest.mark.long

# What a page is that is no page: files, streams of events, downloads.
NO_PAGES = re.compile(r"/static/|/receipt$|/changes$|/report$|/links/")
ROLES = ("admin", "owner", "viewer", "nobody")


@pytest.fixture(scope="module")
def paths(targets: dict[str, list[tuple[str, str]]]) -> list[str]:
    """Every page that can be looked at, on something real where there is something."""
    queries = {"/console/delete": f"?id={targets['model_id'][0][1]}"}
    return [
        re.sub(r"{(\w+)}", lambda name: targets[name[1]][0][1], page.path)
        + queries.get(page.path, "")
        for page in PAGES
        if page.method == "GET" and not NO_PAGES.search(page.path)
    ]


@pytest.mark.parametrize("role", ROLES)
def test_a_page_asks_nothing_of_anybody_else_and_keeps_its_policy(
    chromium: Any, visitors: dict[str, Visitor], paths: list[str], role: str
) -> None:
    tab = browser.tab(chromium, visitors[role])
    for path in paths:
        assert tab.open(path) in {200, 403, 404}, path
        if tab.page.locator("script").count():
            tab.page.wait_for_load_state("networkidle")
        assert tab.wrong() == [], path
        assert tab.page.title().endswith("· Tunewarden"), path
    tab.page.context.close()


def test_a_violation_and_a_request_elsewhere_would_be_seen(
    chromium: Any, visitors: dict[str, Visitor]
) -> None:
    """The control: what the test above looks for is there to be found."""
    tab = browser.tab(chromium, visitors["admin"])
    tab.open("/console")
    assert tab.wrong() == []
    tab.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p style=\"color:red\">')")
    tab.page.wait_for_function("window.violations.length > 0")
    assert all("style-src-attr" in one for one in tab.wrong())
    tab.page.goto(f"http://localhost:{visitors['owner'].server.address[1]}/console/sign-in")
    assert len(tab.elsewhere) >= 1
    tab.page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_is_clean_by_axe(
    chromium: Any, visitors: dict[str, Visitor], paths: list[str], found: Found, scheme: str
) -> None:
    tab = browser.tab(chromium, visitors["admin"], color_scheme=scheme)
    for path in paths:
        tab.open(path)
        result = found.axe.run(tab.page)
        assert result.violations_count == 0, f"{path}: {result.generate_report()}"
    tab.page.context.close()


@pytest.mark.parametrize("viewport", [browser.NARROW, browser.ENLARGED])
def test_a_narrow_page_is_never_scrolled_sideways(
    chromium: Any, visitors: dict[str, Visitor], paths: list[str], viewport: dict[str, int]
) -> None:
    """320 px, and 1280 px at 200 %."""
    tab = browser.tab(chromium, visitors["admin"], viewport=viewport)
    for path in paths:
        tab.open(path)
        assert not tab.is_wider_than_its_window(), path
    tab.page.context.close()


def test_the_keyboard_reaches_everything_and_one_sees_where_it_is(
    chromium: Any, visitors: dict[str, Visitor], paths: list[str]
) -> None:
    tab = browser.tab(chromium, visitors["admin"])
    for path in paths:
        tab.open(path)
        browser.check_keyboard(tab.page)
    tab.page.context.close()


def test_without_javascript_each_page_has_its_heading_and_its_content(
    chromium: Any, visitors: dict[str, Visitor], paths: list[str]
) -> None:
    tab = browser.tab(chromium, visitors["admin"], java_script_enabled=False)
    for path in paths:
        tab.open(path)
        assert tab.page.locator("h1").count() == 1, path
        assert len(tab.page.locator("main").inner_text()) > 40, path
    tab.page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_refused_form_has_the_focus_on_why_without_javascript_and_is_clean_by_axe(
    chromium: Any, visitors: dict[str, Visitor], found: Found, scheme: str
) -> None:
    tab = browser.tab(chromium, visitors["admin"], color_scheme=scheme, viewport=browser.NARROW)
    bare = browser.tab(chromium, visitors["admin"], java_script_enabled=False)
    for one in (tab, bare):
        one.open("/console/retention")
        one.page.get_by_label("Suffix, with").fill("night-*")
        one.page.get_by_label("Base (any").fill("no-such-base")
        one.page.get_by_label("Older than").fill("9")
        one.page.get_by_role("button", name="Create the rule").click()
        focused = one.page.locator("[role=alert]:focus")
        focused.get_by_text("There is no base 'no-such-base'.").wait_for()
        assert one.page.get_by_label("Suffix, with").input_value() == "night-*"
        one.page.keyboard.press("Tab")
        one.page.keyboard.press("Enter")
        base = one.page.get_by_label("Base (any")
        assert base.evaluate("(one) => one.getBoundingClientRect().top < innerHeight")
        assert base.get_attribute("aria-describedby") == "wrong"
    result = found.axe.run(tab.page)
    assert result.violations_count == 0, result.generate_report()
    assert not tab.is_wider_than_its_window()
    assert tab.wrong() == []
    for one in (tab, bare):
        one.page.context.close()


def test_forced_colours_hide_nothing(
    chromium: Any, visitors: dict[str, Visitor], paths: list[str]
) -> None:
    """Buttons and badges keep a border, which is all that a background said."""
    tab = browser.tab(chromium, visitors["admin"], forced_colors="active")
    for path in paths:
        tab.open(path)
        assert tab.page.evaluate(browser.BARE) == [], path
    tab.page.context.close()


def test_without_javascript_and_with_the_keyboard_alone_a_model_is_deleted(
    chromium: Any, server: Server
) -> None:
    model = server.make_model(suffix="by-keyboard").id
    link = server.post("/v1/console/links", {}).json["url"]
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(link)
    page.locator("button:focus").wait_for()
    page.keyboard.press("Enter")
    page.wait_for_url("**/console")
    page.goto(f"http://{'{}:{}'.format(*server.address)}/console/models/{model}")
    browser.follow(page, "Delete…")
    page.wait_for_url("**/delete")
    browser.tab_to(page, "Type or paste the id of the model")
    page.keyboard.type(model)
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/deletions/del_*")
    assert page.get_by_role("listitem").filter(has_text="Deleted").count() == 1
    assert server.get(f"/v1/models/{model}", key=server.owner_key).status == 404
    context.close()


def test_a_receipt_is_verified_in_the_browser_with_the_servers_key_and_with_ones_own(
    chromium: Any, server: Server, visitors: dict[str, Visitor]
) -> None:
    model = server.make_model().id
    deleted = server.request("DELETE", f"/v1/models/{model}", key=server.owner_key)
    tab = browser.tab(chromium, visitors["admin"])
    tab.open(f"/console/deletions/{deleted.header('tunewarden-deletion')}")
    # What goes on by itself is shown when it is over, without a hand.
    tab.page.locator(".timeline .done").nth(6).wait_for()
    verify = tab.page.get_by_role("button", name="Verify in this browser")
    verdict = tab.page.get_by_role("status")
    own = tab.page.get_by_label("Your own copy of the log's key")
    genuine = server.get("/.well-known/tunewarden-log-key").body.decode()
    other = (
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n"
    )
    for key, said in (
        ("", "by the key that this server shows"),
        (genuine, "by your copy of the log's key"),
        (
            f"{other}-----END PUBLIC KEY-----",
            "Your copy of the log's key does not prove this receipt",
        ),
        ("no key", "Nothing was checked: your copy of the log's key cannot be read"),
    ):
        own.fill(key)
        verify.click()
        verdict.filter(has_text=said).wait_for()
        if said.startswith("by "):
            assert f"Valid: {model}, entry" in verdict.inner_text(), "the id that people know"
    assert tab.wrong() == []
    tab.page.context.close()
