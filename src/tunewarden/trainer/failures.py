"""What may go wrong with a job, in words for its owner: what to do, and nothing of the data."""

from pathlib import Path
from types import TracebackType

import msgspec

from tunewarden.trainer.messages import Failed

# torch has no type of its own for these: parts of the text of a RuntimeError.
OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory", "not enough memory")


class Failure(Exception):
    """This job cannot be done. `param` is OpenAI's name of what is at fault, if something is."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
        self.param = param


def told(error: BaseException) -> Failed:
    """Return what to tell the runner of any exception."""
    if isinstance(error, Failure):
        return Failed(error.code, error.message, error.param)
    if _is_out_of_memory(error):
        message = (
            "The machine has not enough memory for this job. Make the longest examples shorter, give a"
            " smaller batch_size, or train a smaller base model."
        )
        return Failed("out_of_memory", message)
    if isinstance(error, msgspec.DecodeError):
        return Failed("internal_error", "The trainer was given a task that it does not understand.")
    message = (
        "The training stopped because of an unexpected error. Start the job again; if it fails again,"
        " the server's log says more."
    )
    return Failed("internal_error", message)


def trace(error: BaseException, traceback: TracebackType | None) -> str:
    """Return where an error came from, without its text: that may hold a part of the data."""
    lines = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        lines.append(f"  {Path(code.co_filename).name}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    cause = error.__cause__ or error.__context__
    kind = type(error)
    head = f"{kind.__module__}.{kind.__qualname__}" + (
        f" [{error.code}]" if isinstance(error, Failure) else ""
    )
    before = f"{trace(cause, cause.__traceback__)}, and then\n" if cause is not None else ""
    return before + "\n".join([head, *lines])


def _is_out_of_memory(error: BaseException) -> bool:
    # torch.OutOfMemoryError is a RuntimeError, and this module does without torch.
    if isinstance(error, MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(mark in text for mark in OUT_OF_MEMORY)
