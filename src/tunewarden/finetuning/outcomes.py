"""How a trainer's run may come out, and what a client is told when that is an end."""

import signal

from tunewarden.errors import Error, Kind


class Cancelled(Exception):
    """Somebody does not want the job any more."""


class Stopped(Exception):
    """The server stops; the job goes on when it starts again."""


class PausedNow(Exception):
    """The trainer is gone, or going, and the job shall wait to be resumed."""


class Died(Exception):
    """The trainer ended without saying why. `status` is its exit status, or minus a signal."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the trainer ended with status {status}")
        self.status = status


class Hopeless(Exception):
    """The job cannot be done, and trying again would not help."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


def given_up(failure: Died | Error, times: int) -> Hopeless:
    """Return why a job is given up after `times` failures without anything new saved between."""
    if isinstance(failure, Error):
        return Hopeless(failure.code or "storage_failed", failure.message)
    killed = failure.status in {-signal.SIGKILL, 128 + signal.SIGKILL}
    if killed:
        return Hopeless(
            "trainer_died",
            f"The trainer was killed {times} times without getting further, most likely because the"
            " machine ran out of memory. Choose a smaller batch_size, shorten the examples, or run"
            " the job where there is more memory.",
        )
    how = f"ended with status {failure.status}"
    if failure.status < 0:
        how = f"was ended by signal {-failure.status}"
    return Hopeless(
        "trainer_died",
        f"The trainer {how}, {times} times without getting further. The server's log has its last"
        " words; tell the operator.",
    )


def file_gone(param: str) -> Hopeless:
    """Return why a job ends whose file is not there any more."""
    return Hopeless(
        "file_not_found",
        f"The {param.replace('_', ' ')} of this job was deleted. Upload it again and create a new job.",
        param,
    )


def model_gone(model_id: str) -> Hopeless:
    """Return why a job ends that starts from a model which is not there any more."""
    return Hopeless(
        "model_not_found",
        f"The model {model_id} that this job starts from cannot be used any more. Create a job that"
        " starts from another one.",
        "model",
    )


def base_gone(name: str) -> Hopeless:
    """Return why a job ends whose base is not where it was."""
    return Hopeless(
        "base_not_found",
        f"The base '{name}' is not where it was added. Put its directory back, then create the job"
        " again.",
        "model",
    )


def no_room() -> Error:
    """Return the failure of the scratch directory, which is memory."""
    return Error(
        Kind.UNAVAILABLE,
        "The server's scratch directory has no room, or cannot be used. It is memory: free some, or"
        " set TUNEWARDEN_SCRATCH to a larger tmpfs.",
        code="scratch_failed",
    )
