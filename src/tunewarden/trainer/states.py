"""The resume state of a run, as files: a resumed run gives the same result as an uninterrupted one.

A flat directory: the adapter's two files, `optimizer.safetensors` (moments, random state, DPO's
references), `trainer_state.json` (transformers' own) and `run.json`. No pickle is written or read.
The order of the examples is not included: it follows from the seed and the epoch.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tunewarden.trainer.adapters import save_adapter
from tunewarden.trainer.batches import Cutter
from tunewarden.trainer.failures import Failure
from tunewarden.trainer.results import Results, loaded
from tunewarden.trainer.schedule import Schedule

TENSORS, RUN, TRAINER_STATE = "optimizer.safetensors", "run.json", "trainer_state.json"
MOMENT, RANDOM, CUDA_RANDOM, REFERENCES = "moment", "random", "random.cuda", "references"


@dataclass(frozen=True, slots=True)
class Saved:
    """A loaded state, without the adapter."""

    results: Results
    tensors: dict[str, torch.Tensor]

    @property
    def step(self) -> int:
        """The last completed step."""
        return self.results.steps[-1].step

    def restore_optimizer(self, optimizer: Any) -> None:
        """Restore the moments. The optimizer must have the same parameters in the same order."""
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in self.tensors.items():
            if name.startswith(f"{MOMENT}."):
                _, number, key = name.split(".")
                moments.setdefault(int(number), {})[key] = tensor
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})

    def restore_random(self) -> None:
        """Restore torch's random generators."""
        torch.set_rng_state(self.tensors[RANDOM])
        if torch.cuda.is_available() and CUDA_RANDOM in self.tensors:
            torch.cuda.set_rng_state(self.tensors[CUDA_RANDOM])


def save(
    directory: Path,
    trainer: Any,
    results: Results,
    schedule: Schedule,
    cutters: Sequence[Cutter],
) -> None:
    """Write the state of a `transformers.Trainer` at the end of a step into an empty directory."""
    save_adapter(trainer.model, directory)
    tensors = {
        f"{MOMENT}.{number}.{key}": value.detach().cpu().contiguous()
        for number, moments in trainer.optimizer.state_dict()["state"].items()
        for key, value in moments.items()
    }
    tensors[RANDOM] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors[CUDA_RANDOM] = torch.cuda.get_rng_state()
    for number, cutter in enumerate(cutters):
        if cutter.references is not None:
            tensors[f"{REFERENCES}.{number}"] = cutter.references
    save_file(tensors, directory / TENSORS)
    trainer.state.save_to_json(str(directory / TRAINER_STATE))
    values = {"run": _identity(schedule, cutters), "results": results.dump()}
    (directory / RUN).write_text(json.dumps(values), "utf-8")


def load(directory: Path, schedule: Schedule, cutters: Sequence[Cutter]) -> Saved:
    """Load a state, and set the examples' references. Raises Failure if it belongs to another run."""
    try:
        values = json.loads((directory / RUN).read_text("utf-8"))
        # Cloned: the file's memory is unaligned, and products of unaligned tensors may differ in a bit.
        tensors = {name: tensor.clone() for name, tensor in load_file(directory / TENSORS).items()}
        saved = Saved(loaded(values["results"]), tensors)
        is_ours = values["run"] == _identity(schedule, cutters) and RANDOM in tensors
        if is_ours and schedule.beta is not None:
            for number, cutter in enumerate(cutters):
                cutter.references = tensors[f"{REFERENCES}.{number}"]
    except (OSError, SafetensorError, ValueError, LookupError, TypeError) as error:
        raise _unfit() from error
    if not is_ours:
        raise _unfit()
    return saved


def _identity(schedule: Schedule, cutters: Sequence[Cutter]) -> dict[str, Any]:
    """Return the properties that a state and its run must share."""
    return {"schedule": asdict(schedule), "examples": [len(one.examples) for one in cutters]}


def _unfit() -> Failure:
    message = "The saved state does not match this job any more. Create a new job."
    return Failure("invalid_resume_state", message)
