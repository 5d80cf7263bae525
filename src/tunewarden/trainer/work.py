"""Runs one job from its task to its end."""

import math
import os
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from tunewarden.clock import Clock
from tunewarden.trainer import adapters, base, states
from tunewarden.trainer.batches import Cutter
from tunewarden.trainer.chats import BadTemplate, Chats
from tunewarden.trainer.control import Control, Reporter
from tunewarden.trainer.examples import Example, read
from tunewarden.trainer.failures import Failure
from tunewarden.trainer.losses import Objective, Preference, Reader, Supervised, ask_reference
from tunewarden.trainer.messages import File, Paused, Plan, Task
from tunewarden.trainer.results import Results
from tunewarden.trainer.schedule import Schedule, schedule
from tunewarden.trainer.steps import Steps
from tunewarden.trainer.training import Training


def run(task: Task, control: Control, clock: Clock) -> None:
    """Run a task to its end or to a pause. Raises Failure, and any other exception."""
    transformers_logging.disable_progress_bar()
    # Leave one core to the server: torch's threads slow down when a core is taken.
    torch.set_num_threads(task.threads or max(1, len(os.sched_getaffinity(0)) - 1))
    path = Path(task.base)
    config = base.load_config(path)
    files = _read(task, control, path, base.context(config))
    model, machine = base.load_model(path, config, base.machine_for(path))
    parameters = int(model.num_parameters())
    plan = _plan(task, control, len(files[0]), parameters)
    reader = Reader(picks=base.can_pick(model), autocast=machine.autocast)
    tokens_max = base.tokens_at_once(parameters)
    cutters = [Cutter(file, tokens_max=tokens_max, is_packed=machine.is_packed) for file in files]
    saved = None if task.resume is None else states.load(Path(task.resume), plan, cutters)
    model = _with_adapter(model, task)
    if parameters > base.CHECKPOINTED_PARAMETERS:
        base.save_memory(model.get_base_model())
    objective: Objective = Supervised(reader)
    if plan.beta is not None:
        objective = Preference(reader, plan.beta)
        for cutter in cutters if saved is None else ():
            ask_reference(reader, model, cutter, machine.device)
    with Reporter(control, clock) as reporter:
        steps = Steps(
            control,
            reporter,
            clock,
            scratch=Path(task.scratch),
            state_seconds=task.state_seconds,
            schedule=plan,
            cutters=cutters,
            results=Results() if saved is None else saved.results,
            guess_loss=math.inf if plan.beta else math.log(base.vocabulary(config)),
        )
        training = Training(
            model,
            cutters[0],
            objective,
            plan,
            scratch=Path(task.scratch),
            seed=task.seed,
            device=machine.device,
            after_step=steps.ended,
            saved=saved,
        )
        steps.begin()
        training.train(resume_from_checkpoint=task.resume)
    if steps.is_paused:
        control.end_with(Paused(training.step))
    else:
        steps.finish(training)


def _read(task: Task, control: Control, path: Path, context: int) -> list[list[Example]]:
    """Return the examples of the training file, and of the validation file if there is one."""
    try:
        chats = Chats(base.load_tokenizer(path))
    except BadTemplate as problem:
        raise Failure("unsupported_chat_template", str(problem)) from None
    given: list[tuple[int | None, File]] = [
        (task.training, "training"),
        (task.validation, "validation"),
    ]
    files = []
    for descriptor, name in given:
        if descriptor is not None:
            dataset = read(descriptor, name, task.method, chats, context)
            control.send(dataset.tokens())
            files.append(dataset.examples)
    return files


def _plan(task: Task, control: Control, examples: int, parameters: int) -> Schedule:
    plan = schedule(task.hyperparameters, task.method, examples=examples, parameters=parameters)
    control.send(
        Plan(plan.n_epochs, plan.batch_size, plan.learning_rate_multiplier, plan.beta, plan.steps)
    )
    return plan


def _with_adapter(model: Any, task: Task) -> Any:
    """Return the model with the adapter to train: new, loaded, or resumed."""
    directory = task.resume or task.start
    if directory is None:
        return adapters.new_adapter(model, rank=task.rank, seed=task.seed)
    return adapters.load_adapter(model, Path(directory))
