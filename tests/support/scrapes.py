"""What a server's `/metrics` says, parsed as Prometheus would."""

import json
import urllib.request
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families
from tests.support.servers import Server, wait_until

SETTINGS = {"metrics_address": "127.0.0.1:0"}
SCRAPE_SECONDS = 30.0


class Scrape:
    """One scrape: samples by name and labels."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def names(self) -> set[str]:
        return {sample.name for sample in self.samples}

    def series(self) -> set[tuple[str, frozenset[tuple[str, str]]]]:
        return {(one.name, frozenset(one.labels.items())) for one in self.samples}

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of all samples that have these labels."""
        return sum(
            one.value for one in self.samples if one.name == name and _has(one.labels, labels)
        )

    def counters(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Return every sample that must not go backwards."""
        return {
            (one.name, frozenset(one.labels.items())): one.value
            for family in self.families
            if family.type in {"counter", "histogram"}
            for one in family.samples
        }


def scrape(server: Server) -> Scrape:
    return Scrape(text(server))


def text(server: Server) -> str:
    with urllib.request.urlopen(address(server), timeout=SCRAPE_SECONDS) as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=")
        found: bytes = answer.read()
    return found.decode()


def address(server: Server) -> str:
    return str(json.loads((server.data / "run" / "server.json").read_text("utf-8"))["metrics"])


def _has(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(labels.get(name) == value for name, value in wanted.items())


class Growth:
    """How much the counters of a server grow from here on."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._before = scrape(server)

    def by(self, count: float, name: str, **labels: str) -> None:
        """Wait until the samples with these labels are greater by so much; more is an error."""
        end = self._before.total(name, **labels) + count
        self.until(end, name, **labels)

    def until(self, value: float, name: str, **labels: str) -> None:
        """Wait until the samples with these labels are so much in all."""
        wait_until(
            lambda: scrape(self._server).total(name, **labels) == value,
            f"{name} {labels} is {value}",
        )
