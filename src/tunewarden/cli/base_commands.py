"""Registering a base model."""

import json
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tunewarden.app import open_app
from tunewarden.cli import waiting
from tunewarden.cli.first_start import add_local_base
from tunewarden.config import Config
from tunewarden.errors import Error, Kind
from tunewarden.registry import bases
from tunewarden.registry.bases import BaseKind
from tunewarden.serving import engine_keys
from tunewarden.serving.address import Address

LIST_SECONDS = 10
LIST_BYTES_MAX = 16 * 1024 * 1024


def add(
    settings: Config,
    name: str,
    *,
    path: str | None,
    engine_url: str | None,
    engine_key_file: Path | None = None,
) -> None:
    """Register a base and return when it answers. Raises Error."""
    app = open_app(settings)
    if engine_url is not None:
        Address.of_url(engine_url)
        key = None if engine_key_file is None else engine_keys.given(engine_key_file)
        engine_model = model_at(engine_url, name, key, "Give its API key with --engine-key-file.")
        with app.database.write() as tx:
            bases.add(
                tx,
                name=name,
                kind=BaseKind.REMOTE,
                location=engine_url.rstrip("/"),
                engine_model=engine_model,
                modules={},
            )
            # Inside the transaction: a base whose key could not be written down is not made.
            engine_keys.keep(settings.engine_keys, name, key)
    else:
        assert path is not None, "the command asks for one of the two"
        add_local_base(app, name, _directory(path))
    http = waiting.door_to_running(settings)
    if http is not None:
        waiting.until_it_answers(http, None, name)


def _directory(path: str) -> Path:
    """Return a local directory; a hub id is downloaded, where the network and the extra allow."""
    directory = Path(path)
    if directory.is_dir():
        return directory
    if path.count("/") != 1 or path.startswith((".", "/")):
        raise Error(Kind.INVALID, f"There is no directory {path}.", param="path")
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415  comes with the local extra
    except ImportError as error:
        raise Error(
            Kind.INVALID,
            f"There is no directory {path}. To download it from the hub: pip install 'tunewarden[local]'.",
        ) from error
    try:
        # Weights and tokenizer only: nothing that could be run.
        found = snapshot_download(
            path, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
        )
    except (OSError, ValueError) as error:
        raise Error(
            Kind.INVALID,
            f"There is no directory {path}, and the hub could not be reached for it.",
            param="path",
        ) from error
    return Path(found)


def model_at(engine_url: str, name: str, key: str | None, advice: str) -> str:
    """Return what the server at the URL calls the model: `name`, or its only one.

    Raises Error(INVALID), with `advice` if the server refuses the key.
    """
    request = Request(f"{engine_url.rstrip('/')}/models")  # noqa: S310  checked by Address
    if key is not None:
        # Not to where an answer may redirect.
        request.add_unredirected_header("Authorization", f"Bearer {key}")
    try:
        with urlopen(request, timeout=LIST_SECONDS) as response:  # noqa: S310  checked by Address
            served = [
                str(model["id"]) for model in json.loads(response.read(LIST_BYTES_MAX))["data"]
            ]
    except HTTPError as error:
        why = advice if error.code in {401, 403} else ""
        raise Error(
            Kind.INVALID,
            f"{engine_url}/models was answered with status {error.code}. {why}".strip(),
            param="engine_url",
        ) from error
    except (URLError, OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise Error(
            Kind.INVALID,
            f"No OpenAI-compatible server answers at {engine_url}/models.",
            param="engine_url",
        ) from error
    if name in served:
        return name
    if len(served) == 1:
        return served[0]
    raise Error(
        Kind.INVALID,
        f"The server at {engine_url} has no model '{name}'. It has: {', '.join(served) or 'none'}."
        " Name the base after one of them.",
        param="name",
    )
