"""The background runner with the trainer's stand-in; a careless one on purpose (a control)."""

import os

from tunewarden.finetuning import trainer_process, training
from tunewarden.registry import models
from tunewarden.server import runner


def main(*arguments: str) -> None:
    """Be the runner."""
    trainer_process.TRAINER = "tests.fakes.fake_trainer"
    training.RETRY_SECONDS = 0.1
    if os.environ.get("TEST_CARELESS"):
        # It does not look whether a step has its model already.
        models.made_by = lambda tx, job_n, step: None
    runner.main(*arguments)
