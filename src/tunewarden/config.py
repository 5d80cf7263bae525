"""Every setting, read once. A flag beats `TUNEWARDEN_*`, which beats `DIR/tunewarden.toml`.

An unknown name in the file or the environment is an error: a typing mistake must not become a
default. This is the only module that reads the environment (ruff TID251).
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tunewarden.errors import Error, Kind

ENVIRONMENT_PREFIX = "TUNEWARDEN_"
DEFAULT_DATA = Path("tunewarden-data")
# Setting -> the least and the most that it may be.
LIMITS = {
    "port": (0, 65_535),
    "workers": (1, 256),
    "fence_seconds": (0.01, 60),
    "deletion_seconds": (0.1, 600),
    "body_bytes_max": (1024, 2**31),
    "connections_max": (1, 2**20),
    "client_seconds": (1, 3600),
    "engine_seconds": (1, 86_400),
    "requests_per_engine_max": (1, 2**20),
    "requests_per_model_max": (1, 2**20),
    "adapter_bytes_max": (1024, 2**40),
    "file_bytes_max": (1024, 2**40),
    "upload_bytes_max": (1024, 2**43),
    "rank_max": (1, 1024),
    "engine_threads": (0, 1024),
    "training_jobs_max": (0, 64),
    "training_threads": (0, 1024),
    "training_rank": (1, 1024),
    "trainer_state_seconds": (1, 86_400),
}
CHOICES = {"engine_dtype": ("float32", "bfloat16", "auto")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of one server. Times are seconds, sizes bytes."""

    data: Path = DEFAULT_DATA
    host: str = "127.0.0.1"
    port: int = 8800
    workers: int = 1
    # Plain weights pass through here on their way to an engine; it must be memory, never a disk (I16).
    scratch: Path = Path("/dev/shm")  # noqa: S108  tmpfs on every Linux; checked at start
    # Only where no tmpfs exists, and only if its disk may hold plain weights for a moment.
    scratch_may_be_a_disk: bool = False
    # How long a worker may take to let go of a deleted model before it is killed (D4).
    fence_seconds: float = 1.0
    # How long a DELETE may take before it is answered 503 and goes on in the background (I13).
    deletion_seconds: float = 10.0
    # A body, or an adapter's weights, beyond these is refused unread.
    body_bytes_max: int = 32 * 1024 * 1024
    adapter_bytes_max: int = 2 * 1024 * 1024 * 1024
    # A file sent in one request, and one that is sent in parts; neither is ever held in memory.
    file_bytes_max: int = 1024 * 1024 * 1024
    upload_bytes_max: int = 8 * 1024 * 1024 * 1024
    # Of each worker: connections of clients, and requests under way to one engine and on one model.
    connections_max: int = 16_384
    requests_per_engine_max: int = 1024
    requests_per_model_max: int = 512
    # How long a client may take to send a request's head, and between two pieces of its body.
    client_seconds: float = 30.0
    # How long an engine may be silent before its answer is given up; the SDK waits as long.
    engine_seconds: float = 600.0
    rank_max: int = 64
    # 0 leaves the choice to the engine: every core but one.
    engine_threads: int = 0
    # float32: an answer is the same in any company. bfloat16, auto: docs/decisions/0010.
    engine_dtype: str = "float32"
    # How many fine-tuning jobs run at once; with 0 they all wait.
    training_jobs_max: int = 1
    # 0: the processors, shared evenly between the jobs that may run.
    training_threads: int = 0
    # Of a new LoRA; one that continues from a model has that model's.
    training_rank: int = 16
    # How much of a job may be lost, at most, when its trainer is killed.
    trainer_state_seconds: float = 300.0

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.data / "tunewarden.sqlite"

    @property
    def run(self) -> Path:
        """Lock files and sockets; nothing in it outlives the server."""
        return self.data / "run"

    @property
    def blobs(self) -> Path:
        """Sealed files."""
        return self.data / "blobs"

    @property
    def keyring(self) -> Path:
        """The models' keys. Mirror its current state; never keep old copies (section 7)."""
        return self.data / "keyring"

    @property
    def signing_key(self) -> Path:
        """The seed of the log's signing key, mode 0600."""
        return self.data / "log.key"

    @property
    def log(self) -> Path:
        """The deletion log's tiles and checkpoint."""
        return self.data / "log"

    @property
    def owner_key(self) -> Path:
        """Where the first Owner key is written, mode 0600."""
        return self.data / "owner.key"

    @property
    def engine_keys(self) -> Path:
        """The API keys of remote bases' engines, mode 0600 each."""
        return self.data / "engine_keys"

    @property
    def engine_socket(self) -> Path:
        """Where the embedded engine listens."""
        return self.run / "engine.sock"


def load(**flags: Any) -> Config:
    """Return the configuration. `flags` left out or None do not count. Raises Error(INVALID)."""
    given = {name: value for name, value in flags.items() if value is not None}
    environment = _from_environment(os.environ)
    data = Path(given.get("data") or environment.get("data") or DEFAULT_DATA)
    merged = {**_from_file(data / "tunewarden.toml"), **environment, **given, "data": data}
    return Config(**{name: _convert(name, value) for name, value in merged.items()})


def client_settings() -> tuple[str | None, str | None]:
    """Return (`OPENAI_BASE_URL`, `OPENAI_API_KEY`) for commands that talk to a server."""
    return os.environ.get("OPENAI_BASE_URL"), os.environ.get("OPENAI_API_KEY")


def child_environment() -> dict[str, str]:
    """Return the environment for processes of ours: hubs offline, no telemetry."""
    offline = {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return {**os.environ, **offline}


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    named = {
        name.removeprefix(ENVIRONMENT_PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(ENVIRONMENT_PREFIX)
    }
    _refuse_unknown(named, "the environment")
    return named


def _from_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            settings = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Error(Kind.INVALID, f"{path.name} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Error(Kind.INVALID, f"{path.name} is not valid TOML: {error}") from error
    _refuse_unknown(settings, path.name)
    return settings


def _refuse_unknown(settings: Mapping[str, Any], where: str) -> None:
    known = {field.name for field in fields(Config)}
    for name in settings:
        if name not in known:
            raise Error(
                Kind.INVALID,
                f"Unknown setting '{name}' in {where}. Known: {', '.join(sorted(known))}.",
            )


def _convert(name: str, value: Any) -> Any:
    """Return a setting in its own type: text is parsed, anything else must have the type already."""
    kind = type(getattr(Config(), name))
    if kind is bool:
        if str(value).lower() not in {"true", "false"}:
            raise Error(Kind.INVALID, f"Setting '{name}' must be true or false.")
        return str(value).lower() == "true"
    if kind in {int, float}:
        return _number(name, value, kind)
    if not isinstance(value, (str, Path)) or not str(value):
        raise Error(Kind.INVALID, f"Setting '{name}' must be text.")
    if name in CHOICES and value not in CHOICES[name]:
        raise Error(Kind.INVALID, f"Setting '{name}' must be one of {', '.join(CHOICES[name])}.")
    return str(value) if kind is str else Path(value)


def _number(name: str, value: Any, kind: type[int] | type[float]) -> int | float:
    least, most = LIMITS[name]
    try:
        number = kind(value) if isinstance(value, (str, kind)) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    is_of_kind = isinstance(value, (str, int, kind)) and not isinstance(value, bool)
    if not (is_of_kind and least <= number <= most):  # false for what is no number, too
        what = "a whole number" if kind is int else "a number"
        raise Error(Kind.INVALID, f"Setting '{name}' must be {what} from {least} to {most}.")
    return kind(number)
