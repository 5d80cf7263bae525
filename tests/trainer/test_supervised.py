"""A real trainer teaches the demo's base a phrase, and what is killed goes on as if nothing had been."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support import demo_models
from tests.trainer import data, models
from tests.trainer.driver import Message, Runner, running

from tunewarden.artifacts.adapters import base_shape, check_adapter
from tunewarden.trainer.batches import Cutter
from tunewarden.trainer.failures import Failure
from tunewarden.trainer.messages import Hyperparameters
from tunewarden.trainer.schedule import schedule
from tunewarden.trainer.states import load

EXAMPLES, EXTRA = data.chats(100), data.chats(20, seed=9)
STEPS = 65  # 5 epochs of 13 steps of 8: plan.py
KILLED_AT = 34


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """One run with everything "auto", all taken."""
    with running(tmp_path_factory.mktemp("trained"), EXAMPLES, EXTRA) as runner:
        last = runner.to_end()
        assert last["type"] == "finished", (last, runner.output())
        seconds = last["at"] - runner.of("plan")[0]["at"]
        print(f"\n{last['at']:.1f} s in all, {seconds:.1f} s of them for {STEPS} steps")
        yield runner


def test_it_learns_to_say_what_it_was_taught(trained: Runner) -> None:
    assert data.PHRASE not in models.say(models.load(None), "Hello")
    model = models.load(trained.messages[-1]["kept"])
    for question in models.QUESTIONS:
        answer = models.say(model, question)
        assert answer.startswith(data.PHRASE), answer
        assert answer.endswith("<|end|>"), answer


def test_it_tells_in_order_what_it_does(trained: Runner) -> None:
    kinds = [message["type"] for message in trained.messages if message["type"] != "progress"]
    epoch = ["checkpoint", "state"]
    assert kinds == ["tokens", "tokens", "plan", *(5 * epoch), "finished"]
    training, validation = trained.of("tokens")
    assert (training["file"], training["examples"]) == ("training", 100)
    assert (validation["file"], validation["examples"]) == ("validation", 20)
    assert 0 < training["learned_tokens"] < training["tokens"]
    assert trained.messages[-1]["trained_tokens"] == 5 * training["tokens"]
    plan = {name: value for name, value in trained.of("plan")[0].items() if name != "at"}
    assert plan == {
        "type": "plan",
        "n_epochs": 5,
        "batch_size": 8,
        "learning_rate_multiplier": 1.0,
        "beta": None,
        "steps": STEPS,
    }


def test_it_leaves_nothing_behind(trained: Runner) -> None:
    assert trained.process.returncode == 0
    assert list(trained.scratch.iterdir()) == []
    assert trained.output() == ""


def test_what_it_offers_passes_for_an_import(trained: Runner) -> None:
    shape = base_shape(demo_models.base_dir(), "demo-base")
    offered = [*trained.of("checkpoint"), trained.messages[-1]]
    for message in offered:
        kept: Path = message["kept"]
        assert sorted(file.name for file in kept.iterdir()) == [
            "adapter_config.json",
            "adapter_model.safetensors",
        ]
        config = (kept / "adapter_config.json").read_bytes()
        checked = check_adapter(config, (kept / "adapter_model.safetensors").read_bytes(), shape)
        assert (checked.rank, checked.tensors) == (8, 2 * 7 * 4)
        assert str(demo_models.base_dir()) not in config.decode()


def test_a_state_is_a_flat_directory_without_pickles(trained: Runner) -> None:
    for message in trained.of("state"):
        names = sorted(file.name for file in message["kept"].iterdir() if file.is_file())
        assert names == sorted(file.name for file in message["kept"].iterdir())
        assert {Path(name).suffix for name in names} == {".json", ".safetensors"}


def test_checkpoints_have_metrics_that_get_better(trained: Runner) -> None:
    metrics = [message["metrics"] for message in trained.of("checkpoint")]
    assert [one["step"] for one in metrics] == [message["step"] for message in trained.of("state")]
    assert all(len(one) == 7 for one in metrics)
    assert metrics[-1]["full_valid_loss"] < metrics[0]["full_valid_loss"] < 2
    assert metrics[-1]["full_valid_mean_token_accuracy"] > 0.9


def test_the_results_have_each_step_once(trained: Runner) -> None:
    text = trained.messages[-1]["csv"]
    assert text.startswith("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [int(row["step"]) for row in rows] == list(range(1, STEPS + 1))
    assert float(rows[-1]["train_loss"]) < 0.5 < float(rows[0]["train_loss"])
    measured = [int(row["step"]) for row in rows if row["valid_loss"]]
    assert measured == [10, 20, 30, 40, 50, 60, STEPS]


def test_progress_is_told_to_the_end_and_not_too_often(trained: Runner) -> None:
    told = trained.of("progress")
    assert (told[-1]["step"], told[-1]["epoch"], told[-1]["seconds_left"]) == (STEPS, 5.0, 0)
    assert [message["step"] for message in told] == sorted(message["step"] for message in told)
    times = [message["at"] for message in told]
    assert len(times) <= 4 * (times[-1] - times[0]) + 2
    rates = [message["learning_rate"] for message in told]
    assert max(rates) <= 2.5e-3
    assert rates[-1] < 0.2 * max(rates)


def test_a_killed_run_goes_on_to_the_same_bytes(trained: Runner, tmp_path: Path) -> None:
    with running(tmp_path, EXAMPLES, EXTRA, state_seconds=0.0) as killed:
        state = killed.until("state", KILLED_AT)
        killed.acknowledge()
        killed.process.kill()
        assert state["step"] == KILLED_AT, "a state at the end of each step"
    with running(tmp_path, EXAMPLES, EXTRA, resume=str(state["kept"])) as runner:
        last = runner.to_end()
        assert last["type"] == "finished", (last, runner.output())
    whole = trained.messages[-1]
    assert last["csv"] == whole["csv"]
    assert last["trained_tokens"] == whole["trained_tokens"]
    assert weights(last) == weights(whole)
    before = [message for message in trained.of("checkpoint") if message["step"] > KILLED_AT]
    assert [message["metrics"] for message in runner.of("checkpoint")] == [
        message["metrics"] for message in before
    ]
    assert weights(runner.of("checkpoint")[0]) == weights(before[0])


def test_a_state_of_another_run_is_refused(trained: Runner) -> None:
    state: Path = trained.of("state")[0]["kept"]
    files = [Cutter([()] * count, tokens_max=1, is_packed=False) for count in (100, 20)]
    parameters = models.load(None).num_parameters()
    ours = schedule(Hyperparameters(), "supervised", examples=100, parameters=parameters)
    assert load(state, ours, files).results.steps[-1].step == 13
    for plan, cutters in ((replace(ours, n_epochs=4), files), (ours, files[:1])):
        with pytest.raises(Failure, match="invalid_resume_state"):
            load(state, plan, cutters)


def weights(message: Message) -> bytes:
    """The weights of what was offered."""
    kept: Path = message["kept"]
    assert json.loads((kept / "adapter_config.json").read_text("utf-8"))["r"] == 8
    return (kept / "adapter_model.safetensors").read_bytes()
