"""The console on a disk without free space: nobody new is signed in, those who are can delete (I20)."""

from pathlib import Path

from tests.support import servers
from tests.support.console import Visitor, hidden
from tests.support.servers import WithoutTorch

from tunewarden.identity.session_rows import SEEN_MICROS

FULL = 2**50  # more free space than any disk has


def test_who_is_signed_in_can_still_delete(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with servers.serving(data, local_base=True, kind=WithoutTorch) as server:
        model = server.make_model().id
        secret = (Visitor(server, server.owner_key).cookie or "").partition("=")[2]
        server.stop()
        server.settings["disk_floor_bytes"] = FULL
        server.start_again()
        visitor = Visitor(server)
        refused = visitor.post("/console/sign-in", {"key": server.owner_key})
        assert (refused.status, refused.header("set-cookie")) == (507, None)
        assert b"<h1>The disk is full</h1>" in refused.body
        visitor.cookie = f"tunewarden-{server.address[1]}={secret}"
        # Long enough ago that the next request notes its use.
        with server.app.database.write(below_floor=True) as tx:
            tx.run("UPDATE sessions SET last_seen_at = last_seen_at - :by", by=2 * SEEN_MICROS)
        page = f"/console/models/{model}/delete"
        form = {**hidden(visitor.text(page)), "confirmation": model}
        done = visitor.post(page, form)
        assert (done.header("location") or "").startswith("/console/deletions/del_")
        assert visitor.post("/console/sign-out", {}).status == 303
        assert visitor.get("/console").status == 303
