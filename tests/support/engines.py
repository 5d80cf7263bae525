"""A server with the demo's base on the real embedded engine, and adapters that say who they are."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path

import openai
from tests.support import demo_models, servers
from tests.support.servers import Server

from tunewarden.app import open_app
from tunewarden.artifacts.adapters import read_adapter_directory
from tunewarden.config import Config
from tunewarden.identity import keys
from tunewarden.server.first_start import add_local_base, make_owner

BASE = "demo-base"
ENGINE_SECONDS = 60.0


@contextlib.contextmanager
def serving(
    data: Path,
    *,
    workers: int,
    settings: Mapping[str, object] | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[Server]:
    """Run a server whose embedded engine has the demo's base and answers."""
    app = open_app(Config(data=data), migrate=True)
    make_owner(app)
    add_local_base(app, BASE, demo_models.base_dir())
    with servers.serving(data, workers=workers, settings=settings, prefix=prefix) as server:
        servers.wait_until(lambda: _answers(server), "the engine answers", ENGINE_SECONDS)
        yield server


def import_model(server: Server, phrase: str, *, suffix: str = "", key: str | None = None) -> str:
    """Import an adapter whose answers begin with `phrase`; return its id."""
    app = server.app
    caller = keys.authenticate(app.database, key or server.owner_key, "req_test")
    config, weights = read_adapter_directory(demo_models.adapter_dir(phrase))
    with weights:
        model = app.imports.bring_in(
            caller, base=BASE, suffix=suffix, config=BytesIO(config), weights=weights
        )
    return model.id


def say(client: openai.OpenAI, model: str, prompt: str = "Hello", tokens: int = 24) -> str:
    """Return what a model answers, greedily."""
    chat = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": prompt}],
        temperature=0,
        max_tokens=tokens,
    )
    return chat.choices[0].message.content or ""


def without_end() -> dict[str, int]:
    """Return the `logit_bias` under which the demo's models go on until `max_tokens`."""
    ends = json.loads((demo_models.base_dir() / "generation_config.json").read_text())[
        "eos_token_id"
    ]
    return {str(end): -100 for end in (ends if isinstance(ends, list) else [ends])}


def _answers(server: Server) -> bool:
    client = server.client(max_retries=0)
    try:
        say(client, BASE, tokens=1)
    except (openai.InternalServerError, openai.APIConnectionError):
        return False
    return True
