"""The pages as a site: each is in its navigation, and what `make docs` looks for is found. The build is `make check`'s."""

import re
from pathlib import Path

import pytest
from tests.support.built_site import wrong

ROOT = Path(__file__).parents[2]
INDEX = ROOT / "docs/index.md"
DECISIONS = ROOT / "docs/decisions"


def test_every_page_is_in_a_list_of_the_index() -> None:
    listed = re.findall(r"^- \[[^]]+\]\(([^)]+)\)", INDEX.read_text("utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(set(listed))
    pages = {
        page.resolve()
        for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
        if page.parent != DECISIONS
    }
    wanted = pages - {INDEX} | {DECISIONS / "index.md"}
    assert {(INDEX.parent / one).resolve() for one in listed} == wanted


def test_check_builds_the_pages_and_fails_on_a_warning() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert re.search(r"^check: .*\bdocs\b", makefile, re.MULTILINE)
    recipe = makefile.split("\ndocs:")[1].split("\n\n")[0]
    assert "--fail-on-warning" in recipe
    assert "tests.support.built_site" in recipe


def test_a_good_page_passes(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="b.html#x">b</a><a href="https://elsewhere/">e</a>')
    (tmp_path / "b.html").write_text('<h1 id="x">b</h1><a href="#x">b</a><img src="i.svg">')
    (tmp_path / "a.css").write_text("a { background: url(i.svg) } b { content: '//' }")
    assert wrong(tmp_path) == []


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("a.html", '<a href="gone.html">x</a>', "links to gone.html, which is not there"),
        ("a.html", '<a href="#gone">x</a>', "links to #gone, an anchor that is not there"),
        ("a.html", '<script src="https://cdn/x.js"></script>', "fetches https://cdn/x.js"),
        ("a.html", '<link rel="preconnect" href="//cdn">', "fetches //cdn"),
        ("a.html", '<img srcset="a.png 1x, https://cdn/b.png 2x">', "fetches a.png 1x, https://cd"),
        ("a.html", "<style>@import 'https://cdn/a.css'</style>", "fetches https://cdn/a.css"),
        ("a.css", "a { background: url('//cdn/a.png') }", "fetches //cdn/a.png"),
    ],
)
def test_control_what_is_wrong_is_found(tmp_path: Path, file: str, text: str, says: str) -> None:
    (tmp_path / file).write_text(text)
    [found] = wrong(tmp_path)
    assert found.startswith(f"{file}: {says}")
