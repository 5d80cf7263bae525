"""Waits until a model answers, so that a command returns when its result can be used."""

from typing import Any

import click

from tunewarden.cli.client import Client
from tunewarden.clock import SystemClock
from tunewarden.errors import Error, Kind

POLL_SECONDS = 0.1
WAIT_SECONDS = 120.0


def until_it_answers(client: Client, model_id: str) -> None:
    """Wait until the model answers; if no server is running, print a note and return.

    Raises Error(UNAVAILABLE) after WAIT_SECONDS.
    """
    clock = SystemClock()
    deadline = clock.monotonic() + WAIT_SECONDS
    while client.is_served():
        if answers(client, model_id):
            return
        if clock.monotonic() > deadline:
            raise Error(Kind.UNAVAILABLE, f"{model_id} is registered but does not answer yet.")
        clock.sleep(POLL_SECONDS)
    click.echo("No server is running on this data directory; it will answer when one is.", err=True)


def answers(client: Client, model_id: str) -> bool:
    """Return whether the model answers a request for one token, as chat or as completion. Raises Error."""
    body = {"model": model_id, "max_tokens": 1}
    message = {"role": "user", "content": "Hello"}
    try:
        client.post("chat", "completions", fields={**body, "messages": [message]})
    except Error as error:
        if error.kind is Kind.UNAVAILABLE:
            return False
        # a base without a chat template supports completions only
        return _completes(client, body)
    return True


def _completes(client: Client, body: dict[str, Any]) -> bool:
    try:
        client.post("completions", fields={**body, "prompt": "Hello"})
    except Error as error:
        if error.kind is Kind.UNAVAILABLE:
            return False
        raise
    return True
