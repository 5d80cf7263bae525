"""Every example of the page that started the project, as written there.

Only base URL, key and ids differ: the first two come from the environment, as the SDK reads them.
"""

import os
import subprocess
import sys
import time

import apsw
import pytest
from tests import engines
from tests.servers import Server

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


def run_page(server: Server, code: str, *, key: str | None = None, sdk: str = "3") -> str:
    """Run an example in an interpreter of its own; return what it printed."""
    environment = {
        **os.environ,
        "OPENAI_BASE_URL": server.url,
        "OPENAI_API_KEY": key or server.owner_key,
    }
    if sdk == "2":
        environment["PYTHONPATH"] = str(older_sdk())
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def older_sdk() -> str:
    """Where `make` puts the SDK's major 2."""
    directory = os.path.join(sys.prefix, "openai-2")  # noqa: PTH118
    if not os.path.isdir(directory):  # noqa: PTH112
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
    assert (
        run_page(engine_server, PAGE_SAFE.format(model=model), sdk=sdk)
        == "Model deleted successfully\n"
    )
    again = run_page(engine_server, PAGE_SAFE.format(model=model), sdk=sdk)
    assert again.startswith("Error deleting model: ")
    base = run_page(engine_server, PAGE_SAFE.format(model=engines.BASE), sdk=sdk)
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
    refused = run_page(engine_server, PAGE_ERRORS.format(model=model), key=reader, sdk=sdk)
    assert refused == "You need Owner role to delete models\n"
    missing = run_page(engine_server, PAGE_ERRORS.format(model="ft:model-id"), sdk=sdk)
    assert missing == "Model does not exist\n"
    other = run_page(engine_server, PAGE_ERRORS.format(model=engines.BASE), sdk=sdk)
    assert other.startswith("Error: ")
    assert "Only fine-tuned models can be deleted" in other
    done = run_page(engine_server, PAGE_ERRORS.format(model=model), sdk=sdk)
    assert done == f"Deleted: {model}\n"


@pytest.mark.parametrize("sdk", SDKS)
def test_async_usage(engine_server: Server, sdk: str) -> None:
    model = engines.import_model(engine_server, "zebra says")
    assert run_page(engine_server, PAGE_ASYNC.format(model=model), sdk=sdk) == "Deleted: True\n"
