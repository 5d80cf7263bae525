"""A request that has not ended is use, which no row tells yet: rules, filters, plans and the model's usage count it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.bulk import ask, codes, get, old_model, outcomes
from tests.support.servers import LOCAL_BASE, Server, WithoutTorch, serving, wait_until

from tunewarden.ids import token

UNUSED = {"unused_for_days": 30}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data: Path = tmp_path_factory.mktemp("in-flight") / "data"
    with serving(data, local_base=True, kind=WithoutTorch, workers=2) as running:
        wait_until(lambda: _complete(running, LOCAL_BASE) == 200, "the engine")
        yield running


def _complete(server: Server, model: str) -> int:
    return server.post("/v1/completions", {"model": model, "prompt": "Hello"}).status


@contextmanager
def streaming(server: Server, model: str) -> Iterator[None]:
    """A stream of a model that has begun and does not end within the block; it goes on after it, or the test fails."""
    with server.client(max_retries=0).chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Hello"}],
        stream=True,
        extra_body={"fake": {"chunks": 100_000, "pause": 0.05}},
    ) as chunks:
        next(chunks)
        yield
        for _ in range(20):  # more than can be on the way
            assert next(chunks).choices


def test_a_rule_spares_a_model_that_was_never_used_and_is_streaming(server: Server) -> None:
    suffix = f"s{token(8)}"
    serving_now, unused = (old_model(server, 40, suffix) for _ in range(2))
    rule = server.post(
        "/v1/retention/rules", {"action": "delete", "suffix": suffix, "notice_days": 0, **UNUSED}
    ).json["id"]
    client = server.client(max_retries=0)
    with streaming(server, serving_now):
        seen, _ = get(client, f"/retention/rules/{rule}/preview")
        done, _ = ask(client, f"/retention/rules/{rule}/run")
    assert outcomes(seen) == {serving_now: "spared", unused: "delete"}
    assert outcomes(done) == {serving_now: "spared", unused: "deleted"}
    for said in (seen, done):
        assert codes(said, serving_now) == {"in_use"}
        [one] = [one for one in said if one["model"] == serving_now]
        assert "is running" in one["reasons"][0]["message"]
        assert one["last_used_at"] is not None


def test_a_filter_spares_it_and_so_does_the_request_that_is_sent_again(server: Server) -> None:
    suffix = f"s{token(8)}"
    serving_now, unused = (old_model(server, 40, suffix) for _ in range(2))
    client, body = server.client(max_retries=0), {"filter": {"suffix": suffix, **UNUSED}}
    with streaming(server, serving_now):
        seen, _ = ask(client, "/deletions", body, dry_run=True)
        done, _ = ask(client, "/deletions", body, key=suffix)
    assert outcomes(seen) == {serving_now: "spared", unused: "delete"}
    assert outcomes(done)[unused] == "deleted"
    assert outcomes(done).get(serving_now) in {None, "spared"}
    assert server.get(f"/v1/models/{serving_now}", key=server.owner_key).status == 200


def test_a_model_that_began_to_be_used_after_it_was_chosen_is_spared(server: Server) -> None:
    """Its deletion's transaction looks again: here, that of a request which broke off before it came to this model."""
    suffix = f"s{token(8)}"
    chosen = old_model(server, 40, suffix)
    hold = server.post("/v1/holds", {"model": chosen, "reason": "a dispute"}).json["id"]
    client, body = server.client(max_retries=0), {"filter": {"suffix": suffix, **UNUSED}}
    first, _ = ask(client, "/deletions", body, key=suffix)
    assert codes(first, chosen) == {"on_hold"}
    server.post(f"/v1/holds/{hold}/lift", {})
    with server.app.database.write() as tx:
        tx.run("DELETE FROM bulk_deletion_members WHERE refused_as IS NOT NULL")
    with streaming(server, chosen):
        again, _ = ask(client, "/deletions", body, key=suffix)
    assert codes(again, chosen) == {"in_use"}


def test_its_usage_and_its_plan_say_that_it_is_used_now(server: Server) -> None:
    model = server.make_model().id
    with streaming(server, model):
        used = server.get(f"/v1/models/{model}/usage", key=server.owner_key).json
        plan = server.get(f"/v1/models/{model}/deletion_plan", key=server.owner_key).json
    for said in (used, plan["usage"]):
        assert said["last_used_at"] is not None
        assert said["requests_last_hour"] == 0, "those that ended"
