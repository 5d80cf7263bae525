"""How Sphinx builds these pages: `make docs` (docs/decisions/0045-pages-by-sphinx.md)."""

import re
from pathlib import Path
from typing import Any

project = "Tunewarden"
copyright = "The Tunewarden authors, Apache-2.0"  # noqa: A001  Sphinx's name
extensions = ["myst_parser"]
# The documents in the repository's root are pages too, so that links between all of them are as they are there.
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md"]
# Walking through an environment takes longer than reading the pages.
exclude_patterns = [
    ".*",
    "benchmarks",
    "deploy",
    "packages",
    "requirements",
    "site",
    "src",
    "tests",
]
myst_heading_anchors = 4
nitpicky = True
html_theme = "furo"
html_title = "Tunewarden"
html_show_sphinx = False
# Nobody needs the Markdown a second time.
html_copy_source = False

DECISIONS = "docs/decisions/index"
HEADING = re.compile(r"^##+ (.+)$", re.MULTILINE)
ITEM = re.compile(r"^- \[([^]]+)\]\(([^)#]+)\.md\)", re.MULTILINE)


def navigation(text: str) -> str:
    """Return the toctrees of an index: one for each heading, with the pages that its list links to."""
    _, *parts = HEADING.split(text)
    trees = [
        "\n".join(
            (
                "```{toctree}",
                ":hidden:",
                f":caption: {heading}",
                "",
                *(f"{title} <{page}>" for title, page in items),
                "```",
            )
        )
        for heading, items in zip(parts[::2], map(ITEM.findall, parts[1::2]), strict=True)
        if items
    ]
    return "\n\n".join(trees)


def decisions() -> str:
    """Return the list of all decisions, by their titles."""
    pages = sorted((Path(__file__).parent / "decisions").glob("0*.md"))
    titles = (page.read_text("utf-8").partition("\n")[0].removeprefix("# ") for page in pages)
    return "\n".join(f"- [{title}]({page.name})" for title, page in zip(titles, pages, strict=True))


def add_navigation(_: Any, page: str, source: list[str]) -> None:
    """Make the navigation of the index's lists. Decisions are in a list of their own, not in it: they are many."""
    if page == root_doc:
        source[0] += f"\n\n{navigation(source[0])}\n"
    elif page == DECISIONS:
        source[0] += f"\n{decisions()}\n"
    elif page.startswith(DECISIONS.removesuffix("index")):
        source[0] = f"---\norphan: true\n---\n\n{source[0]}"


def write_front_page(app: Any, error: Exception | None) -> None:
    """Lead from the site's root to the index, as servers of files ask for it."""
    if error is None:
        target = f"{root_doc}.html"
        page = (
            f'<meta http-equiv="refresh" content="0; url={target}"><a href="{target}">{project}</a>'
        )
        Path(app.outdir, "index.html").write_text(f"<!doctype html>{page}\n", "utf-8")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_navigation)
    app.connect("build-finished", write_front_page)
