"""Deletions that stand still: committed, and claimed by the test, so that no process of the server goes on with them."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.fine_tuning_rows import caller_of
from tests.support.servers import Server

from tunewarden.deletion import requests
from tunewarden.deletion.requests import Attempt
from tunewarden.registry.artifacts import ArtifactKind


@contextmanager
def held(server: Server, key: str, model_id: str) -> Iterator[str]:
    """Commit the deletion of a model (D3) and give its id; it goes on after the block."""
    app = server.app
    row = app.database.peek("SELECT COALESCE(MAX(n), 0) FROM deletions")
    assert row is not None
    # Claimed before it is there: the runner looks all the time.
    with app.executor._claims.claimed(int(row[0]) + 1) as is_mine:
        assert is_mine
        asked = requests.request_deletion(
            app.database, caller_of(app, key), ArtifactKind.MODEL, model_id, Attempt(), log_size=0
        )
        assert asked.deletion.n == int(row[0]) + 1
        yield asked.deletion.id
