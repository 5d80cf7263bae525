"""`/readyz` is 200 while a local base loads, unless the probe asks for the bases: deleting works before."""

import os
import signal
from pathlib import Path

from tests.support import servers
from tests.support.servers import wait_until
from tests.support.uploading import Field, post

LOADED = "/readyz?bases=loaded"


def test_a_probe_that_asks_for_the_bases_waits_for_them_and_no_other_does(tmp_path: Path) -> None:
    kind = servers.WithoutTorch
    with servers.serving(tmp_path / "data", local_base=True, kind=kind) as server:
        wait_until(lambda: server.get(LOADED).status == 200, "the base is loaded")
        assert server.get(LOADED).json["bases"] == "loaded"
        file = post(server, "/v1/files", Field("purpose", b"user_data"), Field("file", b"x", "x"))
        (engine,) = server.running("tests.fakes.engine_server")
        os.kill(engine, signal.SIGSTOP)
        wait_until(lambda: server.get(LOADED).status == 503, "the base is gone")
        assert server.get(LOADED).json["status"] == "loading"
        assert server.get("/readyz").json == {"status": "ok", "draining": False, "disk": "ok"}
        deleted = server.request("DELETE", f"/v1/files/{file.json['id']}", key=server.owner_key)
        assert deleted.status == 200
        # The supervisor replaces an engine that hangs.
        wait_until(lambda: server.get(LOADED).status == 200, "the base is loaded again")


def test_without_a_local_base_none_is_waited_for(tmp_path: Path) -> None:
    with servers.serving(tmp_path / "data", kind=servers.WithoutTorch) as server:
        assert server.get(LOADED).json["status"] == "ok"
        assert server.get("/readyz?bases=some").status == 400
