"""Every SDK deletes through a proxy that cuts answers at random bytes, and is told the truth (I5)."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fakes.cutting_proxy import CuttingProxy
from tests.support.servers import Server

from tunewarden.deletion import records

HERE = Path(__file__).parent
ENVIRONMENT = Path(sys.prefix)
MODELS = 4


def command_of(sdk: str) -> tuple[list[str], dict[str, str]]:
    """Return the command and environment that run an SDK; skip where it is not installed."""
    if sdk == "npm":
        modules = ENVIRONMENT / "node" / "node_modules"
        if not (modules / "openai").is_dir():
            pytest.skip("the npm SDK is not installed: there was no npm at `make setup`")
        node = str(modules / ".bin" / "node")
        return [node, str(HERE / "sdk_retries.mjs"), str(modules / "openai" / "index.mjs")], {}
    if sdk == "2":
        older = ENVIRONMENT / "openai-2"
        if not older.is_dir():
            pytest.skip("the SDK's major 2 is not installed: make setup")
        return [sys.executable, str(HERE / "sdk_retries.py")], {"PYTHONPATH": str(older)}
    return [sys.executable, str(HERE / "sdk_retries.py")], {}


@pytest.mark.parametrize("sdk", ["3", "2", "npm"])
def test_every_delete_succeeds_once_although_answers_are_cut(server: Server, sdk: str) -> None:
    seed = int(os.environ.get("TUNEWARDEN_SEED", "20261122"))
    command, environment = command_of(sdk)
    models = [server.make_model() for _ in range(MODELS)]
    with CuttingProxy(server.address, chance=random.Random(seed)) as proxy:
        done = subprocess.run(
            [*command, proxy.url, server.owner_key, *(model.id for model in models)],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    print(f"sdk {sdk}, seed {seed}: {MODELS} deletes, {proxy.cuts} answers cut")
    assert done.returncode == 0, done.stderr
    # The second DELETE is no repetition: 404, unless its own answer was cut.
    told = done.stdout.strip().removeprefix(f"deleted {MODELS}, a second time: ")
    assert told in {"404", "APIConnectionError"}
    assert proxy.cuts >= 1
    with server.app.database.read() as tx:
        for model in models:
            assert records.find_of(tx, model.n) is not None
