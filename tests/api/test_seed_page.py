"""Every example of the page that started the project, as written there.

Only base URL, key and ids differ: the first two come from the environment, as the SDK reads them.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import apsw
import pytest
from tests.support import engines
from tests.support.servers import Server

PAGE_DELETE = """
from openai import OpenAI
client = OpenAI()
# Delete a fine-tuned model
response = client.models.delete(
    model="{model}"
)
if response.deleted:
    print(f"Successfully deleted model: {{response.id}}")
"""

PAGE_SAFE = """
from openai import OpenAI
client = OpenAI()
def delete_model_safely(model_id: str):
    try:
        # First, verify the model exists
        model = client.models.retrieve(model_id)
        # Confirm it's a fine-tuned model
        if not model_id.startswith('ft:'):
            print("Can only delete fine-tuned models")
            return False
        # Delete the model
        response = client.models.delete(model_id)
        return response.deleted
    except Exception as e:
        print(f"Error deleting model: {{e}}")
        return False
deleted = delete_model_safely("{model}")
if deleted:
    print("Model deleted successfully")
"""

PAGE_OLD = """
from openai import OpenAI
client = OpenAI()
from datetime import datetime, timedelta
# Get all models
models = client.models.list()
# Find fine-tuned models older than 90 days
threshold = datetime.now().timestamp() - (90 * 24 * 60 * 60)
for model in models:
    if model.id.startswith('ft:') and model.created < threshold:
        print(f"Deleting old model: {model.id}")
        response = client.models.delete(model.id)
        print(f"Deleted: {response.deleted}")
"""

PAGE_ERRORS = """
from openai import OpenAI
client = OpenAI()
try:
    response = client.models.delete("{model}")
    print(f"Deleted: {{response.id}}")
except Exception as e:
    if "permission" in str(e).lower():
        print("You need Owner role to delete models")
    elif "not found" in str(e).lower():
        print("Model does not exist")
    else:
        print(f"Error: {{e}}")
"""

PAGE_ASYNC = """
import asyncio
from openai import AsyncOpenAI
async def main():
    client = AsyncOpenAI()
    response = await client.models.delete(
        model="{model}"
    )
    print(f"Deleted: {{response.deleted}}")
asyncio.run(main())
"""

SDKS = ["3", "2"]


# Runs examples in their order, each with a key, and prints what each printed.
RUN = """
import contextlib, io, json, os, sys
said = []
for code, key in json.load(sys.stdin):
    os.environ["OPENAI_API_KEY"] = key
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, {"__name__": "__main__"})
    said.append(printed.getvalue())
print(json.dumps(said))
"""


def run_pages(server: Server, pages: list[tuple[str, str]], *, sdk: str = "3") -> list[str]:
    """Run examples with their keys in an interpreter that is theirs alone; return what each printed."""
    environment = {**os.environ, "OPENAI_BASE_URL": server.url}
    if sdk == "2":
        environment["PYTHONPATH"] = str(older_sdk())
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        env=environment,
        input=json.dumps(pages),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert isinstance(said, list)
    return said


def run_page(server: Server, code: str, *, sdk: str = "3") -> str:
    """Run one example as the Owner; return what it printed."""
    [said] = run_pages(server, [(code, server.owner_key)], sdk=sdk)
    return said


def older_sdk() -> str:
    """Where `make` puts the SDK's major 2."""
    directory = str(Path(sys.prefix, "openai-2"))
    if not Path(directory).is_dir():
        pytest.skip("the SDK's major 2 is not installed: make setup")
    return directory


@pytest.mark.parametrize("sdk", SDKS)
def test_delete_a_fine_tuned_model(engine_server: Server, sdk: str) -> None:
    model = engines.import_model(engine_server, "zebra says")
    assert engines.say(engine_server.client(), model).startswith("zebra says")
    printed = run_page(engine_server, PAGE_DELETE.format(model=model), sdk=sdk)
    assert printed == f"Successfully deleted model: {model}\n"
    refused = engine_server.post(
        "/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    )
    assert refused.status == 404
    assert refused.error["code"] == "model_not_found"


@pytest.mark.parametrize("sdk", SDKS)
def test_safe_deletion_with_confirmation(engine_server: Server, sdk: str) -> None:
    model = engines.import_model(engine_server, "zebra says")
    asked = [PAGE_SAFE.format(model=name) for name in (model, model, engines.BASE)]
    deleted, again, base = run_pages(
        engine_server, [(page, engine_server.owner_key) for page in asked], sdk=sdk
    )
    assert deleted == "Model deleted successfully\n"
    assert again.startswith("Error deleting model: ")
    assert base == "Can only delete fine-tuned models\n"


def test_list_and_delete_old_models(engine_server: Server) -> None:
    old = engines.import_model(engine_server, "zebra says", suffix="old")
    young = engines.import_model(engine_server, "zebra says", suffix="young")
    database = apsw.Connection(str(engine_server.data / "tunewarden.sqlite"))
    database.set_busy_timeout(5000)
    micros = int((time.time() - 91 * 24 * 3600) * 1_000_000)
    database.execute("UPDATE artifacts SET created_at = ? WHERE id = ?", (micros, old))
    database.close()
    assert run_page(engine_server, PAGE_OLD) == f"Deleting old model: {old}\nDeleted: True\n"
    left = [model.id for model in engine_server.client().models.list()]
    assert old not in left
    assert young in left


@pytest.mark.parametrize("sdk", SDKS)
def test_error_handling_takes_the_branch_that_it_describes(engine_server: Server, sdk: str) -> None:
    model = engines.import_model(engine_server, "zebra says")
    reader = engine_server.make_key("reader")
    owner = engine_server.owner_key
    asked = [(model, reader), ("ft:model-id", owner), (engines.BASE, owner), (model, owner)]
    refused, missing, other, done = run_pages(
        engine_server, [(PAGE_ERRORS.format(model=name), key) for name, key in asked], sdk=sdk
    )
    assert refused == "You need Owner role to delete models\n"
    assert missing == "Model does not exist\n"
    assert other.startswith("Error: ")
    assert "Only fine-tuned models can be deleted" in other
    assert done == f"Deleted: {model}\n"


@pytest.mark.parametrize("sdk", SDKS)
def test_async_usage(engine_server: Server, sdk: str) -> None:
    model = engines.import_model(engine_server, "zebra says")
    assert run_page(engine_server, PAGE_ASYNC.format(model=model), sdk=sdk) == "Deleted: True\n"
