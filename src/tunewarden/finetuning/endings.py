"""How a trainer's run can end, and the errors of failed jobs."""

import signal

from tunewarden.errors import Error, Kind


class Cancelled(Exception):
    """The job was cancelled."""


class Stopped(Exception):
    """The server is shutting down; the job continues at the next start."""


class JobPaused(Exception):
    """The trainer has ended or is ending, and the job waits to be resumed."""


class TrainerDied(Exception):
    """The trainer ended without a message. `status` is its exit status, or minus a signal."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the trainer ended with status {status}")
        self.status = status


class JobFailed(Exception):
    """The job has failed, and a retry would not help."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


def given_up(failure: TrainerDied | Error, times: int) -> JobFailed:
    """Return the error for a job that is abandoned after `times` attempts without progress."""
    if isinstance(failure, Error):
        return JobFailed(failure.code or "storage_failed", failure.message)
    killed = failure.status in {-signal.SIGKILL, 128 + signal.SIGKILL}
    if killed:
        return JobFailed(
            "trainer_died",
            f"The trainer was killed {times} times without progress, most likely because the"
            " machine ran out of memory. Choose a smaller batch_size, shorten the examples, or run"
            " the job where there is more memory.",
        )
    how = f"ended with status {failure.status}"
    if failure.status < 0:
        how = f"was ended by signal {-failure.status}"
    return JobFailed(
        "trainer_died",
        f"The trainer {how}, {times} times without progress. The server's log has its last"
        " output; contact the operator.",
    )


def file_gone(param: str) -> JobFailed:
    """Return the failure of a job whose file was deleted."""
    return JobFailed(
        "file_not_found",
        f"The {param.replace('_', ' ')} of this job was deleted. Upload it again and create a new job.",
        param,
    )


def model_gone(model_id: str) -> JobFailed:
    """Return the failure of a job whose start model was deleted."""
    return JobFailed(
        "model_not_found",
        f"The model {model_id} that this job starts from cannot be used any more. Create a job that"
        " starts from another one.",
        "model",
    )


def base_gone(name: str) -> JobFailed:
    """Return the failure of a job whose base directory is missing."""
    return JobFailed(
        "base_not_found",
        f"The base '{name}' is missing from its directory. Restore the directory, then create the job"
        " again.",
        "model",
    )


def no_room() -> Error:
    """Return the error of a full scratch directory (tmpfs)."""
    return Error(
        Kind.UNAVAILABLE,
        "The server's scratch directory is full or unusable. It is a tmpfs: free some memory, or"
        " set TUNEWARDEN_SCRATCH to a larger tmpfs.",
        code="scratch_failed",
    )
