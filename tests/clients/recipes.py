"""The code of the pages in docs/how-to/clients: what they show is what runs.

A block of code is a file of a client, named after its language: ```` ```python langchain.py ````.
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "how-to" / "clients"
BLOCK = re.compile(r"^```\w+ (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A file as a page shows it."""

    page: Path
    file: str
    code: str

    @property
    def client(self) -> str:
        return self.file.partition(".")[0]


def recipes() -> list[Recipe]:
    """Return every recipe of every page."""
    return [
        Recipe(page, file, code)
        for page in sorted(PAGES.glob("*.md"))
        for file, code in BLOCK.findall(page.read_text("utf-8"))
    ]
