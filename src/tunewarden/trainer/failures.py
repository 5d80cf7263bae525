"""Failures of a job, with messages for its owner that quote no data."""

import msgspec

from tunewarden.trainer.messages import Failed

# torch raises a plain RuntimeError for these: parts of its text.
OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory", "not enough memory")


class Failure(Exception):
    """The job failed. `param` is OpenAI's name of the offending parameter, if any."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
        self.param = param


def failure_of(error: BaseException) -> Failed:
    """Convert any exception to a message for the runner."""
    if isinstance(error, Failure):
        return Failed(error.code, error.message, error.param)
    if _is_out_of_memory(error):
        message = (
            "Out of memory. Shorten the longest examples, use a"
            " smaller batch_size, or train a smaller base model."
        )
        return Failed("out_of_memory", message)
    if isinstance(error, msgspec.DecodeError):
        return Failed("internal_error", "The trainer received an invalid task.")
    message = (
        "The training failed with an unexpected error. Create the job again; if it fails again,"
        " see the server's log."
    )
    return Failed("internal_error", message)


def _is_out_of_memory(error: BaseException) -> bool:
    # torch.OutOfMemoryError is a RuntimeError, and this module does without torch.
    if isinstance(error, MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(mark in text for mark in OUT_OF_MEMORY)
