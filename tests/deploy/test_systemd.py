"""The systemd units: systemd reads them without a complaint, and they fit what the server does and needs."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tunewarden.config import Config
from tunewarden.server import supervisor

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deploy/systemd"
GATEWAY = UNITS / "tunewarden.service"
VLLM = UNITS / "tunewarden-vllm.service"
# Percent of what systemd counts as exposure. It adds 18 for a vLLM, which needs devices and any system call.
EXPOSURE_MAX = {GATEWAY: 20, VLLM: 38}

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def _settings(unit: Path) -> dict[str, str]:
    """Return what a unit says, the last value of each name, with continued lines joined."""
    text = unit.read_text("utf-8").replace("\\\n", " ")
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def _with_a_stand_in(unit: Path, where: Path) -> Path:
    """Copy a unit; its program, which is not installed here, becomes one that does nothing."""
    program = where / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copy = where / unit.name
    copy.write_text(
        re.sub(r"^ExecStart=\S+", f"ExecStart={program}", unit.read_text(), flags=re.MULTILINE)
    )
    return copy


def _analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@needs_systemd
@pytest.mark.parametrize("unit", [GATEWAY, VLLM], ids=lambda unit: unit.name)
def test_systemd_reads_the_unit_without_a_complaint(unit: Path, tmp_path: Path) -> None:
    verified = _analyze("verify", _with_a_stand_in(unit, tmp_path))
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


@needs_systemd
def test_control_a_setting_that_systemd_does_not_know_is_a_complaint(tmp_path: Path) -> None:
    copy = _with_a_stand_in(GATEWAY, tmp_path)
    copy.write_text(copy.read_text().replace("NoNewPrivileges=", "NoNewPriviliges="))
    assert "NoNewPriviliges" in _analyze("verify", copy).stderr


@needs_systemd
@pytest.mark.parametrize("unit", [GATEWAY, VLLM], ids=lambda unit: unit.name)
def test_the_unit_leaves_little_open(unit: Path, tmp_path: Path) -> None:
    copy = _with_a_stand_in(unit, tmp_path)
    bound = f"--threshold={EXPOSURE_MAX[unit]}"
    judged = _analyze("security", "--offline=true", bound, copy)
    assert judged.returncode == 0, judged.stdout
    copy.write_text(
        re.sub(r"^(Protect|Restrict|Private)\w+=.*\n", "", copy.read_text(), flags=re.MULTILINE)
    )
    assert _analyze("security", "--offline=true", bound, copy).returncode != 0  # control


def test_the_gateway_has_the_time_to_stop_that_it_takes() -> None:
    config = Config()
    seconds = int(_settings(GATEWAY)["TimeoutStopSec"])
    drain = config.drain_delay_seconds + config.drain_seconds + supervisor.WORKER_STOP_SECONDS
    jobs = config.drain_delay_seconds + supervisor.RUNNER_STOP_SECONDS
    assert seconds > max(drain, jobs) + supervisor.ENGINE_STOP_SECONDS


def test_the_gateway_may_open_the_files_that_its_connections_need() -> None:
    assert int(_settings(GATEWAY)["LimitNOFILE"]) > 2 * Config().connections_max


@pytest.mark.parametrize("unit", [GATEWAY, VLLM], ids=lambda unit: unit.name)
def test_nothing_in_memory_reaches_a_disk(unit: Path) -> None:
    said = _settings(unit)
    assert (said["MemorySwapMax"], said["LimitCORE"], said["UMask"]) == ("0", "0", "0077")
    # It hides /proc/swaps.
    assert "ProcSubset" not in said


@pytest.mark.parametrize("unit", [GATEWAY, VLLM], ids=lambda unit: unit.name)
def test_a_unit_runs_as_a_user_that_is_made_for_it(unit: Path) -> None:
    made = (UNITS / "tunewarden.sysusers.conf").read_text("utf-8")
    said = _settings(unit)
    assert f"\nu {said['User']} - " in made
    assert f"/var/lib/{said['StateDirectory']}\n" in made


def test_vllm_is_started_as_its_page_says() -> None:
    page = (ROOT / "docs/how-to/vllm.md").read_text("utf-8")
    shown = page.split("vllm serve ", 1)[1].split("```")[0].replace("\\\n", " ").split()
    started = _settings(VLLM)["ExecStart"].split()[2:]
    names = {"/models/llama": "${MODEL}", "llama": "${NAME}"}
    assert started == [names.get(word, word) for word in shown]
