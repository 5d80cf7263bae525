"""Whatever organizations ask for and whoever leaves: nobody starves, no place stays free, and rows are shared."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.embedded_engine.test_waiting import rows_of

from tunewarden.embedded_engine.queued import Queued
from tunewarden.embedded_engine.waiting import BATCH_GROWTH, GUARANTEED_ROWS, WaitingRows

ROWS, STEPS_MAX = 8, 5000
ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, 12),  # steps after the one before
        st.sampled_from("abc"),
        st.sampled_from([1, 1, 1, 2, 3, 12, 40]),  # rows
        st.integers(1, 15),  # steps that each row takes
    ),
    min_size=1,
    max_size=25,
)


class Batch:
    """Runs rows, each for its number of steps, and checks what the queue lets in."""

    def __init__(self) -> None:
        self.waiting = WaitingRows(10**9)
        self.running: dict[Any, int] = {}
        self.rows_begun: Counter[Any] = Counter()
        self.extras_begun = 0

    def ask(self, organization: str, count: int, steps: int) -> Queued:
        receiver: Any = object()

        def rows() -> Iterator[Any]:
            for row in rows_of(organization, count, receiver):
                row.steps = steps
                yield row

        request = Queued(
            rows(),
            receiver=receiver,
            adapter=None,
            asked_by=organization,
            count=count,
            tokens=count,
        )
        self.waiting.announce(request)
        self.waiting.add(request)
        return request

    def leave(self, request: Queued) -> None:
        self.waiting.drop(lambda one: one.receiver is request.receiver)
        for row in [one for one in self.running if one.receiver is request.receiver]:
            del self.running[row]

    def step(self, joining_max: int) -> None:
        self.running = {row: steps - 1 for row, steps in self.running.items() if steps > 1}
        candidates: list[Any] = list(self.waiting.next_ones(self.running, ROWS))
        candidates = candidates[:joining_max]
        for row in candidates:
            self._check_turn(row)
            self.waiting.take([row])
            self.running[row] = row.steps
            self.extras_begun += row.is_extra
            assert row.number == self.rows_begun[row.receiver]
            self.rows_begun[row.receiver] += 1
        if len(candidates) < joining_max:
            self._check_nobody_is_forgotten()

    def _check_turn(self, row: Any) -> None:
        """The row's organization has the fewest rows of those that wait; and in it, the row's request."""
        organizations, requests = self._held()
        for other in self.waiting:
            if not row.is_extra:
                assert organizations[row.asked_by] <= organizations[other.asked_by]
            if other.asked_by == row.asked_by:
                assert requests[row.receiver] <= requests[other.receiver]
        if row.is_extra:
            assert requests[row.receiver] == 0

    def _check_nobody_is_forgotten(self) -> None:
        organizations, requests = self._held()
        places = sum(not row.is_extra for row in self.running)
        extras = Counter(row.asked_by for row in self.running if row.is_extra)
        is_largest = len(self.running) == ROWS * BATCH_GROWTH
        have_many = {row.asked_by for row in self.running if requests[row.receiver] > 1}
        present = organizations.keys() | {one.asked_by for one in self.waiting}
        assert len(self.running) <= ROWS * BATCH_GROWTH
        for request in self.waiting:
            assert places >= ROWS, "a place stays free although a row waits"
            assert is_largest or organizations[request.asked_by] >= GUARANTEED_ROWS
            if not requests[request.receiver] and request.asked_by in have_many:
                assert is_largest or extras[request.asked_by] >= max(1, ROWS // 2 // len(present))

    def _held(self) -> tuple[Counter[str], Counter[Any]]:
        return (
            Counter(row.asked_by for row in self.running),
            Counter(row.receiver for row in self.running),
        )


@settings(max_examples=200, deadline=None)
@given(arrivals=ARRIVALS, joining_max=st.integers(1, 2 * ROWS), data=st.data())
def test_rows_are_shared(arrivals: Any, joining_max: int, data: st.DataObject) -> None:
    batch = Batch()
    asked: dict[Queued, int] = {}
    gone: set[Queued] = set()
    for pause, organization, count, steps in arrivals:
        for _ in range(pause):
            batch.step(joining_max)
        asked[batch.ask(organization, count, steps)] = count
        event = data.draw(st.sampled_from(["none", "none", "none", "put back", "leave"]))
        if event == "put back":
            # What was being read when another request was dropped.
            back = list(batch.running)[-3:]
            for row in back:
                del batch.running[row]
                batch.rows_begun[row.receiver] -= 1
            batch.waiting.put_back(back)
        elif event == "leave":
            leaving = data.draw(st.sampled_from(list(asked)))
            gone.add(leaving)
            batch.leave(leaving)
    steps = 0
    while len(batch.waiting):
        batch.step(joining_max)
        steps += 1
        assert steps < STEPS_MAX, "somebody waits without end"
    assert list(batch.waiting) == []
    for request, count in asked.items():
        if request not in gone:
            assert batch.rows_begun[request.receiver] == count


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=60))
def test_requests_of_one_row_run_as_ever(lengths: list[int]) -> None:
    """In the order of their arrival, as many as the batch has places for, and none beyond."""
    batch = Batch()
    order = [batch.ask("a", 1, steps).receiver for steps in lengths]
    while len(batch.waiting):
        batch.step(2 * ROWS)
        assert len(batch.running) == min(ROWS, len(batch.waiting) + len(batch.running))
    assert batch.extras_begun == 0
    assert list(batch.rows_begun) == order
