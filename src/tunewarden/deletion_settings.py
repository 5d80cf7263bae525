"""The settings of deletions: their bounds, and how often the server tries one itself."""

from dataclasses import dataclass

from tunewarden.page_settings import PageSettings
from tunewarden.settings import SECONDS, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionSettings(PageSettings):
    """A part of `config.Config`; parts are a chain, because a class with slots inherits from one such class only."""

    fence_seconds: float = setting(  # D4
        "how long a worker may keep a deleted model before it is killed",
        default=1.0,
        unit=SECONDS,
        limits=(0.01, 60),
    )
    fence_alive_seconds: float = setting(  # I14
        "the same for a worker or engine that answers pings or computes: it is busy and serves others "
        "too. At most `deletion_seconds` counts",
        default=8.0,
        unit=SECONDS,
        limits=(0, 600),
    )
    deletion_seconds: float = setting(  # I13
        "how long a DELETE may take before it is answered 503 and continues in the background; checked before each of its "
        "steps, and while it waits for another process that works on it",
        default=10.0,
        unit=SECONDS,
        limits=(0.1, 600),
    )
    canary_seconds: float = setting(
        "how often the server makes a tiny model on each base, in an organization of its own, deletes it while it "
        "answers, and looks for what is left; 3600 is hourly, 0 never ([monitor](../how-to/monitor.md))",
        default=0.0,
        unit=SECONDS,
        limits=(0, 86_400),
    )
