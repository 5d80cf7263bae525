"""Single sign-on in a real browser: its pages are like all others, and the provider is the only one that is asked.

The provider is the npm package oidc-provider; its own pages are not looked at.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.console.test_single_sign_on import OWNER, grow_old, server
from tests.support import browser, identity_provider, servers
from tests.support.browser import Found, Watched
from tests.support.servers import ORGANIZATION, Server, WithoutTorch

__all__ = ["server"]

pytestmark = pytest.mark.long

STRANGER = "nobody@example.com"
PROVE = re.compile("[Pp]rove")
# An issuer that no program answers for: the port of "discard".
NO_ISSUER = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def issuer(server: Server) -> str:
    """The provider's address, as the server leads there."""
    there = urlsplit(identity_provider.Person(server).begin())
    return f"{there.scheme}://{there.netloc}"


@pytest.fixture(scope="module")
def without_issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    place: Path = tmp_path_factory.mktemp("no-issuer")
    (place / "secret").write_text("unused\n")
    settings = {
        "sso_issuer": NO_ISSUER,
        "sso_client_id": "tunewarden",
        "sso_client_secret_file": place / "secret",
        "sso_organization": ORGANIZATION,
    }
    with servers.serving(
        place / "data", workers=1, settings=settings, kind=WithoutTorch
    ) as running:
        yield running


class Somebody:
    """A person with a browser of their own."""

    def __init__(self, chromium: Any, server: Server, issuer: str, **options: Any) -> None:
        self.context = chromium.new_context(
            viewport=options.pop("viewport", browser.WIDE), **options
        )
        self.tab = Watched(self.context, "http://{}:{}".format(*server.address), issuer)
        self.page = self.tab.page

    def begin(self, path: str = "/console/sign-in") -> None:
        """Go to the provider, from the page that leads there."""
        self.tab.open(path)
        browser.follow(self.page, "Sign in at your identity provider")
        self.page.wait_for_url(f"{self.tab.issuer}/**")

    def log_in(self, login: str, page: Any = None) -> None:
        """Log in at the provider, by the keyboard alone; consent if it asks."""
        page = page or self.page
        page.get_by_placeholder("Enter any login").focus()
        page.keyboard.type(login)
        page.keyboard.press("Tab")
        page.keyboard.type("any")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Continue").or_(page.locator("header.top")).wait_for()
        if page.get_by_role("button", name="Continue").count():
            page.get_by_role("button", name="Continue").press("Enter")
        page.wait_for_url(f"{self.tab.address}/**")

    def sign_in(self, login: str = OWNER) -> None:
        self.begin()
        self.log_in(login)


@pytest.fixture
def somebody(chromium: Any, server: Server, issuer: str) -> Iterator[Callable[..., Somebody]]:
    made: list[Somebody] = []

    def make(**options: Any) -> Somebody:
        made.append(Somebody(chromium, server, issuer, **options))
        return made[-1]

    yield make
    for one in made:
        one.context.close()


def _sign_in_page(one: Somebody, server: Server) -> None:
    one.tab.open("/console/models")
    one.page.get_by_role("link", name="Sign in at your identity provider").wait_for()


def _denied(one: Somebody, server: Server) -> None:
    one.begin("/console/sign-in?next=/console/jobs")
    one.page.get_by_role("link", name="[ Cancel ]").click()
    one.page.get_by_text("did not sign you in (access_denied)").wait_for()


def _unknown_attempt(one: Somebody, server: Server) -> None:
    """What comes back has the state of another attempt, or none of this browser: its cookie ends after ten minutes."""
    one.begin()
    one.context.clear_cookies(name=re.compile("-sso$"))
    one.log_in(OWNER)
    one.page.get_by_text("more than ten minutes ago").wait_for()


def _no_person_here(one: Somebody, server: Server) -> None:
    one.sign_in(STRANGER)
    one.page.get_by_role("heading", name="Not allowed").wait_for()


def _deletion_with_an_old_proof(one: Somebody, server: Server) -> None:
    one.sign_in()
    grow_old(server)
    one.tab.open(f"/console/models/{server.make_model().id}/delete")
    one.page.get_by_role("link", name=PROVE).first.wait_for()


def _act_with_an_old_proof(one: Somebody, server: Server) -> None:
    model = server.make_model().id
    server.request(
        "POST",
        f"/v1/models/{model}",
        key=server.owner_key,
        headers={"content-type": "application/json"},
        body=b'{"protected":true}',
    )
    one.sign_in()
    grow_old(server)
    one.tab.open(f"/console/models/{model}")
    one.page.get_by_role("button", name="Lift the protection").click()
    one.page.get_by_role("heading", name="Lift the protection").wait_for()


def _proof_denied(one: Somebody, server: Server) -> None:
    _deletion_with_an_old_proof(one, server)
    one.page.get_by_role("link", name=PROVE).first.click()
    one.page.get_by_role("link", name="[ Cancel ]").click()
    one.page.get_by_role("link", name="Prove once more who you are").wait_for()


SHOWN = (
    _sign_in_page,
    _denied,
    _unknown_attempt,
    _no_person_here,
    _deletion_with_an_old_proof,
    _act_with_an_old_proof,
    _proof_denied,
)
EACH = pytest.mark.parametrize("show", SHOWN, ids=[one.__name__.strip("_") for one in SHOWN])


@EACH
def test_a_page_is_clean_by_axe_and_used_by_keyboard_and_asks_nobody_but_the_provider(
    somebody: Callable[..., Somebody],
    server: Server,
    found: Found,
    show: Callable[[Somebody, Server], None],
) -> None:
    for scheme in ("light", "dark"):
        one = somebody(color_scheme=scheme)
        show(one, server)
        one.page.wait_for_load_state()
        result = found.axe.run(one.page)
        assert result.violations_count == 0, f"{scheme}: {result.generate_report()}"
        assert one.tab.wrong() == []
        assert one.page.title().endswith("· Tunewarden")
    browser.check_keyboard(one.page)


@EACH
def test_a_page_is_narrow_or_enlarged_or_in_forced_colours(
    somebody: Callable[..., Somebody], server: Server, show: Callable[[Somebody, Server], None]
) -> None:
    one = somebody(forced_colors="active")
    show(one, server)
    one.page.wait_for_load_state()
    assert one.page.evaluate(browser.BARE) == []
    for viewport in (browser.NARROW, browser.ENLARGED):
        one.page.set_viewport_size(viewport)
        assert not one.tab.is_wider_than_its_window(), viewport


@pytest.mark.parametrize("has_scripts", [True, False])
def test_by_keyboard_alone_a_person_signs_in_proves_it_again_and_deletes_a_model(
    somebody: Callable[..., Somebody], server: Server, *, has_scripts: bool
) -> None:
    one = somebody(java_script_enabled=has_scripts)
    blocked: list[str] = []
    one.page.on("console", lambda said: blocked.append(said.text) if "Security" in said.text else 0)
    model = server.make_model(suffix="by-sso").id
    page = f"/console/models/{model}/delete"
    one.begin(page)  # which leads to the sign-in, and back
    one.log_in(OWNER)
    one.page.wait_for_url(f"**{page}")
    grow_old(server)
    one.tab.open(page)
    one.page.get_by_role("link", name=PROVE).first.press("Enter")
    one.log_in(OWNER)
    one.page.wait_for_url(f"**{page}")
    browser.tab_to(one.page, "Type or paste the id of the model")
    one.page.keyboard.type(model)
    one.page.keyboard.press("Enter")
    one.page.wait_for_url("**/console/deletions/del_*")
    assert server.get(f"/v1/models/{model}", key=server.owner_key).status == 404
    ours = [said for said in blocked if "fonts.googleapis" not in said]
    assert (ours, one.tab.elsewhere, one.tab.errors) == ([], [], [])


def test_in_a_new_tab_it_is_proved_before_a_protection_is_lifted(
    somebody: Callable[..., Somebody], server: Server
) -> None:
    one = somebody()
    _act_with_an_old_proof(one, server)
    with one.context.expect_page() as opened:
        one.page.get_by_role("link", name="Prove it at your identity provider").click()
    one.log_in(OWNER, opened.value)
    one.page.get_by_role("button", name="Lift the protection").press("Enter")
    one.page.get_by_role("button", name="Protect").wait_for()
    assert one.tab.wrong() == []


def test_who_was_refused_gets_a_way_on_to_where_they_wanted(
    somebody: Callable[..., Somebody], server: Server
) -> None:
    one = somebody()
    _denied(one, server)
    one.page.get_by_role("link", name="Sign in").press("Enter")
    browser.follow(one.page, "Sign in at your identity provider")
    one.log_in(OWNER)
    assert one.page.url == f"{one.tab.address}/console/jobs"
    proving, stranger = somebody(), somebody()
    _proof_denied(proving, server)
    proving.page.get_by_role("link", name="Prove once more who you are").press("Enter")
    proving.log_in(OWNER)
    assert proving.page.url.endswith("/delete")
    _no_person_here(stranger, server)
    stranger.page.get_by_role("link", name="Sign in").press("Enter")
    stranger.page.get_by_label("API key").wait_for()


def test_a_provider_that_does_not_answer_leaves_the_key(
    chromium: Any, found: Found, without_issuer: Server
) -> None:
    one = Somebody(chromium, without_issuer, NO_ISSUER)
    one.tab.open("/console/sign-in")
    browser.follow(one.page, "Sign in at your identity provider")
    one.page.get_by_role("heading", name="Not available now").wait_for()
    assert found.axe.run(one.page).violations_count == 0
    one.page.get_by_role("link", name="Go to the first page").press("Enter")
    one.page.get_by_label("API key").fill(without_issuer.owner_key)
    one.page.get_by_label("API key").press("Enter")
    one.page.wait_for_url("**/console")
    assert one.tab.wrong() == []
    one.context.close()
