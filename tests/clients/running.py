"""Run a client against a server: its recipe and its program, each in a process of its own."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.clients import environments
from tests.clients.catalog import Client
from tests.clients.recipes import recipes
from tests.support import demo_models, servers
from tests.support.servers import Server, wait_until

PROGRAMS = Path(__file__).parent / "programs"
# By the name's end, in the order in which they are looked for.
COMMANDS = {
    ".py": ("python",),
    ".mjs": ("node",),
    ".sh": ("bash", "-eu"),
    ".java": ("java",),
}
RUN_SECONDS = 300
START_SECONDS = 60.0
# No client tells anyone of its use, none looks for a newer release or a model's data: tests stay on the machine.
QUIET = {
    "ANONYMIZED_TELEMETRY": "false",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "DEEPEVAL_TELEMETRY_OPT_OUT": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
    "PROMPTFOO_DISABLE_TELEMETRY": "1",
    "PROMPTFOO_DISABLE_UPDATE": "1",
    "WANDB_MODE": "offline",
    # Whatever asks for another machine all the same is refused at once.
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
}


@dataclass(frozen=True, slots=True)
class Ran:
    """How a client fared."""

    works: bool
    seconds: float
    output: str


@contextlib.contextmanager
def serving_demo(data: Path, **settings: object) -> Iterator[Server]:
    """Run a server with the demo for a block, which begins when its engine answers."""
    with servers.serving(data, workers=1, options=["--demo"], settings=settings) as server:
        wait_until(lambda: "The engine answers." in server.printed(), "it says so", START_SECONDS)
        yield server


def run(client: Client, server: Server, model: str, place: Path, sink: str) -> Ran:
    """Run what a client has; it works if each of its programs exits with 0 and says something."""
    environment = place / "none"
    if environments.has_pins(client.pins):
        environment = environments.prepared(client.pins)
    variables = {
        **QUIET,
        "BASE": "demo-base",
        "HOME": str(place),
        "LANG": "C.UTF-8",
        "MODEL": model,
        "OPENAI_API_KEY": server.owner_key,
        "OPENAI_BASE_URL": server.url,
        "PATH": environments.search_path(environment),
        "PROGRAMS": str(PROGRAMS),
        "TOKENIZER": str(demo_models.PACKAGE / "base"),
        "LANGFUSE_HOST": sink,
        "LANGFUSE_PUBLIC_KEY": "pk-lf-local",
        "LANGFUSE_SECRET_KEY": "sk-lf-local",
        "SINK": sink,
    }
    began = time.monotonic()
    output = ""
    for command in _commands(client, place, environment):
        status, said = _run(command, place, variables)
        output += said
        if status != 0 or not said.strip():
            return Ran(works=False, seconds=time.monotonic() - began, output=output)
    return Ran(works=True, seconds=time.monotonic() - began, output=output)


def _run(command: list[str], place: Path, variables: dict[str, str]) -> tuple[int, str]:
    """Run a program; nothing that it started is left. Return its exit status and what it said."""
    process = subprocess.Popen(
        command,
        cwd=place,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=RUN_SECONDS)
    except subprocess.TimeoutExpired:
        said = f"nothing after {RUN_SECONDS} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return process.returncode, said


def _commands(client: Client, place: Path, environment: Path) -> list[list[str]]:
    """Put a client's files into its place; return the command of each that can be run."""
    if (environment / "node_modules").exists():
        # Node looks for packages beside the program.
        (place / "node_modules").symlink_to(environment / "node_modules")
    written = [(recipe.file, recipe.code) for recipe in recipes() if recipe.client == client.name]
    programs = sorted(PROGRAMS.glob(f"{client.program or client.name}.*"))
    written += [(file.name, file.read_text("utf-8")) for file in programs]
    found = []
    for number, (name, content) in enumerate(written):
        suffix = Path(name).suffix
        # Not by its own name: Python would take it for the package of that name.
        file = f"step{number}{suffix}" if suffix in COMMANDS else name
        (place / file).write_text(content, "utf-8")
        if suffix in COMMANDS:
            found.append([*COMMANDS[suffix], file])
    assert found, f"{client.name} has nothing to run"
    return found
