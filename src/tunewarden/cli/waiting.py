"""Waits until a model answers, so that a command returns when its result can be used."""

from typing import Any

import click

from tunewarden.cli.client import Client
from tunewarden.clock import SystemClock
from tunewarden.errors import Error, Kind

POLL_SECONDS = 0.1
WAIT_SECONDS = 120.0
# One is answered: a base without a chat template has completions only, one that embeds neither.
REQUESTS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (
        ("chat", "completions"),
        {"max_tokens": 1, "messages": [{"role": "user", "content": "Hello"}]},
    ),
    (("completions",), {"max_tokens": 1, "prompt": "Hello"}),
    (("embeddings",), {"input": "Hello"}),
)
OF_COMPLETIONS = 1  # whose refusal says most


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
    """Return whether the model answers the shortest request of its kind. Raises Error."""
    refused: list[Error] = []
    for path, asked in REQUESTS:
        try:
            client.post(*path, fields={"model": model_id, **asked})
        except Error as error:
            if error.kind is Kind.UNAVAILABLE:
                return False
            refused.append(error)
        else:
            return True
    raise refused[OF_COMPLETIONS]
