"""What `make docs` checks in the pages that Sphinx wrote: links and anchors lead somewhere, nothing is fetched elsewhere.

`python -m tests.support.built_site DIRECTORY` prints what is wrong, and fails.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Attributes by which a browser fetches something without a click.
FETCHES = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "img": ("src", "srcset"),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
}
ELSEWHERE = re.compile(r"(\s|^)([a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
STYLE = re.compile(r"(?:url\(|@import)\s*[\"']?((?:[a-z]+:)?//[^\"') ;]*)", re.IGNORECASE)


@dataclass
class Page(HTMLParser):
    """What one page fetches, links to, and can be linked to by."""

    text: str
    fetched: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)

    def has(self, anchor: str) -> bool:
        return not anchor or anchor in self.anchors

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        self.fetched += [given[name] for name in FETCHES.get(tag, ()) if name in given]
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])


def wrong(site: Path) -> list[str]:
    """Return what is wrong with a site, a line each."""
    pages = {path: Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}
    found = [f"{path.relative_to(site)}: {one}" for path in pages for one in _of(path, pages)]
    styles = ((path, path.read_text("utf-8")) for path in sorted(site.rglob("*.css")))
    return found + [
        f"{path.relative_to(site)}: fetches {address}"
        for path, text in styles
        for address in STYLE.findall(text)
    ]


def _of(path: Path, pages: dict[Path, Page]) -> Iterator[str]:
    page = pages[path]
    yield from (f"fetches {one}" for one in page.fetched if ELSEWHERE.search(one))
    yield from (f"fetches {one}" for one in STYLE.findall(page.text))
    for link in page.links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
        if not target.is_file():
            yield f"links to {link}, which is not there"
        elif target in pages and not pages[target].has(unquote(parts.fragment)):
            yield f"links to {link}, an anchor that is not there"


def main(directory: str) -> int:
    site = Path(directory).resolve()
    found = wrong(site)
    count = len(list(site.rglob("*.html")))
    print("\n".join(found) if found else f"{count} pages, begin at {directory}/index.html")
    return int(bool(found) or count == 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
