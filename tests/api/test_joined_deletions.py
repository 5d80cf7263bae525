"""A DELETE of what is being deleted: it waits for the end, and says "not found" never before (I5, D1)."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support import servers
from tests.support.servers import Reply, Server, wait_until

from tunewarden.api.deleting import JOINED_MAX
from tunewarden.deletion import records
from tunewarden.deletion.records import Deletion
from tunewarden.registry.models import Model

# Stops while it holds the keyring: a deletion cannot erase a key until it is killed (D6).
HOLDING = (
    "import os, pathlib, signal, sys; from tunewarden.artifacts.disk import LocalDisk\n"
    "with LocalDisk().exclusive(pathlib.Path(sys.argv[1])):\n"
    " print('held', flush=True); os.kill(os.getpid(), signal.SIGSTOP)"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One worker: whoever joins waits in the same process."""
    data = tmp_path_factory.mktemp("joined") / "data"
    with servers.serving(data, local_base=True, kind=servers.WithoutTorch) as running:
        yield running


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as threads:
        yield threads


@contextlib.contextmanager
def _keyring_held(server: Server) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", HOLDING, str(server.data / "keyring" / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            yield holder
        finally:
            holder.kill()


def _delete(server: Server, model: Model, key: str | None = None, **headers: str) -> Reply:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    path = f"/v1/models/{model.id}"
    return server.request("DELETE", path, key=key or server.owner_key, headers=sent)


def _begun(server: Server, pool: ThreadPoolExecutor, model: Model) -> "Future[Reply]":
    first = pool.submit(_delete, server, model)
    wait_until(lambda: _deletion(server, model), "the deletion is committed")
    return first


def _deletion(server: Server, model: Model) -> Deletion | None:
    with server.app.database.read() as tx:
        return records.find_of(tx, model.n)


def test_a_second_delete_is_answered_after_the_first_one_is_done(
    server: Server, pool: ThreadPoolExecutor
) -> None:
    model = server.make_model()

    def second() -> tuple[Reply, bool]:
        reply, deletion = _delete(server, model), _deletion(server, model)
        return reply, deletion is not None and deletion.is_deleted and bool(deletion.receipt)

    with _keyring_held(server):
        first = _begun(server, pool, model)
        others = [pool.submit(second) for _ in range(3)]
        retried = pool.submit(_delete, server, model, x_stainless_retry_count="1")
        time.sleep(0.3)
        waiting = [first.done(), retried.done(), *(one.done() for one in others)]
        assert not any(waiting), "the key is not erased"
        shown = server.get(f"/v1/models/{model.id}", key=server.owner_key)
        assert shown.status == 404, "and yet it is gone for everything else"
    assert first.result().status == 200
    assert [(one.result()[0].status, one.result()[1]) for one in others] == [(404, True)] * 3
    assert retried.result().status == 200
    assert retried.result().body == first.result().body
    header = "tunewarden-deletion"
    assert retried.result().header(header) == first.result().header(header)


def test_the_role_comes_before_the_answer(server: Server, pool: ThreadPoolExecutor) -> None:
    model = server.make_model()
    reader, stranger = server.make_key("reader"), server.make_key("owner", organization="strangers")
    with _keyring_held(server):
        first = _begun(server, pool, model)
        assert _delete(server, model, reader).status == 403
        assert _delete(server, model, stranger).status == 404
        assert not first.done()
    assert first.result().status == 200
    assert _delete(server, model, reader).status == 404


def test_so_many_join_and_none_of_them_keeps_a_thread(
    server: Server, pool: ThreadPoolExecutor
) -> None:
    model = server.make_model()
    with _keyring_held(server):
        first = _begun(server, pool, model)
        joined = [pool.submit(_delete, server, model) for _ in range(JOINED_MAX + 4)]
        wait_until(lambda: sum(one.done() for one in joined) == 4, "those too many are answered")
        refused = [one.result() for one in joined if one.done()]
        assert {one.status for one in refused} == {503}
        assert {one.error["code"] for one in refused} == {"deletion_in_progress"}
        assert {one.header("x-should-retry") for one in refused} == {"true"}
        threads = len(list(Path(f"/proc/{_worker(server)}/task").iterdir()))
        assert threads < JOINED_MAX + 8, "a thread for each that waits would be more"
        assert server.get("/v1/models", key=server.owner_key).status == 200
    assert first.result().status == 200
    assert sorted(one.result().status for one in joined) == [404] * JOINED_MAX + [503] * 4


def test_what_is_not_done_within_the_bound_is_never_a_404(data: Path) -> None:
    settings = {"deletion_seconds": "0.5"}
    with (
        servers.serving(
            data, settings=settings, local_base=True, kind=servers.WithoutTorch
        ) as server,
        ThreadPoolExecutor(2) as pool,
    ):
        model = server.make_model()
        with _keyring_held(server):
            first = _begun(server, pool, model)
            for _ in range(2):
                reply = _delete(server, model)
                assert (reply.status, reply.error["code"]) == (503, "deletion_in_progress")
            assert first.result().status == 503
        wait_until(lambda: _delete(server, model).status == 404, "the runner ends it")
        shown = server.get("/v1/deletions", key=server.owner_key).json["data"]
        assert isinstance(shown, list)
        assert shown[0]["status"] in {"deleted", "erased"}


def _worker(server: Server) -> int:
    for pid in server.processes():
        with contextlib.suppress(OSError):
            if b"tunewarden.server.worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(
                b"\0"
            ):
                return pid
    raise AssertionError("no worker runs")
