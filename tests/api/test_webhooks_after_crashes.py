"""Webhooks when a process ends: nothing is lost between commit and sending, and what was sent twice has one id."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import servers, webhook_receiver, webhook_rows
from tests.support.servers import Server, WithoutTorch, wait_until
from tests.support.webhook_receiver import Received, Receiver

from tunewarden.webhooks.event_types import WebhookEventType

LOOPBACK = {"webhook_http_to_loopback": "true"}
CREATED = WebhookEventType.MODEL_CREATED


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with webhook_receiver.receiving() as running:
        yield running


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with servers.serving(
        tmp_path / "data", settings=LOOPBACK, kind=WithoutTorch, local_base=True
    ) as running:
        yield running


def ids(received: list[Received]) -> list[str]:
    return [one.headers["webhook-id"] for one in received]


def test_what_was_committed_and_not_sent_is_sent_after_a_kill(
    server: Server, receiver: Receiver
) -> None:
    webhook_rows.make_endpoint(server.app, server.owner_key, CREATED, url=receiver.url())
    server.kill()
    # As a worker that commits and is killed: nobody sends.
    model = server.make_model().id
    time.sleep(0.5)
    assert receiver.received == []
    server.start_again()
    [got] = receiver.wait_for(1)
    assert model.encode() in got.body


def test_what_was_sent_and_not_recorded_is_sent_again_with_the_same_id(
    server: Server, receiver: Receiver
) -> None:
    endpoint = webhook_rows.make_endpoint(server.app, server.owner_key, CREATED, url=receiver.url())
    arrived, go_on = threading.Event(), threading.Event()

    def hold(_: Received) -> None:
        arrived.set()
        go_on.wait(30)

    receiver.on_request = hold
    server.make_model()
    assert arrived.wait(30)
    server.kill()
    receiver.on_request = lambda _: None
    go_on.set()
    server.start_again()
    first, second = receiver.wait_for(2)
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)
    path = f"/v1/webhook_endpoints/{endpoint}"
    wait_until(lambda: server.get(path, key=server.owner_key).json["delivered"] == 1, "recorded")
    time.sleep(0.6)
    assert len(receiver.received) == 2, "once it is recorded, it is not sent again"


def test_a_graceful_shutdown_does_not_wait_for_a_receiver_and_loses_nothing(
    server: Server, receiver: Receiver
) -> None:
    webhook_rows.make_endpoint(server.app, server.owner_key, CREATED, url=receiver.url("/hang"))
    server.make_model()
    receiver.wait_for(1)
    began = time.monotonic()
    server.stop()
    took = time.monotonic() - began
    print(f"stopped in {took:.1f} s while a receiver hung")
    assert took < 8
    server.start_again()
    again = receiver.wait_for(2)
    assert len(set(ids(again))) == 1
    with server.app.database.read() as tx:
        row = tx.row("SELECT attempts, state FROM webhook_deliveries")
    assert row == (0, "pending"), "what the shutdown cut off is no failure"
