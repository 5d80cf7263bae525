"""docs/how-to/install.md: its lines run on the built wheels, and how soon the demo answers by uvx."""

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import openai
import pytest
from tests.packaging import installed
from tests.support import servers

from tunewarden.embedded_engine.installed import DEMO_BY_PIP, DEMO_BY_UVX

CACHE = installed.ROOT / ".cache"
UV = CACHE / "uv" / "bin" / "uv"
# Filled by `make test-uvx`, where pip has a CPU build of torch.
TORCH = CACHE / "torch"
FILL_SECONDS = 900
# The goal is 20 s on a warm cache, on a quiet machine; tests share theirs.
ANSWER_SECONDS = 60


DOCUMENT = installed.ROOT / "docs/how-to/install.md"
LINES = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
# The versions of the lock: a new release of others must not fail this.
LOCKS = [str(installed.ROOT / "requirements" / name) for name in ("core.txt", "local.txt")]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheels")
    demo = installed.ROOT / "packages" / "demo"
    installed.build_wheels(directory, installed.ROOT, installed.RECEIPTS, demo)
    return directory


def _options(line: str, wheels: Path) -> list[str]:
    """Return the words of a line of the document, on these wheels and on this machine's build of torch."""
    words = shlex.split(line)
    words[words.index("dist")] = str(wheels)
    if found := list(TORCH.glob("torch-*+cpu-*.whl")):
        at = words.index("--torch-backend")
        version = found[0].name.split("-")[1]
        words[at : at + 2] = ["--find-links", str(TORCH), "--with", f"torch=={version}"]
    more = ["--no-config", "--cache-dir", str(CACHE / "uvx"), "--python", sys.executable]
    return [*more, *(word for lock in LOCKS for word in ("--constraints", lock)), *words]


def _line(part: str) -> str:
    found: list[str] = [one for one in LINES if part in one]
    assert len(found) == 1, part
    return found[0]


@pytest.fixture(scope="module")
def command(wheels: Path) -> list[str]:
    """Return what the document says before `serve`, without the network; what it needs is in uv's cache by then."""
    line = _line(" tunewarden serve --demo --data data").removeprefix("uvx ")
    options = _options(line.removesuffix(" serve --demo --data data"), wheels)
    _run([str(UV), "tool", "run", "--quiet", *options, "--version"], {})
    return [str(UV), "tool", "run", "--quiet", "--offline", *options]


def _run(command: list[str], settings: Mapping[str, str]) -> str:
    ran = subprocess.run(
        command,
        env=servers.environment({}) | dict(settings),
        capture_output=True,
        text=True,
        timeout=FILL_SECONDS,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_error_message_and_the_document_name_one_command() -> None:
    line = _line(" tunewarden serve --demo --data data")
    assert line.replace(" --find-links dist", "").removesuffix(" --data data") == DEMO_BY_UVX
    torch, rest = DEMO_BY_PIP.split(" && ")
    in_the_environment = [line.replace("tunewarden-env/bin/", "") for line in LINES]
    assert torch in in_the_environment
    assert rest.replace("pip install", "pip install --find-links dist") in in_the_environment


def test_a_tour_by_uvx(command: list[str], tmp_path: Path) -> None:
    assert _line(" tunewarden tour").endswith(" tunewarden tour")
    environment = {"HOME": str(tmp_path)}
    assert json.loads(_run([*command, "tour", "--json"], environment))["object"] == "tour"


def test_uv_installs_all_commands(command: list[str], wheels: Path, tmp_path: Path) -> None:
    options = _options(_line("uv tool install").removeprefix("uv tool install "), wheels)
    places = {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    _run([str(UV), "tool", "install", "--quiet", "--offline", *options], places)
    for name in ("tunewarden", "tunewarden-receipts"):
        assert _run([str(tmp_path / "bin" / name), "--version"], {})


@pytest.mark.parametrize(
    ("lines", "imported"),
    [(slice(0, 2), "torch, peft, tunewarden_demo"), (slice(2, 4), "tunewarden_receipts")],
)
def test_pip_installs_what_the_document_says(
    wheels: Path, tmp_path: Path, lines: slice, imported: str
) -> None:
    bin_directory = tmp_path / "tunewarden-env" / "bin"
    _run([sys.executable, "-m", "venv", str(bin_directory.parent)], {})
    locked = "\n".join(Path(lock).read_text() for lock in LOCKS)
    versions = tmp_path / "versions.txt"
    # With their markers: a package may have a version for each Python.
    versions.write_text("\n".join(re.findall(r"^[\w.-]+==.*(?= \\$)", locked, re.MULTILINE)))
    pip = [line for line in LINES if line.startswith("tunewarden-env/bin/pip")]
    assert len(pip) == 4
    for line in pip[lines]:
        program, *words = shlex.split(line)
        if "dist" in words:
            words[words.index("dist")] = str(wheels)
            words += ["--constraint", str(versions)]
        if "--index-url" in words and (found := list(TORCH.glob("torch-*+cpu-*.whl"))):
            words = ["install", str(found[0])]
        words = [str(installed.ROOT / one) if "requirements/" in one else one for one in words]
        _run([str(tmp_path / program), "--quiet", *words], {})
    assert "tunewarden, version" in _run([str(bin_directory / "tunewarden"), "--version"], {})
    _run([str(bin_directory / "python"), "-c", f"import {imported}"], {})


def test_the_demo_answers_soon_on_a_warm_cache(command: list[str], tmp_path: Path) -> None:
    # Once before: uv compiles nothing, so the first start does.
    seconds = [_seconds_to_an_answer(command, tmp_path / str(number)) for number in range(2)]
    print(f"uvx serve --demo answered after {seconds[0]:.1f} s, then {seconds[1]:.1f} s")
    assert seconds[1] <= ANSWER_SECONDS


def _seconds_to_an_answer(command: list[str], data: Path) -> float:
    environment = servers.environment({})
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.monotonic()
    with subprocess.Popen(
        [*command, "serve", "--demo", "--port", "0", "--data", str(data)], env=environment
    ) as process:
        try:
            servers.wait_until(lambda: installed.is_ready(data), "it is ready", 2 * ANSWER_SECONDS)
            _ask(data)
            took = time.monotonic() - began
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    return took


def _ask(data: Path) -> None:
    """Wait for an answer of the demo's fine-tune, by the stock SDK."""
    key = (data / "owner.key").read_text().strip()
    client = openai.OpenAI(base_url=installed.url_of(data), api_key=key)
    tuned = [one.id for one in client.models.list() if one.id.startswith("ft:")]

    def answers() -> bool:
        try:
            chat = client.chat.completions.create(
                model=tuned[0], temperature=0, messages=[{"role": "user", "content": "Hello"}]
            )
        except openai.InternalServerError:
            return False
        return bool(chat.choices[0].message.content)

    servers.wait_until(answers, "the demo answers", 2 * ANSWER_SECONDS)
