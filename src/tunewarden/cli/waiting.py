"""Waiting until a model answers, so that a command returns when what it made can be used."""

import json
from pathlib import Path

import click

from tunewarden import config
from tunewarden.cli.doors import Door, HttpDoor
from tunewarden.clock import SystemClock
from tunewarden.config import Config
from tunewarden.errors import Error, Kind
from tunewarden.locks import ByteLocks

POLL_SECONDS = 0.1
WAIT_SECONDS = 120.0


def until_it_answers(door: Door, data: Path | None, model_id: str) -> None:
    """Return when the model answers; at once, with a word, where no server is running.

    Raises Error(UNAVAILABLE) when it does not answer within WAIT_SECONDS.
    """
    http = door if isinstance(door, HttpDoor) else door_to_running(config.load(data=data))
    if http is None:
        click.echo(
            "No server is running on this data directory; it will answer when one is.", err=True
        )
        return
    clock = SystemClock()
    deadline = clock.monotonic() + WAIT_SECONDS
    while not http.answers(model_id):
        if clock.monotonic() > deadline:
            raise Error(Kind.UNAVAILABLE, f"{model_id} is registered but does not answer yet.")
        clock.sleep(POLL_SECONDS)


def door_to_running(settings: Config) -> HttpDoor | None:
    """Return a door to the server that runs on this data directory, or None."""
    try:
        locks = ByteLocks(settings.run / "server.lock", create=False)
    except FileNotFoundError:
        return None
    try:
        if not locks.is_held_exclusively(0):
            return None
    finally:
        locks.close()
    try:
        url = json.loads((settings.run / "server.json").read_text("utf-8"))["url"]
        key = settings.owner_key.read_text("utf-8").strip()
    except FileNotFoundError:
        return None
    return HttpDoor(url, key)
