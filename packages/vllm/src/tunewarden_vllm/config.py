"""The plugin's settings, from the environment: vLLM has no flags for them. Names and meaning are the server's."""

import os
from dataclasses import dataclass
from pathlib import Path

SCRATCH = "TUNEWARDEN_SCRATCH"
SWAP_MAY = "TUNEWARDEN_SWAP_MAY_HOLD_PLAIN_WEIGHTS"


@dataclass(frozen=True)
class Settings:
    """`scratch` is a directory in memory, for files on their way into vLLM."""

    scratch: Path = Path("/dev/shm")  # noqa: S108  tmpfs on every Linux; checked at start
    swap_may_hold_plain_weights: bool = False

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read the settings."""
        accepted = os.environ.get(SWAP_MAY, "").strip().lower() in {"1", "true", "yes", "on"}
        return cls(Path(os.environ.get(SCRATCH) or cls.scratch), accepted)
