"""Requests that are made up from a description of the API: no server error, and answers as described.

`make fuzz-api` reads the server's own description. `OPENAPI=FILE` also reads OpenAI's, cut to what is offered here;
the file cannot be committed.
"""

import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.clients import environments, running
from tests.support.servers import Server

from tunewarden.server.first_start import DEMO_BASE

METHODS = {"get", "post", "put", "patch", "delete"}
CHECKS = ("not_a_server_error", "response_schema_conformance", "use_after_free", "ignored_auth")
# Of each description; the rest of the time ends what has begun.
FUZZ_SECONDS = 90
WAIT_SECONDS = 600
# OpenAI's schema is narrower than what it describes: these are null for an empty list, as OpenAI answers.
NULL_WHERE_EMPTY = {"first_id", "last_id"}
# Some of its errors lack the envelope in which every real one comes.
BARE_ERROR, ERROR = "#/components/schemas/Error", "#/components/schemas/ErrorResponse"
# Its answers have no place for a purpose that its requests take.
FORGOTTEN_PURPOSE = "evals"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("fuzz") / "data"
    # No job is trained: the requests are what is tried.
    with running.serving_demo(data, training_jobs_max=0) as server:
        yield server


def test_as_the_server_describes_itself(demo: Server, tmp_path: Path) -> None:
    description = offered(demo)
    read_streams_as_text(description)
    fuzz(demo, description, tmp_path)


def test_as_openai_describes_it(demo: Server, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    given = pytestconfig.getoption("--openapi")
    if not given:
        pytest.skip("make fuzz-api OPENAPI=FILE reads OpenAI's description")
    fuzz(demo, cut(read(Path(given)), offered(demo)), tmp_path)


def offered(server: Server) -> dict[str, Any]:
    """Return the server's own description."""
    reply = server.get("/openapi.json", key=server.owner_key)
    assert reply.status == 200
    return reply.json


def read(file: Path) -> dict[str, Any]:
    """Read a description; YAML by the environment that has a reader of it."""
    if file.suffix == ".json":
        text = file.read_text("utf-8")
    else:
        python = environments.prepared("schemathesis") / "venv" / "bin" / "python"
        convert = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1])), default=str))"
        text = subprocess.run(
            [python, "-c", convert, file], check=True, capture_output=True, text=True
        ).stdout
    found = json.loads(text)
    assert isinstance(found, dict)
    return found


def cut(description: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Return a description with only the operations that the other one has too."""
    known = {
        (_shape(path), method)
        for path, item in ours["paths"].items()
        for method in METHODS & item.keys()
    }
    paths = {}
    for path, item in description["paths"].items():
        kept = {
            key: value
            for key, value in item.items()
            if key not in METHODS or (_shape(f"/v1{path}"), key) in known
        }
        if METHODS & kept.keys():
            wrap_errors(kept[method] for method in METHODS & kept.keys())
            paths[path] = kept
    assert len(paths) > 10
    schemas = description["components"]["schemas"]
    schemas["OpenAIFile"]["properties"]["purpose"]["enum"].append(FORGOTTEN_PURPOSE)
    for schema in schemas.values():
        for name in NULL_WHERE_EMPTY & schema.get("properties", {}).keys():
            schema["properties"][name]["type"] = ["string", "null"]
    return {**description, "paths": paths}


def wrap_errors(operations: Iterable[dict[str, Any]]) -> None:
    """Give the errors of these operations their envelope."""
    for operation in operations:
        for response in operation["responses"].values():
            for content in response.get("content", {}).values():
                if content.get("schema") == {"$ref": BARE_ERROR}:
                    content["schema"] = {"$ref": ERROR}


def name_a_model(description: dict[str, Any]) -> None:
    """Have every body that names a model name one that is there, or no request would get further than its name."""
    todo = [
        content["schema"]
        for item in description["paths"].values()
        for operation in item.values()
        for kind, content in operation.get("requestBody", {}).get("content", {}).items()
        if kind == "application/json"
    ]
    named = 0
    while todo:
        schema = todo.pop()
        todo += schema.get("allOf", [])
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            todo.append(description["components"]["schemas"][name])
        if "model" in schema.get("properties", {}):
            schema["properties"]["model"] = {"type": "string", "enum": [DEMO_BASE]}
            named += 1
    assert named >= 3


def read_streams_as_text(description: dict[str, Any]) -> None:
    """Take the schema of a stream away, which is that of the whole text: schemathesis holds each event to it."""
    for item in description["paths"].values():
        for operation in item.values():
            for response in operation["responses"].values():
                response.get("content", {}).get("text/event-stream", {}).pop("schema", None)


def _shape(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


def fuzz(server: Server, description: dict[str, Any], place: Path) -> None:
    """Run schemathesis on a description; it must find nothing."""
    name_a_model(description)
    file = place / "openapi.json"
    file.write_text(json.dumps(description), "utf-8")
    is_ours = "/v1/models" in description["paths"]
    base = server.url.removesuffix("/v1") if is_ours else server.url
    command = [
        str(environments.prepared("schemathesis") / "venv" / "bin" / "schemathesis"),
        "run",
        str(file),
        f"--url={base}",
        f"--header=Authorization: Bearer {server.owner_key}",
        f"--checks={','.join(CHECKS)}",
        f"--max-time={FUZZ_SECONDS}",
        "--seed=1",
        "--no-color",
        "--warnings=off",
    ]
    ran = subprocess.run(
        command, cwd=place, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
    )
    print(ran.stdout)
    assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
