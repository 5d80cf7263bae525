"""docs/reference/configuration.md names every setting with its default."""

import re
from dataclasses import fields
from pathlib import Path

from tunewarden.config import Config

DOCUMENT = Path(__file__).parents[2] / "docs/reference/configuration.md"


def test_every_setting_is_documented_with_its_default() -> None:
    rows = dict(
        re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    )
    config = Config()
    found = {field.name: str(getattr(config, field.name)) for field in fields(Config)}
    found["scratch_may_be_a_disk"] = found["scratch_may_be_a_disk"].lower()
    assert rows == found
