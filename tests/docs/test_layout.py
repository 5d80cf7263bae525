"""The documents that show the layout name what is there, and every room of the product."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "tunewarden"
DOCUMENTS = (
    "ARCHITECTURE.md",
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs/explanation/deletion-protocol.md",
    "docs/explanation/threat-model.md",
)
# What a path in a document may be below.
BELOW = (ROOT, SOURCE, ROOT / "docs", ROOT / "tests")
LINK = re.compile(r"\]\(([^)#\s]+[^)\s]*)\)")
PATH = re.compile(r"`((?:src/tunewarden/)?[a-z_0-9]+(?:/[a-z_0-9-]+)*(?:\.py|\.md|\.sql|/))`")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_in_a_document_is_there(document: str) -> None:
    named = set(PATH.findall((ROOT / document).read_text("utf-8")))
    anywhere = {path.name for path in ROOT.glob("src/**/*.py")} | {
        path.name for path in ROOT.glob("tests/**/*.py")
    }
    missing = [
        path
        for path in sorted(named)
        if not any((root / path).exists() for root in BELOW)
        and not ("/" not in path and path in anywhere)
        # Of a data directory, not of the repository.
        and path not in {"blobs/", "keyring/", "log/", "run/"}
    ]
    assert missing == []


def test_every_link_between_documents_leads_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
        for target in LINK.findall(page.read_text("utf-8"))
        if "://" not in target and not (page.parent / target.partition("#")[0]).exists()
    ]
    assert broken == []


def test_the_layout_shows_every_room() -> None:
    rooms = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    for document in ("README.md", "ARCHITECTURE.md"):
        text = (ROOT / document).read_text("utf-8")
        missing = {room for room in rooms if not re.search(rf"\b{room}\b", text)}
        assert missing == set(), document


def test_the_layers_in_architecture_are_the_ones_that_are_checked() -> None:
    listed = (ROOT / "pyproject.toml").read_text("utf-8")
    layers = re.findall(r'"([^"]+)"', listed.split("layers = [")[1].split("]")[0])
    said = (ROOT / "ARCHITECTURE.md").read_text("utf-8").split("**Layers**")[1].split("Nothing")[0]
    shown = re.findall(r"[a-z_]+(?=`| [|/])|(?<=[|] )[a-z_]+", said)
    order = [layer.split(" | ")[0] for layer in layers]
    positions = [shown.index(layer) for layer in order]
    assert positions == sorted(positions)
