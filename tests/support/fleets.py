"""A fleet of replicas, as a user sees it: one model on all of them, its deletion, and the death of one replica."""

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from tests.support.pushed_models import ASKED, Pushed
from tests.support.servers import wait_until

# More than all replicas take of one model before the last one has it.
STREAMS_MAX = 64
TOKENS = 1500


def deleted_everywhere_while_one_dies(
    pushed: Pushed, *, victim: str, other: str, says: str, kill_first: Callable[[], None]
) -> None:
    """Delete a model that every replica has: each is in the receipt. Kill one: requests go on, and its lease ends.

    `other` answers with `says` in it.
    """
    replicas = len(_states_of(pushed, victim))
    streams = _on_all(pushed, victim)
    found = pushed.deleted(victim)
    print(f"{replicas} replicas, {len(streams)} streams: {[one.how for one in found]}")
    names = [f"vllm:{pushed.base}/{number}" for number in range(1, replicas + 1)]
    assert [(one.engine, one.how) for one in found] == [(name, "zeroed") for name in names]
    for stream in streams:
        with pytest.raises(openai.APIError) as cut:
            list(stream)
        assert cut.value.code == "model_deleted"
    for stream in _on_all(pushed, other):
        stream.close()
    kill_first()
    for _ in range(2 * replicas):
        assert says in pushed.said(other, max_retries=2).lower()
    pushed.server.client(max_retries=10, timeout=300).models.delete(other)
    wait_until(lambda: pushed.has_receipt(other), "the deletion is done", seconds=120)
    how = {one.engine: one.how for one in pushed.receipt_of(other)}
    print(f"one of them killed: {how}")
    assert how.pop(names[0]) == "lease_ended"
    assert how == dict.fromkeys(names[1:], "zeroed")


def _on_all(pushed: Pushed, model: str) -> list[openai.Stream[Any]]:
    """Open streams until each replica has the model; return them."""
    client = pushed.server.client(max_retries=0, timeout=300).chat.completions
    streams: list[openai.Stream[Any]] = []
    while set(_states_of(pushed, model).values()) != {"ready"}:
        assert len(streams) < STREAMS_MAX, _states_of(pushed, model)
        stream = client.create(
            model=model,
            messages=ASKED,
            max_tokens=TOKENS,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        next(iter(stream))
        streams.append(stream)
    return streams


def _states_of(pushed: Pushed, model: str) -> dict[str, str]:
    reply = pushed.server.get(f"/v1/models/{model}/engines", key=pushed.server.owner_key)
    return {one["engine"]: one["state"] for one in json.loads(reply.body)["data"]}
