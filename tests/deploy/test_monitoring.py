"""Dashboard and alert rules ask for nothing that a scrape does not have."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tunewarden.metrics.families import FAMILIES, Kind

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
ALERTS = MONITORING / "alerts.yml"
PAGE = ROOT / "docs" / "how-to" / "monitor.md"
PARTS = ("_bucket", "_sum", "_count")
# Of Prometheus itself, and what `by` and `label_values` name.
OF_PROMETHEUS = {"up", "instance", "job", "le"}
FUNCTIONS = {
    "by", "sum", "max", "min", "rate", "increase", "histogram_quantile", "label_values",
}  # fmt: skip
NAME = re.compile(r"[a-z_][a-z0-9_]*(?=[{\[ )(,]|$)")


def _alerts() -> dict[str, str]:
    """Return each alert's expression, by its name."""
    text = ALERTS.read_text("utf-8")
    found = dict(re.findall(r"- alert: (\w+)\n +expr: (.+)\n", text))
    assert len(found) == text.count("- alert: ") == text.count("summary: ")
    return found


def _dashboard() -> list[str]:
    board = json.loads((MONITORING / "dashboard.json").read_text("utf-8"))
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    asked += [
        one["query"]["query"] for one in board["templating"]["list"] if one["type"] == "query"
    ]
    return asked


def _page() -> list[str]:
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    return [row.split(" | ", 1)[1].strip("| `") for row in rows[2:] if "tunewarden_" in row]


def _unknown(expression: str) -> set[str]:
    """Return the names in an expression that no scrape has, as series or as label."""
    found = re.sub(r"\{([^}]*)\}", lambda labels: f" {_labels(labels[1])} ", expression)
    found = re.sub(r'"[^"]*"|\[[^]]*\]|\$__\w+', " ", found)
    return set(NAME.findall(found)) - FUNCTIONS - _known()


def _labels(text: str) -> str:
    return " ".join(re.findall(r"([a-z_]+)(?:=~|!~|!=|=)", text))


def _known() -> set[str]:
    names = set(OF_PROMETHEUS)
    for family in FAMILIES:
        parts = PARTS if family.kind is Kind.HISTOGRAM else ("",)
        names |= {f"{family.name}{part}" for part in parts} | set(family.labels)
    return names


def test_every_name_is_a_metric_or_a_label_of_ours() -> None:
    asked = [*_alerts().values(), *_dashboard(), *_page()]
    assert len(asked) > 40
    assert {one: unknown for one in asked if (unknown := _unknown(one))} == {}


@pytest.mark.parametrize(
    ("expression", "unknown"),
    [
        ('sum(rate(tunewarden_requests_total{status="429"}[5m]))', set()),
        ("tunewarden_requests", {"tunewarden_requests"}),
        ('tunewarden_requests_total{stat="429"}', {"stat"}),
        ("gen_ai_server_request_duration_seconds", {"gen_ai_server_request_duration_seconds"}),
    ],
)
def test_control_a_name_that_no_scrape_has_is_found(expression: str, unknown: set[str]) -> None:
    assert _unknown(expression) == unknown


def test_the_page_says_what_to_do_for_each_alert() -> None:
    said = PAGE.read_text("utf-8")
    assert [name for name in _alerts() if f"`{name}`" not in said] == []


def test_panels_do_not_overlap() -> None:
    board = json.loads((MONITORING / "dashboard.json").read_text("utf-8"))
    cells = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))


def test_prometheus_takes_the_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian's package prometheus) is not installed")
    subprocess.run([promtool, "check", "rules", str(ALERTS)], check=True, capture_output=True)
