"""The step loop: continuous batching in one thread. Sequences join and leave the batch between decode steps.

Everything else that touches the model (load, evict, abort) is a closure that runs between two steps, so nothing
here needs a lock, and a delete is done when its closure has run. A delete does not wait for the current step:
the step is abandoned, and repeated afterwards.
"""

import logging
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import TypeVar

import torch

from tunewarden.embedded_engine import kv_cache as kv
from tunewarden.embedded_engine import prefill as joins
from tunewarden.embedded_engine.lora import Interrupted, Selection
from tunewarden.embedded_engine.model import Base
from tunewarden.embedded_engine.prefill import Joining, Limits, Running
from tunewarden.embedded_engine.prefix_cache import Prefixes
from tunewarden.embedded_engine.queued import Queued
from tunewarden.embedded_engine.sampling import choose
from tunewarden.embedded_engine.sequences import Delta, Receiver, Row
from tunewarden.embedded_engine.waiting import WaitingRows
from tunewarden.engine_protocol.codes import Code
from tunewarden.errors import Error, Kind

logger = logging.getLogger(__name__)

T = TypeVar("T")
News = tuple[Receiver, "Delta | Error"]
# How often one step may be abandoned: however many deletes come, the batch makes progress.
INTERRUPTIONS_MAX = 3


class StepLoop:
    """Runs one base. `publish` gets each step's deltas in one call, on the step thread.

    `slot_of` returns an adapter's slot, or None if it is not loaded; it is called on the step thread.
    """

    def __init__(
        self,
        base: Base,
        *,
        limits: Limits,
        slot_of: Callable[[str | None], int | None],
        publish: Callable[[list[News]], None],
    ) -> None:
        self.tokens_generated = 0
        self.prefixes = Prefixes(limits.prefix_bytes)
        self._base = base
        self._limits = limits
        self._slot_of = slot_of
        self._publish = publish
        self._is_readers_turn = True
        self._urgent = threading.Event()
        self._interruptions = 0
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting = WaitingRows(limits.waiting_tokens)
        self._joining: Joining | None = None
        self._running: Running | None = None
        self._news: list[News] = []
        self._thread = threading.Thread(target=self._run, name="steps", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Abort everything and return when the thread has ended."""
        self._orders.put(None)
        self._thread.join()

    def submit(self, request: Queued) -> None:
        """Queue a request. Raises Error(UNAVAILABLE) if the queue is full."""
        self._waiting.announce(request)
        self._orders.put(lambda: self._accept(request))

    def between_steps(self, work: Callable[[], T], *, is_urgent: bool = False) -> "Future[T]":
        """Run `work` on the step thread between two steps; return a future of its result.

        If it is urgent, the running step is abandoned, unless that happened too often.
        """
        future: Future[T] = Future()

        def order() -> None:
            try:
                future.set_result(work())
            except Exception as error:  # noqa: BLE001 - it is raised where the future is awaited
                future.set_exception(error)

        self._orders.put(order)
        if is_urgent:
            self._urgent.set()
        return future

    def abort_all(self) -> None:
        """Abort every request soon; new ones are still accepted."""
        self.between_steps(lambda: self.drop(lambda row: True, _stopping()))

    def adapters_in_use(self) -> set[str]:
        """Return the adapters of all rows that wait or run. Call it between steps."""
        return {one.adapter for one in self._all() if one.adapter is not None}

    def counts(self) -> tuple[int, int]:
        """Return how many rows run and how many wait. Thread-safe; the figures may be stale."""
        running, joining = self._running, self._joining
        count = len(running.rows) if running else 0
        return count + (len(joining.batch.rows) if joining else 0), len(self._waiting)

    def drop(self, unwanted: Callable[[Row | Queued], bool], reason: Error | None) -> int:
        """Abort requests, and overwrite their keys, values and gathered weights. Call it between steps.

        Their receivers get `reason`, if any. Returns the number of requests.
        """
        dropped = [one for one in self._all() if unwanted(one)]
        if not dropped:
            return 0
        gone = set(dropped)
        self._waiting.drop(gone.__contains__)
        if self._joining and not gone.isdisjoint(self._joining.batch.rows):
            batch = self._joining.batch
            kv.erase(batch.cache)
            batch.selection.erase()
            self._waiting.put_back([row for row in batch.rows if row not in gone])
            self._joining = None
        if self._running and not gone.isdisjoint(self._running.rows):
            rows = self._running.rows
            staying = [at for at, row in enumerate(rows) if row not in gone]
            self._running = self._kept(self._running, staying)
        receivers = {one.receiver for one in dropped}
        if reason is not None:
            self._news += [(receiver, reason) for receiver in receivers]
            self._flush()
        return len(receivers)

    def _all(self) -> Iterable[Row | Queued]:
        yield from self._waiting
        if self._joining:
            yield from self._joining.batch.rows
        if self._running:
            yield from self._running.rows

    @torch.inference_mode()
    def _run(self) -> None:
        while self._obey():
            try:
                self._step()
            except Exception:  # the thread must outlive any one batch; this is its outermost frame
                logger.exception("a step failed; its requests are aborted")
                self.drop(lambda row: True, _failed())
            self._flush()
        self.drop(lambda row: True, _stopping())
        self.prefixes.clear()

    def _obey(self) -> bool:
        """Run queued closures; wait for one if the batch is empty. False means stop."""
        self._urgent.clear()  # first: it is set only after its closure was queued
        while True:
            is_idle = not (self._waiting or self._joining or self._running)
            try:
                order = self._orders.get(block=is_idle)
            except queue.Empty:
                return True
            if order is None:
                return False
            order()

    def _accept(self, request: Queued) -> None:
        if self._slot_of(request.adapter) is None:
            self._waiting.withdraw(request)
            self._news.append((request.receiver, not_loaded(request.adapter)))
            self._flush()
        else:
            self._waiting.add(request)

    def _step(self) -> None:
        """Run one step; abandon it, to be repeated, if an urgent closure was queued."""
        urgent = self._urgent if self._interruptions < INTERRUPTIONS_MAX else None
        try:
            self._turn(urgent)
            self._interruptions = 0
        except Interrupted:
            self._interruptions += 1

    def _turn(self, urgent: threading.Event | None) -> None:
        """Either prefill or decode: alternately if both are pending."""
        if self._running is None or self._is_readers_turn:
            limits = self._limits
            tokens = (
                limits.prefill_tokens if self._running is None else limits.prefill_tokens_beside
            )
            if self._joining is None and self._waiting:
                self._begin_joining(tokens)
            if self._joining is not None:
                self._read_prompts(self._joining, tokens, urgent)
                self._is_readers_turn = False
                return
        if self._running is not None:
            self._advance(self._running, urgent)
            self._is_readers_turn = True

    def _advance(self, running: Running, urgent: threading.Event | None) -> None:
        """Decode the next token of every running row."""
        mask = torch.nn.functional.pad(running.mask, (0, 1), value=1)
        ids = torch.tensor([[row.last] for row in running.rows])
        logits = self._base.forward(ids, mask, running.cache, running.selection, urgent)
        running.mask = mask
        self._running = self._kept(running, self._take(running.rows, logits))

    def _begin_joining(self, tokens: int) -> None:
        running = self._running.rows if self._running else []
        candidates = self._waiting.next_ones(running, self._limits.rows)
        rows = joins.next_rows(candidates, tokens, self.prefixes)
        if rows:
            self._joining = joins.begin(rows, self.prefixes, self._select)
        self._waiting.take(
            rows
        )  # only now: if beginning fails, the waiting rows must still get the error

    def _read_prompts(self, joining: Joining, tokens: int, urgent: threading.Event | None) -> None:
        """Prefill one chunk; when the prompts are complete, join the running rows."""
        batch = joining.batch
        # Several rows are always prefilled in one step (prefill.next_rows).
        upto = (
            joining.columns if len(batch.rows) > 1 else min(joining.columns, joining.done + tokens)
        )
        ids = joining.ids[:, joining.done : upto]
        reports = batch.rows[0].reports_prompt  # as all of them (prefill.next_rows)
        mask = batch.mask[:, :upto]
        logits = self._base.forward(
            ids, mask, batch.cache, batch.selection, urgent, logits_of_all=reports
        )
        if reports:
            for row, of_row in zip(batch.rows, logits, strict=True):
                row.note_prompt(of_row, joining.done - (joining.columns - len(row.prompt)))
            logits = logits[:, -1]
        joining.done = upto
        if upto < joining.columns:
            return
        for row in batch.rows:
            self._news += [(row.receiver, delta) for delta in row.prompt_read()]
        staying = self._take(batch.rows, logits)
        self._flush()  # before caching the prefixes, which no client waits for
        joining.store(self.prefixes)
        joined = self._kept(batch, staying)
        self._joining = None
        if joined is not None:
            self._running = self._joined(self._running, joined) if self._running else joined

    def _joined(self, running: Running, joining: Running) -> Running:
        """Merge both into one batch; overwrite their old gathered weights and caches."""
        kv.join(running.cache, joining.cache)
        columns = max(running.mask.shape[1], joining.mask.shape[1])
        masks = [
            torch.nn.functional.pad(mask, (columns - mask.shape[1], 0))
            for mask in (running.mask, joining.mask)
        ]
        running.selection.erase()
        joining.selection.erase()
        rows = running.rows + joining.rows
        return Running(rows, torch.cat(masks), running.cache, self._select(rows))

    def _take(self, rows: Sequence[Row], logits: torch.Tensor) -> list[int]:
        """Sample each row's token and record the deltas; return the rows that continue."""
        choices = choose(logits, [row.chooser for row in rows])
        self.tokens_generated += len(choices)
        staying = []
        for at, (row, choice) in enumerate(zip(rows, choices, strict=True)):
            delta = row.take(choice)
            if delta is None or delta.finish is None:
                staying.append(at)
                problem = None if row.matcher is None else row.matcher.problem
                if problem is not None:  # of the next token, which a row that ends does not need
                    self._give_up(row.receiver, problem)  # before the next step
                    continue
            if delta is not None:
                self._news.append((row.receiver, delta))
        return staying

    def _give_up(self, receiver: Receiver, problem: Error) -> None:
        """Abort a request before the next step."""
        self.between_steps(lambda: self.drop(lambda one: one.receiver is receiver, problem))

    def _kept(self, batch: Running, staying: Sequence[int]) -> Running | None:
        """Return the batch without the other rows, whose keys and values are overwritten."""
        if len(staying) == len(batch.rows):
            return batch
        batch.selection.erase()
        if not staying:
            kv.erase(batch.cache)
            return None
        mask = batch.mask[list(staying)]
        trim = int((mask.cumsum(1) == 0).all(0).sum())
        kv.keep_rows(batch.cache, staying, trim)
        rows = [batch.rows[at] for at in staying]
        return Running(rows, mask[:, trim:], batch.cache, self._select(rows))

    def _select(self, rows: Sequence[Row]) -> Selection:
        slots = []
        for row in rows:
            slot = self._slot_of(row.adapter)
            assert slot is not None, "a row outlived its adapter"
            slots.append(slot)
        return Selection(slots)

    def _flush(self) -> None:
        if self._news:
            news, self._news = self._news, []
            self._publish(news)


def not_loaded(name: str | None) -> Error:
    """Return the error that makes the gateway load an adapter (again)."""
    return Error(
        Kind.NOT_FOUND,
        f"The model `{name}` is not loaded in this engine.",
        param="model",
        code=Code.ADAPTER_NOT_LOADED,
    )


def _failed() -> Error:
    return Error(Kind.ENGINE_FAILED, "The engine failed on this request.", code=Code.ENGINE_FAILED)


def _stopping() -> Error:
    return Error(
        Kind.UNAVAILABLE,
        "The engine is stopping.",
        code=Code.ENGINE_STOPPING,
        retry_after_seconds=1,
    )
