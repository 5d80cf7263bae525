"""`tunewarden config show`, and the flags that follow from the settings."""

import json
from pathlib import Path

from tests.cli.in_process import run_cli

from tunewarden.config import SETTINGS


def test_each_setting_is_shown_with_its_value_and_where_it_came_from(tmp_path: Path) -> None:
    (tmp_path / "tunewarden.toml").write_text("rank_max = 8\n")
    settings = {
        "TUNEWARDEN_DATA": str(tmp_path),
        "TUNEWARDEN_DOCS_ARE_OPEN": "True",
        "OPENAI_API_KEY": "sk-tw-secret",
    }
    shown = run_cli("config", "show", "--port", "0", settings=settings)
    assert shown.returncode == 0
    rows = [line.split("\t") for line in shown.stdout.splitlines()]
    assert [row[0] for row in rows] == list(SETTINGS)
    assert {row[0]: row[1:] for row in rows if row[2] != "default"} == {
        "data": [str(tmp_path), "environment TUNEWARDEN_DATA"],
        "port": ["0", "flag --port"],
        "rank_max": ["8", "file tunewarden.toml"],
        "docs_are_open": ["true", "environment TUNEWARDEN_DOCS_ARE_OPEN"],
    }
    assert ["host", "127.0.0.1", "default"] in rows
    assert "sk-tw-secret" not in shown.stdout + shown.stderr


def test_scripts_get_values_in_their_own_types(tmp_path: Path) -> None:
    shown = run_cli("config", "show", "--data", str(tmp_path), "--workers", "2", "--json")
    found = {one["id"]: (one["value"], one["from"]) for one in json.loads(shown.stdout)["data"]}
    assert list(found) == list(SETTINGS)
    assert found["workers"] == (2, "flag --workers")
    assert found["docs_are_open"] == (False, "default")
    assert found["data"] == (str(tmp_path), "flag --data")


def test_what_is_wrong_is_said_in_a_line(tmp_path: Path) -> None:
    refused = run_cli("config", "show", "--data", str(tmp_path), settings={"TUNEWARDEN_PORT": "x"})
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "Error: Setting 'port' must be a whole number from 0 to 65535.\n"


def test_a_flag_has_the_limits_and_the_default_of_its_setting() -> None:
    assert run_cli("serve", "--workers", "257").returncode == 2
    shown = " ".join(run_cli("serve", "--help").stdout.split())
    for setting in SETTINGS.values():
        known = f"[{setting.variable}; default: {setting.default}]"
        assert (known in shown) == (f"{setting.flag} " in shown) == setting.has_flag
