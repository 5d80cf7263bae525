"""The page of a deletion that goes on: followed by events to its answer and to its end, and as long as the session lasts."""

from contextlib import ExitStack

from tests.support import event_streams, held_deletions
from tests.support.console import Visitor
from tests.support.event_streams import next_event
from tests.support.servers import Server

from tunewarden.identity.session_rows import SEEN_MICROS


def _last_seen(server: Server, key_id: str) -> int:
    with server.app.database.read() as tx:
        rows = tx.rows("SELECT last_seen_at FROM sessions WHERE key_id = :key", key=key_id)
    return int(rows[0][0])


def test_a_deletion_is_followed_to_its_end(server: Server, owner: Visitor) -> None:
    model = server.make_model().id
    with ExitStack() as opened:
        with held_deletions.held(server, server.owner_key, model) as deletion:
            here = f"/console/deletions/{deletion}"
            page = owner.text(here)
            assert f'data-live="{here}/changes?until=answer"' in page
            assert f'<a href="{here}">Show what is new</a>' in page, "without JavaScript"
            stream = opened.enter_context(event_streams.opened(owner, f"{here}/changes"))
            assert (stream.getheader("content-type") or "").startswith("text/event-stream")
            assert next_event(stream) == "changed", "at once, so that nothing is missed"
        heard = []
        while (event := next_event(stream)) is not None:
            heard.append(event)
    assert heard[-1] == "ended"
    assert heard[:-1].count("changed") == len(heard) - 1 >= 1
    assert "data-live=" not in owner.text(here)


def test_a_page_without_the_receipt_follows_it_to_the_answer(
    server: Server, owner: Visitor
) -> None:
    model = server.make_model().id
    deleted = server.request("DELETE", f"/v1/models/{model}", key=server.owner_key)
    path = f"/console/deletions/{deleted.header('tunewarden-deletion')}/changes?until=answer"
    with event_streams.opened(owner, path) as stream:
        assert [next_event(stream) for _ in range(3)] == ["changed", "ended", None]


def test_following_a_deletion_ends_with_the_session_and_keeps_none_alive(server: Server) -> None:
    """I19, and what a page does by itself is no use of it."""
    key = server.make_key("owner")
    visitor, key_id = Visitor(server, key), f"key_{key.split('-')[2]}"
    model = server.make_model().id
    with held_deletions.held(server, server.owner_key, model) as deletion:
        path = f"/console/deletions/{deletion}/changes"
        with event_streams.opened(visitor, path) as stream:
            assert next_event(stream) == "changed"
            with server.app.database.write() as tx:
                sql = "UPDATE sessions SET last_seen_at = last_seen_at - :by WHERE key_id = :key"
                tx.run(sql, by=2 * SEEN_MICROS, key=key_id)
            before = _last_seen(server, key_id)
            for _ in range(2):  # looks
                while stream.readline() != b":\n":
                    pass
            assert _last_seen(server, key_id) == before
            assert visitor.post("/console/sign-out", {}).status == 303
            assert next_event(stream) is None


def test_who_may_not_read_a_deletion_does_not_follow_it(server: Server) -> None:
    model = server.make_model().id
    deleted = server.request("DELETE", f"/v1/models/{model}", key=server.owner_key)
    other = Visitor(server, server.make_key("owner", organization="others"))
    path = f"/console/deletions/{deleted.header('tunewarden-deletion')}/changes"
    with event_streams.opened(other, path) as stream:
        assert stream.status == 404
