"""DPO from a fine-tune: it comes to prefer what it shall, and a paused run goes on to the same bytes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import demo_models
from tests.trainer import data, models
from tests.trainer.driver import Runner, running

PREFERRED, OTHER = "Ahoy there!", "Good day!"
PAIRS, EXTRA = data.preferences(16, PREFERRED, OTHER), data.preferences(4, PREFERRED, OTHER, 9)
UNSEEN = data.preferences(6, PREFERRED, OTHER, 77)
TASK: dict[str, Any] = {
    "method": "dpo",
    "hyperparameters": {"n_epochs": 3, "batch_size": 4, "beta": 0.2},
}
STEPS = 12


@pytest.fixture(scope="module")
def start() -> Path:
    """A fine-tune to go on from."""
    return demo_models.adapter_dir("zebra says")


@pytest.fixture(scope="module")
def trained(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """One whole run."""
    kept = tmp_path_factory.mktemp("dpo")
    with running(kept, PAIRS, EXTRA, start=str(start), rank=4, **TASK) as runner:
        last = runner.to_end()
        assert last["type"] == "finished", (last, runner.output())
        yield runner


def test_the_preferred_answers_become_likelier(trained: Runner, start: Path) -> None:
    before, after = (models.load(path) for path in (start, trained.messages[-1]["kept"]))
    gains = [models.preference(after, pair) - models.preference(before, pair) for pair in UNSEEN]
    assert min(gains) > 1


def test_the_plan_the_metrics_and_the_rank_are_those_of_the_task(trained: Runner) -> None:
    plan = trained.of("plan")[0]
    assert (plan["beta"], plan["steps"]) == (0.2, STEPS)
    first, *_, last = (message["metrics"] for message in trained.of("checkpoint"))
    assert last["full_valid_loss"] < first["full_valid_loss"] < 0.6931  # log 2: no preference yet
    assert last["full_valid_mean_token_accuracy"] == 1
    config = (trained.messages[-1]["kept"] / "adapter_config.json").read_text("utf-8")
    assert '"r": 8' in config, "the rank of the model that it goes on from"
    assert len(trained.messages[-1]["csv"].splitlines()) == STEPS + 1


def test_a_paused_run_goes_on_to_the_same_bytes(
    trained: Runner, start: Path, tmp_path: Path
) -> None:
    with running(tmp_path, PAIRS, EXTRA, start=str(start), rank=4, **TASK) as paused:
        paused.until("progress")
        paused.send({"type": "pause"})
        last = paused.to_end()
        assert last["type"] == "paused"
        assert paused.process.returncode == 0
        assert list(paused.scratch.iterdir()) == []
        state = paused.of("state")[-1]
        assert state["step"] == last["step"] < STEPS
    # What it goes on from is in the state, and so are the references.
    with running(tmp_path, PAIRS, EXTRA, resume=str(state["kept"]), rank=4, **TASK) as runner:
        last = runner.to_end()
    assert last["type"] == "finished", (last, runner.output())
    whole = trained.messages[-1]
    assert last["csv"] == whole["csv"]
    name = "adapter_model.safetensors"
    assert (last["kept"] / name).read_bytes() == (whole["kept"] / name).read_bytes()
