"""docs/reference/configuration.md shows every setting as src/tunewarden/config.py declares it.

After a change that is meant: `pytest tests/docs/test_configuration.py --update-golden`, and read the difference.
"""

from pathlib import Path

import pytest
from tests.support.references import pages

from tunewarden.config import SETTINGS
from tunewarden.settings import BYTES, Setting

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"
IEC = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def test_the_reference_shows_the_settings_as_they_are_declared(
    pytestconfig: pytest.Config,
) -> None:
    pages.hold(PAGE, pages.with_table(PAGE.read_text("utf-8"), "settings", _table()), pytestconfig)


def test_control_the_reference_has_a_row_for_each_setting() -> None:
    rows = _table().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(SETTINGS)
    assert (
        "| `port` (`--port`) | `8800` | 0 to 65535 | port to listen on; 0 takes a free one |"
        in rows
    )
    assert any(row.startswith("| `body_bytes_max` | `33554432` | 1 KiB to 2 GiB |") for row in rows)
    assert any(row.startswith("| `fence_seconds` | `1.0` | 0.01 to 60 seconds |") for row in rows)


def _table() -> str:
    head = ("| setting | default | may be | meaning |", "|---|---|---|---|")
    return "".join(f"{line}\n" for line in (*head, *map(_row, SETTINGS.values())))


def _row(setting: Setting) -> str:
    name = f"`{setting.name}` (`{setting.flag}`)" if setting.has_flag else f"`{setting.name}`"
    default = f"`{setting.shown(setting.default)}`"
    return f"| {name} | {default} | {_range(setting)} | {setting.meaning} |"


def _range(setting: Setting) -> str:
    if isinstance(setting.default, bool):
        return "`true`, `false`"
    if setting.choices:
        return ", ".join(f"`{one}`" for one in setting.choices)
    if setting.limits is None:
        return ""
    least, most = setting.limits
    if setting.unit == BYTES:
        return f"{_size(int(least))} to {_size(int(most))}"
    return f"{least} to {most} {setting.unit}".rstrip()


def _size(count: int) -> str:
    """Return a number of bytes in the largest unit in which it is whole."""
    power = 0
    while count and count % 1024 == 0:
        count //= 1024
        power += 1
    return f"{count} {IEC[power]}"
