"""Servers are killed while models are deleted: each deleted model has its event, and no other model has one."""

import http.client
import random
import threading
import time
from pathlib import Path

from tests.support import servers, webhook_receiver, webhook_rows
from tests.support.servers import Server, WithoutTorch, wait_until
from tests.support.webhook_receiver import Receiver

from tunewarden.webhooks.event_types import WebhookEventType

SEED = 20261201
KILLS = 5
LOOPBACK = {"webhook_http_to_loopback": "true"}


def test_after_kills_each_deleted_model_has_its_event_and_no_other_has(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with (
        webhook_receiver.receiving() as receiver,
        servers.serving(data, settings=LOOPBACK, kind=WithoutTorch, local_base=True) as server,
    ):
        _kill(server, receiver)


def _kill(server: Server, receiver: Receiver) -> None:
    webhook_rows.make_endpoint(
        server.app, server.owner_key, WebhookEventType.MODEL_DELETED, url=receiver.url()
    )
    chance = random.Random(SEED)
    key = server.owner_key
    models = [server.make_model().id for _ in range(60)]
    kept = {models.pop() for _ in range(10)}
    asked = threading.Event()

    def delete() -> None:
        while models:
            try:
                server.request("DELETE", f"/v1/models/{models[-1]}", key=key)
                models.pop()
                asked.set()
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)  # It was killed: the same is asked again.

    deleted = set(models)
    thread = threading.Thread(target=delete)
    thread.start()
    left = []
    for _ in range(KILLS):
        asked.clear()
        asked.wait(5)
        time.sleep(chance.uniform(0, 0.1))
        left.append(len(models))
        server.kill()
        server.start_again()
    thread.join(60)
    assert not models
    assert 0 < left[0] < len(deleted), "the first kill was among the deletions"

    def named() -> set[str]:
        found = list(receiver.received)
        return {
            model for model in deleted | kept for one in found if f'"{model}"' in one.body.decode()
        }

    wait_until(lambda: named() >= deleted, "all events arrived")
    time.sleep(1)
    assert named() == deleted
    events = {(one.headers["webhook-id"], one.body) for one in receiver.received}
    assert len(events) == len(deleted), "one event each, though it may come more than once"
    print(f"{KILLS} kills, {len(deleted)} events, {len(receiver.received)} requests")
