"""What `pip install` of the built wheel gives, without torch and apart from this source tree."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.packaging import installed
from tests.packaging.test_metadata import CORE, RECEIPTS
from tests.support import servers

from tunewarden.cli.exit_codes import ExitCode
from tunewarden.embedded_engine import installed as engine_installed
from tunewarden.server import supervisor

ENGINE_NEEDS = ("torch", "transformers", "peft")


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment that has the wheels and what their metadata asks for, no more."""
    directory = tmp_path_factory.mktemp("wheel")
    wheels = installed.build_wheels(directory, installed.ROOT, installed.RECEIPTS)
    return installed.install(wheels, directory / "environment", installed.needed(CORE + RECEIPTS))


def _run(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = servers.environment({})
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_package_comes_from_the_wheel_and_brings_no_torch(
    commands: Path, tmp_path: Path
) -> None:
    code = (
        "import importlib.util as u, tunewarden; print(tunewarden.__file__);"
        f"print([name for name in {ENGINE_NEEDS} if u.find_spec(name)])"
    )
    ran = _run([str(commands / "python"), "-c", code], tmp_path)
    where, found = ran.stdout.splitlines()
    assert Path(where).is_relative_to(commands.parent)
    assert found == "[]"


def test_the_console_has_its_templates_and_files(commands: Path, tmp_path: Path) -> None:
    here = ("static", "templates")
    code = (
        "from pathlib import Path; from tunewarden import console; of = Path(console.__file__).parent;"
        f"print(*sorted(path.name for one in {here} for path in (of / one).iterdir()))"
    )
    ran = _run([str(commands / "python"), "-c", code], tmp_path)
    of = installed.ROOT / "src" / "tunewarden" / "console"
    assert ran.stdout.split() == sorted(path.name for one in here for path in (of / one).iterdir())


def test_the_installed_server_starts_answers_and_stops_without_a_word_of_warning(
    commands: Path, tmp_path: Path
) -> None:
    # A warning of any process of the server would be an error, and end it.
    environment = servers.environment({}) | {"PYTHONWARNINGS": "error"}
    installed.serve_once([str(commands / "tunewarden")], tmp_path / "data", environment)


def test_a_local_base_without_torch_is_one_line_in_the_log_and_the_rest_is_served(
    commands: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    servers.prepare_local_base(data)
    command = [str(commands / "tunewarden"), "serve", "--port", "0", "--data", str(data)]
    log = tmp_path / "log"
    with (
        log.open("w") as written,
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env=servers.environment({}),
            stdout=subprocess.DEVNULL,
            stderr=written,
        ) as process,
    ):
        try:
            servers.wait_until(lambda: "tunewarden[local]" in log.read_text(), "it says so", 30)
            time.sleep(3 * supervisor.BACKOFF_SECONDS)  # Other processes would start again.
            assert installed.is_ready(data)
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    (line,) = log.read_text().splitlines()
    said = (
        "local bases are not served, their engine is not installed: pip install 'tunewarden[local]'"
    )
    assert f" ERROR engine {said} (missing: " in line


def test_the_demo_without_torch_says_what_to_install(commands: Path, tmp_path: Path) -> None:
    command = [str(commands / "tunewarden"), "serve", "--demo", "--port", "0", "--data", "data"]
    ran = _run(command, tmp_path)
    assert ran.returncode == ExitCode.UNAVAILABLE
    assert ran.stdout == ""
    assert ran.stderr.startswith("Error: The demo needs the local engine: ")
    assert f"{engine_installed.DEMO_BY_PIP} (missing: " in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert not (tmp_path / "data").exists(), "nothing was made"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["serve"], 1, "Error: Tunewarden runs on Linux. On other systems, run it in a Linux "),
        (["models", "list"], 1, "Error: Tunewarden runs on Linux. "),
        (["receipts", "verify", "missing.json"], 2, "Usage: "),
        (["--help"], 0, ""),
        (["--version"], 0, ""),
    ],
)
def test_other_systems_are_refused_clearly_but_may_verify_receipts(
    commands: Path, tmp_path: Path, arguments: list[str], status: int, said: str
) -> None:
    # As on Windows, which has none of these modules.
    code = (
        "import platform, sys; platform.system = lambda: 'Windows';"
        "sys.modules.update(dict.fromkeys(('fcntl', 'resource', 'pwd', 'termios')));"
        "from tunewarden.__main__ import main; main()"
    )
    ran = _run([str(commands / "python"), "-c", code, *arguments], tmp_path)
    assert ran.returncode == status, ran.stderr
    assert ran.stderr.startswith(said)
    assert "Traceback" not in ran.stderr


def test_make_on_another_system_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    fake = tmp_path / "bin" / "uname"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho Darwin\n")
    fake.chmod(0o755)
    environment = servers.environment({})
    environment["PATH"] = f"{fake.parent}:{environment['PATH']}"
    venv = tmp_path / "venv"
    ran = subprocess.run(
        ["make", "run", f"VENV={venv}"],
        cwd=installed.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith("Tunewarden runs on Linux. On other systems, run it in a Linux ")
    assert not venv.exists()
