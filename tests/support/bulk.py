"""Bulk deletions and runs of retention rules as the stock SDK sends them, and models that are older than they are."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import openai
from tests.support.servers import Server

from tunewarden.app import App

DAY_MICROS = 24 * 3600 * 1_000_000


def lines(answer: httpx2.Response) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The results and the summary, which must be last."""
    assert answer.headers["content-type"] == "application/jsonl"
    *found, summary = [json.loads(line) for line in answer.text.splitlines()]
    assert all(one["object"] == "deletion.result" for one in found)
    assert summary["object"] == "deletion.summary"
    return found, summary


def ask(
    client: openai.OpenAI,
    path: str,
    body: object = None,
    *,
    key: str | None = None,
    if_match: str | None = None,
    **params: object,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """POST through the SDK; return the results and the summary."""
    sent = {"Idempotency-Key": key, "If-Match": if_match}
    headers = {name: value for name, value in sent.items() if value is not None}
    options: Any = {"params": params, "headers": headers}
    answer = client.post(path, cast_to=httpx2.Response, body=body or {}, options=options)
    return lines(answer)


def get(client: openai.OpenAI, path: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """GET through the SDK; return the results and the summary."""
    return lines(client.get(path, cast_to=httpx2.Response))


@contextmanager
def streamed(
    server: Server, body: object, *, api_key: str, key: str | None = None
) -> Iterator[Iterator[dict[str, Any]]]:
    """Bulk deletions line by line, as they come; leaving the block hangs up."""
    connection = http.client.HTTPConnection(*server.address, timeout=60)
    headers = {"authorization": f"Bearer {api_key}", "content-type": "application/json"}
    if key is not None:
        headers["idempotency-key"] = key
    connection.request("POST", "/v1/deletions", json.dumps(body), headers)
    response = connection.getresponse()
    assert response.status == 200
    try:
        yield (json.loads(line) for line in response)
    finally:
        response.close()
        connection.close()


def outcomes(found: list[dict[str, Any]]) -> dict[str, str]:
    """The outcome of each model or file."""
    return {one.get("model") or one["file"]: one["outcome"] for one in found}


def codes(found: list[dict[str, Any]], model: str) -> set[str]:
    """The reasons of one model."""
    [one] = [one for one in found if one.get("model") == model]
    return {reason["code"] for reason in one["reasons"]}


def make_older(app: App, model_id: str, days: float) -> None:
    """Let a model have been made so many days earlier."""
    with app.database.write() as tx:
        tx.run(
            "UPDATE artifacts SET created_at = created_at - :age WHERE id = :id",
            age=int(days * DAY_MICROS),
            id=model_id,
        )


def old_model(server: Server, days: float, suffix: str = "") -> str:
    """Return the id of a new model that is so old."""
    model_id = server.make_model(suffix=suffix).id
    make_older(server.app, model_id, days)
    return model_id
