"""The fork server: workers and runner are its forks, and the supervisor's children."""

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.support import servers
from tests.support.servers import Server, is_alive, wait_until

FORK_SERVER, WORKER, RUNNER = (
    f"tunewarden.server.{name}" for name in ("fork_server", "worker", "runner")
)


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with servers.serving(tmp_path_factory.mktemp("forked") / "data", workers=2) as server:
        yield server


@pytest.fixture(autouse=True)
def _each_has_its_name(forked: Server) -> None:
    """A fork is shown as the fork server for a moment, until it has a command line of its own."""

    def is_whole() -> bool:
        found = [len(forked.running(one)) for one in (FORK_SERVER, WORKER, RUNNER)]
        return found == [1, 2, 1]

    wait_until(is_whole, "the fork server, two workers and the runner run")


def _fork_server(server: Server) -> int:
    wait_until(lambda: len(server.running(FORK_SERVER)) == 1, "one runs")
    (pid,) = server.running(FORK_SERVER)
    return pid


def _is_gone(pid: int) -> bool:
    return not is_alive(pid)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_it_has_one_thread_and_no_file_of_the_data_directory(forked: Server) -> None:
    pid = _fork_server(forked)
    assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
    opened = [one.readlink() for one in Path(f"/proc/{pid}/fd").iterdir()]
    assert [one for one in opened if one.is_relative_to(forked.data)] == []
    sockets = [one for one in opened if str(one).startswith("socket:")]
    assert len(sockets) == 1, "its channel, and not the listening socket"


def test_its_forks_are_children_of_the_supervisor(forked: Server) -> None:
    children = forked.running(WORKER) + forked.running(RUNNER)
    assert len(children) == 3
    # The process between them and the fork server ends when it gets a processor.
    wait_until(
        lambda: {_parent(pid) for pid in children} == {forked.process.pid}, "they are its children"
    )


def test_its_death_ends_no_worker_and_it_is_started_again(forked: Server) -> None:
    killed = _fork_server(forked)
    workers = forked.running(WORKER)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not is_alive(killed), "it is dead")
    assert forked.get("/readyz").status == 200
    wait_until(lambda: forked.running(FORK_SERVER), "it runs again")
    assert set(forked.running(WORKER)) == set(workers)
    os.kill(workers[0], signal.SIGKILL)
    wait_until(
        lambda: len(set(forked.running(WORKER)) - {workers[0]}) == 2,
        "another worker is started",
    )


def test_what_a_dead_worker_leaves_is_collected(forked: Server) -> None:
    """Its helper process outlives it by a moment, as an orphan, which the supervisor gets."""
    client = forked.client()
    with pytest.raises(Exception, match="does not exist"):
        client.chat.completions.create(
            model="none", messages=[{"role": "user", "content": "x" * 200_000}]
        )
    helper = "tunewarden.gateway.body_reader"
    wait_until(lambda: forked.running(helper), "a worker has its helper")
    for pid in forked.running(WORKER):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not forked.running(helper), "the helper has ended too")

    def unclaimed() -> list[int]:
        return [pid for pid in forked.processes() if not is_alive(pid)]

    wait_until(lambda: not unclaimed(), "no zombie is left")
    wait_until(lambda: len(forked.running(WORKER)) == 2, "two again")


def test_a_worker_that_dies_while_there_is_no_fork_server_is_started_later(forked: Server) -> None:
    workers = forked.running(WORKER)
    for _ in range(2):  # The second time it is restarted only after a back-off.
        killed = _fork_server(forked)
        os.kill(killed, signal.SIGKILL)
        wait_until(partial(_is_gone, killed), "it is dead")
    os.kill(workers[0], signal.SIGKILL)
    wait_until(
        lambda: len(set(forked.running(WORKER)) - {workers[0]}) == 2,
        "another worker is started",
    )
    assert forked.get("/readyz").status == 200
