"""Exit statuses of all commands (docs/reference/commands.md)."""

from enum import IntEnum

from tunewarden.errors import Kind


class ExitCode(IntEnum):
    """Exit statuses. 2 is click's, for wrong usage."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    CONFLICT = 5
    UNAVAILABLE = 6
    # The shell's convention for a command ended by Ctrl-C.
    INTERRUPTED = 130


# Any other kind is FAILED.
_OF_KIND = {
    Kind.NOT_FOUND: ExitCode.NOT_FOUND,
    Kind.UNAUTHENTICATED: ExitCode.REFUSED,
    Kind.FORBIDDEN: ExitCode.REFUSED,
    Kind.QUOTA_EXCEEDED: ExitCode.REFUSED,
    Kind.CONFLICT: ExitCode.CONFLICT,
    Kind.PRECONDITION_FAILED: ExitCode.CONFLICT,
    Kind.TOO_SLOW: ExitCode.UNAVAILABLE,
    Kind.RATE_LIMITED: ExitCode.UNAVAILABLE,
    Kind.ENGINE_FAILED: ExitCode.UNAVAILABLE,
    Kind.UNAVAILABLE: ExitCode.UNAVAILABLE,
    Kind.MISCONFIGURED: ExitCode.UNAVAILABLE,
    Kind.STORAGE_FULL: ExitCode.UNAVAILABLE,
}


def of(kind: Kind) -> ExitCode:
    """Return the status of a command that ended with an error."""
    return _OF_KIND.get(kind, ExitCode.FAILED)
