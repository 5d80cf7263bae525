"""Whose turn it is."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tunewarden.finetuning.queue import Waiting, next_job

PROJECTS = ("a", "b", "c", "d", "e")


def test_nobody_waits() -> None:
    assert next_job([], {}, {}) is None


def test_the_oldest_job_of_one_project_is_first() -> None:
    jobs = [Waiting(3, "org", "a"), Waiting(1, "org", "a"), Waiting(2, "org", "a")]
    assert next_job(jobs, {}, {}) == Waiting(1, "org", "a")


def test_a_project_with_fewer_running_jobs_is_first() -> None:
    jobs = [Waiting(1, "org", "a"), Waiting(2, "org", "b")]
    assert next_job(jobs, {"a": 1}, {}) == Waiting(2, "org", "b")


def test_the_project_that_was_served_longest_ago_is_first() -> None:
    jobs = [Waiting(1, "org", "a"), Waiting(2, "org", "b"), Waiting(3, "org", "c")]
    assert next_job(jobs, {}, {"a": 3, "b": 1, "c": 2}) == Waiting(2, "org", "b")
    assert next_job(jobs, {}, {"a": 3, "b": 1}) == Waiting(3, "org", "c")


def test_many_projects_give_an_organization_no_more_turns() -> None:
    many = [Waiting(n, "org_a", f"proj_{n}") for n in range(5)]
    other = Waiting(9, "org_b", "proj_b")
    assert next_job([*many, other], {}, {"org_a": 1, "proj_0": 1}) == other
    assert next_job([*many, other], {"org_a": 1, "proj_0": 1}, {"org_b": 2}) == other


@given(
    slots=st.integers(1, 3),
    moves=st.lists(
        st.one_of(
            st.tuples(st.just("comes"), st.sampled_from(PROJECTS)),
            st.tuples(st.just("ends"), st.integers(0, 2)),
        ),
        max_size=120,
    ),
)
def test_no_project_starves(slots: int, moves: list[tuple[str, str | int]]) -> None:
    """One without a running job waits for at most one start of each other project."""
    waiting: list[Waiting] = []
    running: list[Waiting] = []
    served: dict[str, int] = {}
    starts: list[str] = []
    waits_since: dict[str, int] = {}  # project -> how many starts there were when it began to wait
    for n, (move, what) in enumerate(moves):
        if move == "comes":
            waiting.append(Waiting(n, f"org_{what}", str(what)))
        elif running:
            running.pop(int(what) % len(running))
        while len(running) < slots:
            counts = Counter(job.project_id for job in running)
            counts.update(job.organization_id for job in running)
            chosen = next_job(waiting, counts, served)
            if chosen is None:
                break
            assert chosen == min(
                (job for job in waiting if job.project_id == chosen.project_id),
                key=lambda job: job.n,
            )
            waiting.remove(chosen)
            running.append(chosen)
            starts.append(chosen.project_id)
            served[chosen.project_id] = served[chosen.organization_id] = len(starts)
        is_running = {job.project_id for job in running}
        wanting = {job.project_id for job in waiting} - is_running
        waits_since = {project: waits_since.get(project, len(starts)) for project in wanting}
        for project, since in waits_since.items():
            others = starts[since:]
            assert project not in others
            assert max(Counter(others).values(), default=0) <= 1, (project, others)
