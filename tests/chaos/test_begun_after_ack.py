"""No request begins, and no chunk leaves, after the answer to a deletion (I1, I2): with real processes."""

import os
import re
import subprocess
import sys

import pytest

IS_LONG = bool(os.environ.get("TUNEWARDEN_TORTURE"))
HARNESS = (sys.executable, "-m", "tests.chaos.begun_after_ack")


def _run(*arguments: str) -> dict[str, int]:
    """Run the harness in a process of its own; return its counts."""
    done = subprocess.run(
        [*HARNESS, *arguments], capture_output=True, text=True, timeout=3600, check=False
    )
    print(done.stdout, end="")
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: int(value) for name, value in re.findall(r"([a-z-]+) (\d+)\b", done.stdout)}


def test_nobody_begins_on_a_model_after_its_deletion_was_answered() -> None:
    size = ["--begins", "2000000", "--deletes", "200000", "--seconds", "240"]
    counts = _run("guard", *(size if IS_LONG else ["--begins", "20000", "--seconds", "10"]))
    assert counts["begun-after-ack"] == counts["chunks-after-ack"] == 0
    assert counts["begins"] >= (2_000_000 if IS_LONG else 20_000)
    assert counts["deletes"] >= (20_000 if IS_LONG else 300)
    assert counts["kills"] >= 1, "nobody held on for too long: the chaos did not reach the bound"


@pytest.mark.parametrize("control", ["unguarded", "cached"])
def test_the_stress_catches_a_worker_that_reads_without_the_guard(control: str) -> None:
    counts = _run(control, "--seconds", "30")
    assert counts["begun-after-ack"] + counts["chunks-after-ack"] > 0
