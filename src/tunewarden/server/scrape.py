"""The text of `/metrics`: what the processes counted, and what rows and the disk say now. Runs in the runner.

`prometheus_client` renders it, from a registry of its own; its global one, and its files for several processes, are
not used. Imported only if metrics are scraped.
"""

import platform
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from http.client import HTTPException
from itertools import accumulate
from typing import cast

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from tunewarden import __version__
from tunewarden.app import App
from tunewarden.canary import adapter, runs
from tunewarden.canary.runs import Result
from tunewarden.clock import to_micros
from tunewarden.deletion import unfinished
from tunewarden.engines.adapter_states import AdapterStates
from tunewarden.errors import Error
from tunewarden.finetuning import transitions
from tunewarden.gateway.tracing import OPERATIONS, PROVIDER
from tunewarden.metrics import families, recording
from tunewarden.metrics.families import Family, Kind
from tunewarden.metrics.memory import Key, Memory
from tunewarden.registry import bases, restore_marks
from tunewarden.webhooks import endpoint_rows

ENGINE_SECONDS = 0.5

Labels = tuple[str, ...]
# Of each metric, the integers of each series: one number, or a histogram's buckets and its sum in microseconds.
Series = dict[Family, dict[Labels, list[int]]]


class Page:
    """Renders the metrics of one server, as a collector of `prometheus_client`."""

    def __init__(self, app: App, memory: Memory) -> None:
        self._app = app
        self._memory = memory
        self._began = to_micros(app.clock.now())
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(cast("Collector", self))  # it has its methods

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format. Raises Error(UNAVAILABLE) if the database cannot be read."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the registry would collect only to learn the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield each metric with its series."""
        series: Series = defaultdict(dict)
        for key, integers in self._memory.totals().items():
            _sort_in(series, key, integers)
        for family, labels, value in self._gauges():
            series[family][labels] = [value]
        for family in families.FAMILIES:
            yield _metric(family, series.get(family, {}))

    def _gauges(self) -> Iterator[tuple[Family, Labels, int]]:
        app = self._app
        now = to_micros(app.clock.now())
        deletions = unfinished.counted(app.database)
        yield families.PENDING, (), deletions.pending
        yield families.OLDEST_PENDING, (), _age_micros(now, deletions.pending_since)
        yield families.UNERASED, (), deletions.unerased
        yield families.OLDEST_UNERASED, (), _age_micros(now, deletions.answered_since)
        bound = int(app.config.deletion_seconds * recording.MICROS)
        yield families.DELETION_BOUND, (), bound
        yield from self._canaries(now)
        with app.database.read() as tx:
            jobs = Counter(job.state for job in transitions.unfinished(tx))
            events = endpoint_rows.pending(tx)
        yield families.WEBHOOKS_PENDING, (), events
        for state, count in jobs.items():
            yield families.JOBS, (state.name.lower(),), count
        local = bases.local(app.database)
        loaded = self._loaded() if local else set()
        for base in local:
            yield families.ENGINE_UP, (base.name,), int(base.name in loaded)
        for one in AdapterStates(app.database, app.engine, app.remote_control).counts():
            yield families.ADAPTERS, (one.base, one.replica, one.state.value), one.count
        yield families.DISK_FREE, (), app.floor.free_bytes()
        yield families.DISK_FLOOR, (), app.floor.floor_bytes
        database = app.config.database
        files = (database, database.with_name(f"{database.name}-wal"))
        yield families.DATABASE, (), sum(file.stat().st_size for file in files if file.exists())
        yield families.LOG_ENTRIES, (), restore_marks.log_size(app.database)
        yield families.BUILD, (__version__, platform.python_version()), 1

    def _canaries(self, now: int) -> Iterator[tuple[Family, Labels, int]]:
        interval = self._app.config.canary_seconds
        if not interval:
            return
        last = runs.last(self._app.database)
        for base in bases.list_all(self._app.database):
            if not adapter.can_be_made(base):
                continue
            run = last.get(base.name)
            since = self._began if run is None else run.not_passed_since
            has_failed = run is not None and run.outcome.result is Result.FAILED
            yield families.CANARY_FAILED, (base.name,), int(has_failed)
            overdue = runs.overdue_micros(since, now, interval)
            yield families.CANARY_OVERDUE, (base.name,), overdue

    def _loaded(self) -> set[str]:
        with suppress(OSError, HTTPException, ValueError, Error):  # it is starting, or down
            return self._app.engine.bases(within_seconds=ENGINE_SECONDS)
        return set()


def _sort_in(series: Series, key: Key, integers: Sequence[int]) -> None:
    """Add what is counted under a key to the series that it is of."""
    name, *labels = key
    if name == recording.INFERENCE:
        _sort_in_inference(series, labels, list(integers))
    elif name == recording.HTTP:
        method, route, status = labels
        _add(series, families.REQUESTS, (method, route, status), [sum(integers[:-1])])
        _add(series, families.REQUEST_DURATION, (method, route), integers)
    else:
        _add(series, BY_NAME[name], tuple(labels), integers)


BY_NAME = {family.name: family for family in families.FAMILIES}


def _sort_in_inference(series: Series, labels: Sequence[str], block: list[int]) -> None:
    route, base, status, error = labels
    duration, first, each, tokens = recording.inference_parts(block)
    _add(series, families.REQUESTS, ("POST", route, status), [sum(duration[:-1])])
    operation = OPERATIONS[route], PROVIDER, base
    _add(series, families.DURATION, (*operation, error), duration)
    if any(first):
        _add(series, families.FIRST_TOKEN, operation, first)
        _add(series, families.OUTPUT_TOKEN, operation, each)
    if base:
        for direction, count in zip(("input", "output"), tokens, strict=True):
            _add(series, families.TOKENS, (base, direction), [count])


def _add(series: Series, family: Family, labels: Labels, integers: Sequence[int]) -> None:
    before = series[family].get(labels, [0] * len(integers))
    series[family][labels] = [a + b for a, b in zip(before, integers, strict=True)]


def _metric(family: Family, series: dict[Labels, list[int]]) -> Metric:
    """Return a metric; a counter or histogram without labels is there from the start, as 0."""
    if not series and not family.labels:
        series = {(): [0] * (len(family.bounds) + 2 if family.kind is Kind.HISTOGRAM else 1)}
    named = family.name, family.meaning
    if family.kind is Kind.HISTOGRAM:
        found = HistogramMetricFamily(*named, labels=family.labels)
        for labels, (*buckets, micros) in sorted(series.items()):
            ends = (*map(floatToGoString, family.bounds), "+Inf")
            found.add_metric(
                labels,
                list(zip(ends, accumulate(buckets), strict=True)),
                micros / recording.MICROS,
            )
        return found
    kind = CounterMetricFamily if family.kind is Kind.COUNTER else GaugeMetricFamily
    simple = kind(*named, labels=family.labels)
    scale = recording.MICROS if family.name.endswith("_seconds") else 1
    for labels, (value,) in sorted(series.items()):
        simple.add_metric(labels, value / scale)
    return simple


def _age_micros(now: int, since: int | None) -> int:
    return 0 if since is None else max(0, now - since)
