"""Webhooks, from a real server to a real receiver by TLS, set up and verified by the stock SDK."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.webhooks import FineTuningJobCancelledWebhookEvent
from tests.support import fine_tuning_rows, scrapes, servers, uploading, webhook_receiver
from tests.support.servers import Server, WithoutTorch, wait_until
from tests.support.uploading import Field
from tests.support.webhook_receiver import Receiver

from tunewarden.api import webhook_threads
from tunewarden.finetuning.states import State
from tunewarden.webhooks.event_types import WebhookEventType

# The SDK's types name OpenAI's events only.
EVERY: Any = [one.value for one in WebhookEventType]
CREATED: Any = ["model.created"]
FILE = (Field("purpose", b"user_data"), Field("file", b"x", "a.txt"))
LOOPBACK = {"webhook_allowed_networks": "127.0.0.0/8", **scrapes.SETTINGS}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("webhooks")


@pytest.fixture(scope="module")
def receiver(directory: Path) -> Iterator[Receiver]:
    with webhook_receiver.receiving(directory) as running:
        yield running


@pytest.fixture(scope="module")
def server(directory: Path, receiver: Receiver) -> Iterator[Server]:
    assert receiver.port
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(directory / "ca.pem"))
        data = directory / "data"
        with servers.serving(
            data, settings=LOOPBACK, kind=WithoutTorch, local_base=True, workers=2
        ) as running:
            yield running


@pytest.fixture
def endpoint(server: Server, receiver: Receiver) -> Iterator[Any]:
    """An endpoint for every type of events, which goes with the test."""
    receiver.received.clear()
    receiver.statuses.clear()
    client = server.client(max_retries=0)
    made = client.webhooks.create(name="all of it", url=receiver.url(), event_types=EVERY)
    yield made
    for one in client.webhooks.list():
        client.webhooks.delete(one.id)


def test_the_sdk_manages_endpoints(server: Server, receiver: Receiver) -> None:
    webhooks = server.client(max_retries=0).webhooks
    assert webhooks.event_types.list().data == EVERY
    url = receiver.url("/path?token=1")
    made = webhooks.create(name="ops", url=url, event_types=["fine_tuning.job.failed"])
    assert made.signing_secret.startswith("whsec_")
    shown = webhooks.retrieve(made.id)
    assert (shown.name, shown.url) == ("ops", url)
    assert shown.signing_secret_hint is not None
    assert made.signing_secret not in shown.to_json()
    assert [one.id for one in webhooks.list(limit=1)] == [made.id]
    changed = webhooks.update(made.id, name="renamed", event_types=["fine_tuning.job.succeeded"])
    assert (changed.name, changed.url) == ("renamed", url)
    assert changed.event_types == ["fine_tuning.job.succeeded"]
    again = webhooks.rotate_secret(made.id)
    assert again.signing_secret not in {made.signing_secret, shown.signing_secret_hint}
    assert webhooks.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        webhooks.retrieve(made.id)


def test_a_model_and_a_file_send_ids_and_nothing_else(
    server: Server, receiver: Receiver, endpoint: Any
) -> None:
    client = server.client(max_retries=0)
    model = server.make_model(suffix="weather").id
    file = uploading.post(server, "/v1/files", *FILE).json["id"]
    archived = {"archived": True}
    assert server.post(f"/v1/models/{model}", archived).status == 200
    client.models.delete(model)
    client.files.delete(file)
    events = [one.event(endpoint.signing_secret) for one in receiver.wait_for(5)]
    said = {(one.type, one.data.id) for one in events}
    assert said == {
        ("model.created", model),
        ("model.archived", model),
        ("model.deleted", model),
        ("file.created", file),
        ("file.deleted", file),
    }
    assert len({one.id for one in events}) == 5
    for one in receiver.received:
        event = one.event(endpoint.signing_secret)
        assert one.headers["webhook-id"] == event.id
        assert event.object == "event"
        assert abs(event.created_at - time.time()) < 60
        assert set(event.data.to_dict()) <= {"id", "deletion_id"}
    [gone] = receiver.of("model.deleted")
    deletion = gone.event(endpoint.signing_secret).data.deletion_id
    found = server.get(f"/v1/deletions/{deletion}", key=server.owner_key).json
    assert (found["model"], found["status"] in {"deleted", "erased"}) == (model, True)
    wait_until(lambda: delivered(server, endpoint.id) == 5, "the attempts are recorded")


def delivered(server: Server, endpoint_id: str) -> int:
    found = server.get(f"/v1/webhook_endpoints/{endpoint_id}", key=server.owner_key).json
    return int(found["delivered"])


def log_of(server: Server, endpoint_id: str, **query: str) -> list[dict[str, Any]]:
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    path = f"/v1/webhook_endpoints/{endpoint_id}/deliveries?{asked}"
    found: list[dict[str, Any]] = server.get(path, key=server.owner_key).json["data"]
    return found


def test_events_of_jobs_have_the_sdks_types(
    server: Server, receiver: Receiver, endpoint: Any
) -> None:
    job = fine_tuning_rows.make_job(server.app, server.owner_key, state=State.PAUSED)
    server.client().fine_tuning.jobs.cancel(job)
    wait_until(lambda: receiver.of("fine_tuning.job.cancelled"), "the event")
    [got] = receiver.of("fine_tuning.job.cancelled")
    event = got.event(endpoint.signing_secret)
    assert isinstance(event, FineTuningJobCancelledWebhookEvent)
    assert event.data.id == job


def test_a_case_sends_an_event_after_those_of_its_members(
    server: Server, receiver: Receiver, endpoint: Any
) -> None:
    file = uploading.post(server, "/v1/files", *FILE).json["id"]
    answer = server.client().files.delete(file, extra_query={"cascade": "models"})
    case = (answer.model_extra or {})["deletion_case"]["id"]
    wait_until(lambda: receiver.of("deletion_case.completed"), "the event")
    [got] = receiver.of("deletion_case.completed")
    event = got.event(endpoint.signing_secret)
    assert event.data.id == case
    wait_until(lambda: receiver.of("file.deleted"), "the file's")
    [of_file] = receiver.of("file.deleted")
    assert of_file.event(endpoint.signing_secret).id < event.id


def test_ids_of_events_sort_as_they_happened(
    server: Server, receiver: Receiver, endpoint: Any
) -> None:
    made = [server.make_model().id for _ in range(5)]
    receiver.wait_for(5)
    events = [one.event(endpoint.signing_secret) for one in receiver.received]
    assert [one.data.id for one in sorted(events, key=lambda one: one.id)] == made


def test_no_event_says_deleted_before_the_model_is(
    server: Server, receiver: Receiver, endpoint: Any
) -> None:
    """The receiver asks for the model while it has the event in its hands."""
    seen: list[int] = []
    key = server.owner_key

    def ask(got: webhook_receiver.Received) -> None:
        if b'"model.deleted"' in got.body:
            model = got.event(endpoint.signing_secret).data.id
            seen.append(server.get(f"/v1/models/{model}", key=key).status)

    receiver.on_request = ask
    try:
        for _ in range(5):
            server.client().models.delete(server.make_model().id)
        wait_until(lambda: len(seen) == 5, "the events")
    finally:
        receiver.on_request = lambda _: None
    assert seen == [404] * 5


def test_what_fails_is_sent_again_with_the_same_id_and_another_time(
    server: Server, receiver: Receiver, endpoint: Any
) -> None:
    receiver.statuses += [500]
    server.make_model()
    first, second = receiver.wait_for(2)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert int(second.headers["webhook-timestamp"]) > int(first.headers["webhook-timestamp"])
    assert 3 < second.at - first.at < 30, "the delay is 5 s and a quarter"
    second.event(endpoint.signing_secret)
    wait_until(lambda: delivered(server, endpoint.id) == 1, "it is recorded")
    [logged] = log_of(server, endpoint.id)
    assert (logged["status"], logged["attempts"], logged["status_code"]) == ("delivered", 2, 200)


def test_metrics_count_attempts_and_what_waits_without_naming_anybody(
    server: Server, receiver: Receiver, endpoint: Any
) -> None:
    counter, gauge = (f"tunewarden_webhook_deliveries_{end}" for end in ("total", "pending"))
    before = scrapes.scrape(server)
    receiver.statuses += [500]
    server.make_model()
    receiver.wait_for(1)
    wait_until(lambda: scrapes.scrape(server).total(gauge) == 1, "it waits")
    receiver.wait_for(2)
    wait_until(lambda: scrapes.scrape(server).total(gauge) == 0, "it has left")
    after = scrapes.scrape(server)
    for outcome in ("delivered", "retried"):
        assert after.total(counter, outcome=outcome) == before.total(counter, outcome=outcome) + 1
    labels = {name for one in after.samples if one.name == counter for name in one.labels}
    assert labels == {"outcome"}


def test_both_secrets_sign_for_a_day_and_the_old_one_can_end_at_once(
    server: Server, receiver: Receiver, endpoint: Any
) -> None:
    webhooks = server.client(max_retries=0).webhooks
    old = endpoint.signing_secret
    new = webhooks.rotate_secret(
        endpoint.id, keep_old_secret_active_for_24_hours=True
    ).signing_secret
    server.make_model()
    [got] = receiver.wait_for(1)
    assert got.event(old).id == got.event(new).id
    assert len(got.headers["webhook-signature"].split()) == 2
    newest = webhooks.rotate_secret(endpoint.id).signing_secret
    server.make_model()
    _, got = receiver.wait_for(2)
    got.event(newest)
    for ended in (old, new):
        with pytest.raises(openai.InvalidWebhookSignatureError):
            got.event(ended)


def test_a_test_event_tells_the_status_and_is_in_the_log(
    server: Server, receiver: Receiver, endpoint: Any
) -> None:
    webhooks = server.client(max_retries=0).webhooks
    receiver.statuses += [418]
    result = webhooks.test(endpoint.id, event_type="fine_tuning.job.succeeded")
    assert (result.status_code, result.success) == (418, True)
    event = receiver.received[0].event(endpoint.signing_secret)
    assert (event.type, event.data.id) == ("fine_tuning.job.succeeded", "test")
    [logged] = log_of(server, endpoint.id, status="failed")
    assert (logged["status_code"], logged["error"]) == (418, "status")
    time.sleep(0.6)
    assert len(receiver.received) == 1, "a test is not sent again"
    webhooks.update(endpoint.id, url=f"https://127.0.0.1:{free_port()}/")
    with pytest.raises(openai.BadRequestError) as refused:
        webhooks.test(endpoint.id, event_type="fine_tuning.job.succeeded")
    assert refused.value.code == "webhook_endpoint_unreachable"
    assert "connection_failed" in refused.value.message


def free_port() -> int:
    with webhook_receiver.receiving() as gone:
        return gone.port


def test_an_event_is_sent_again_when_an_owner_asks(
    server: Server, receiver: Receiver, endpoint: Any
) -> None:
    server.make_model()
    receiver.wait_for(1)
    wait_until(lambda: delivered(server, endpoint.id) == 1, "it is recorded")
    [logged] = log_of(server, endpoint.id)
    path = f"/v1/webhook_endpoints/{endpoint.id}/deliveries/{logged['id']}/redeliver"
    assert server.post(path, {}).json["status"] == "pending"
    first, second = receiver.wait_for(2)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    wait_until(lambda: delivered(server, endpoint.id) == 2, "it is recorded")


def test_a_disabled_endpoint_gets_nothing_and_keeps_what_was_pending(
    server: Server, receiver: Receiver, endpoint: Any
) -> None:
    path = f"/v1/webhook_endpoints/{endpoint.id}"
    receiver.statuses += [503]
    model = server.make_model().id
    receiver.wait_for(1)
    assert server.post(path, {"enabled": False}).json["disabled_because"] == "owner"
    server.make_model()
    time.sleep(8)
    assert len(receiver.received) == 1
    assert server.post(path, {"enabled": True}).json["pending"] == 1
    _, second = receiver.wait_for(2)
    assert second.event(endpoint.signing_secret).data.id == model


def test_an_endpoint_that_answers_gone_is_disabled(
    server: Server, receiver: Receiver, endpoint: Any
) -> None:
    receiver.statuses += [410]
    server.make_model()
    path = f"/v1/webhook_endpoints/{endpoint.id}"

    def because() -> object:
        return server.get(path, key=server.owner_key).json["disabled_because"]

    wait_until(lambda: because() == "gone", "it is disabled")
    with server.app.database.read() as tx:
        row = tx.row(
            "SELECT details FROM audit_events WHERE type = 'webhook_endpoint.disabled' AND resource_id = :id",
            id=endpoint.id,
        )
    assert row is not None
    assert "gone" in row[0]


def test_receivers_that_misuse_their_turn_do_not_stop_others(
    server: Server, receiver: Receiver, endpoint: Any
) -> None:
    webhooks = server.client(max_retries=0).webhooks
    bad = ("/hang", "/drip", "/huge", "/redirect", "/long-line", "/garbage", "/close")
    made = {
        path: webhooks.create(name=path, url=receiver.url(path), event_types=EVERY) for path in bad
    }
    began = time.monotonic()
    server.make_model()
    wait_until(lambda: delivered(server, endpoint.id) == 1, "the good one has it")
    assert time.monotonic() - began < 5
    errors: dict[str, object] = {}

    def are_recorded() -> bool:
        for path, one in made.items():
            [logged] = log_of(server, one.id)
            if logged["attempts"]:
                errors[path] = logged["error"]
        return len(errors) == len(bad)

    wait_until(are_recorded, "each attempt is over")
    assert errors == {
        "/hang": "timeout",
        "/drip": "timeout",
        "/huge": None,
        "/redirect": "redirected",
        "/long-line": "not_http",
        "/garbage": "not_http",
        "/close": "connection_closed",
    }
    assert not [one for one in receiver.received if one.path == "/elsewhere"]


def test_requests_that_wait_for_a_receiver_leave_threads_for_others(
    server: Server, receiver: Receiver, endpoint: Any
) -> None:
    webhooks = server.client(max_retries=0).webhooks
    hanging = webhooks.create(name="hang", url=receiver.url("/hang"), event_types=CREATED)
    path = f"/v1/webhook_endpoints/{hanging.id}/test"
    asked = {"event_type": "model.created"}
    workers, each = 2, webhook_threads.PER_ORGANIZATION_MAX
    with ThreadPoolExecutor(workers * each + 1) as pool:
        replies = list(pool.map(lambda _: server.post(path, asked), range(workers * each + 1)))
    statuses = sorted(one.status for one in replies)
    assert statuses[0] == 400, "a receiver that does not answer"
    assert statuses[-1] == 429
    [refused] = [one for one in replies if one.status == 429][:1]
    assert refused.header("retry-after") == "1"


def test_another_organization_sees_nothing(
    server: Server, receiver: Receiver, endpoint: Any
) -> None:
    key = server.make_key("owner", organization="others")
    other = server.client(key, max_retries=0).webhooks
    theirs = other.create(name="theirs", url=receiver.url("/theirs"), event_types=EVERY)
    assert [one.id for one in other.list()] == [theirs.id]
    server.make_model()
    receiver.wait_for(1)
    wait_until(lambda: delivered(server, endpoint.id) == 1, "it is recorded")
    assert not [one for one in receiver.received if one.path == "/theirs"]
    [logged] = log_of(server, endpoint.id)
    unknown = "/v1/webhook_endpoints/whe_unknown"
    foreign = f"/v1/webhook_endpoints/{endpoint.id}"
    for method, rest in (
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/deliveries"),
        ("POST", f"/deliveries/{logged['id']}/redeliver"),
    ):
        answers = [server.request(method, f"{path}{rest}", key=key) for path in (unknown, foreign)]
        assert [one.status for one in answers] == [404, 404]
        assert answers[0].body.replace(b"whe_unknown", endpoint.id.encode()) == answers[1].body
    other.delete(theirs.id)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://example.com/", "https://"),
        ("https://user:secret@example.com/", "user or a password"),
        ("https://10.0.0.1/", "not on the public internet"),
        ("https://169.254.169.254/latest/meta-data", "not on the public internet"),
        ("https://[::ffff:10.0.0.1]/", "not on the public internet"),
        ("https://2130706433/", "must be written as"),
        ("https://127.0.0.1:22/", "port"),
        ("https://", "https:// URL"),
    ],
)
def test_a_url_that_no_event_may_go_to_is_refused_and_not_repeated(
    server: Server, url: str, says: str
) -> None:
    fields = {"name": "x", "url": url, "event_types": EVERY}
    answer = server.post("/v1/webhook_endpoints", fields)
    assert answer.status == 400
    assert (answer.error["param"], answer.error["code"]) == ("url", "invalid_webhook_url")
    assert says in answer.error["message"]
    assert "secret" not in answer.error["message"]
    assert "secret" not in server.log()


def test_an_organization_has_a_bounded_number_of_endpoints(
    server: Server, receiver: Receiver, endpoint: Any
) -> None:
    webhooks = server.client(max_retries=0).webhooks
    for number in range(9):
        webhooks.create(name=f"{number}", url=receiver.url(), event_types=CREATED)
    with pytest.raises(openai.RateLimitError) as refused:
        webhooks.create(name="10", url=receiver.url(), event_types=CREATED)
    assert refused.value.code == "too_many_webhook_endpoints"
    assert endpoint.id in [one.id for one in webhooks.list()]


def test_neither_url_nor_secret_is_in_the_database_in_plain(
    server: Server, receiver: Receiver
) -> None:
    webhooks = server.client(max_retries=0).webhooks
    made = webhooks.create(
        name="of Ada Lovelace",
        url=receiver.url("/hook-9d1f"),
        event_types=CREATED,
    )
    for file in server.data.glob("tunewarden.sqlite*"):
        content = file.read_bytes()
        for text in ("Lovelace", "hook-9d1f", made.signing_secret):
            assert text.encode() not in content
    assert made.signing_secret not in server.log()
    webhooks.delete(made.id)
