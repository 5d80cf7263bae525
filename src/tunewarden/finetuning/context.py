"""Dependencies and settings of the jobs of one data directory."""

from dataclasses import dataclass
from pathlib import Path

from tunewarden.clock import Clock
from tunewarden.db.database import Database
from tunewarden.finetuning.saved_state import SavedStates
from tunewarden.registry.files import Files
from tunewarden.registry.imports import Imports


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingContext:
    """`jobs_max` trainers at once, with `threads` each (0: all processors but one, shared evenly)."""

    database: Database
    clock: Clock
    imports: Imports
    files: Files
    states: SavedStates
    scratch: Path
    lock_file: Path
    jobs_max: int
    threads: int
    rank: int
    state_seconds: float
