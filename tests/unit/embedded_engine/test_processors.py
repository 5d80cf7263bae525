"""How many threads the engine takes, on machines and in containers of several shapes."""

from pathlib import Path

import pytest

from tunewarden.embedded_engine.processors import threads_by_default


def machine(directory: Path, *, siblings: dict[int, str], limits: dict[str, str]) -> Path:
    """Write what a machine says of its processors, and of control groups below `/a/b`."""
    for number, listed in siblings.items():
        topology = directory / f"sys/devices/system/cpu/cpu{number}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{listed}\n", "utf-8")
    (directory / "proc/self").mkdir(parents=True)
    (directory / "proc/self/cgroup").write_text("0::/a/b\n", "utf-8")
    for group, limit in limits.items():
        path = directory / "sys/fs/cgroup" / group
        path.mkdir(parents=True, exist_ok=True)
        (path / "cpu.max").write_text(f"{limit}\n", "utf-8")
    return directory


@pytest.mark.parametrize(
    ("siblings", "limits", "expected"),
    [
        ({}, {}, 7),
        ({number: str(number) for number in range(8)}, {}, 7),
        ({number: f"{number % 4},{number % 4 + 4}" for number in range(8)}, {}, 3),
        ({}, {"a/b": "max 100000"}, 7),
        ({}, {"a/b": "350000 100000", "a": "max 100000"}, 2),
        ({}, {"a/b": "max 100000", "a": "200000 100000"}, 1),
        ({}, {"a/b": "50000 100000"}, 1),
    ],
)
def test_every_real_core_but_one_computes_within_the_containers_share(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    siblings: dict[int, str],
    limits: dict[str, str],
    expected: int,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert threads_by_default(machine(tmp_path, siblings=siblings, limits=limits)) == expected
