"""The type of a setting, and parsing from text or TOML. The settings themselves: config.py."""

import re
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import Field, dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final, TypeVar

from tunewarden.errors import Error, Kind

Network = IPv4Network | IPv6Network
T = TypeVar("T", bool, int, float, str, Path)
ENVIRONMENT_PREFIX = "TUNEWARDEN_"
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s,A-Z]+")
WEB_ADDRESS = re.compile(
    r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-fA-F:.]+\](:[0-9]{1,5})?"
)
HOST = re.compile(r"[a-z0-9.-]+(:[0-9]{1,5})?|\[[0-9a-f:.]+\](:[0-9]{1,5})?")
SECONDS: Final = "seconds"
BYTES: Final = "bytes"


class Source(StrEnum):
    """The source of a setting's value; later ones take precedence."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    FLAG = "flag"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting. Its type is the type of `default`.

    `limits` are the minimum and maximum of a number, in `unit`; `check` raises Error(INVALID) for an
    invalid text.
    """

    name: str
    default: Any
    meaning: str
    unit: str
    limits: tuple[float, float] | None
    choices: tuple[str, ...]
    check: Callable[[str], object]
    has_flag: bool

    @classmethod
    def of(cls, declared: "Field[Any]") -> "Setting":
        """Return the setting that a field declares."""
        return cls(name=declared.name, default=declared.default, **declared.metadata)

    @property
    def flag(self) -> str:
        """The flag of `tunewarden serve`, if there is one."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """The name of its environment variable."""
        return f"{ENVIRONMENT_PREFIX}{self.name.upper()}"

    def shown(self, value: object) -> str:
        """Return a value as written in TOML and the environment, without quotation marks."""
        return str(value).lower() if isinstance(value, bool) else str(value)

    def read(self, value: object) -> Any:
        """Return a value in the setting's own type: text is parsed. Raises Error(INVALID)."""
        if isinstance(self.default, bool):
            return self._truth(value)
        if isinstance(self.default, (int, float)):
            return self._number(value)
        if not isinstance(value, (str, Path)) or not str(value):
            raise self._invalid("text")
        self.check(str(value))
        if self.choices and value not in self.choices:
            raise self._invalid(f"one of {', '.join(self.choices)}")
        return Path(value) if isinstance(self.default, Path) else str(value)

    def _truth(self, value: object) -> bool:
        text = str(value).lower()
        if text not in {"true", "false"}:
            raise self._invalid("true or false")
        return text == "true"

    def _number(self, value: object) -> int | float:
        assert self.limits is not None, "every number has limits"
        kind = type(self.default)
        least, most = self.limits
        number = float("nan")
        if isinstance(value, (str, int, kind)) and not isinstance(value, bool):
            with suppress(ValueError, OverflowError):  # not a number: invalid
                number = kind(value)
        if not least <= number <= most:
            what = "a whole number" if kind is int else "a number"
            raise self._invalid(f"{what} from {least} to {most}")
        return number

    def _invalid(self, what: str) -> Error:
        return Error(Kind.INVALID, f"Setting '{self.name}' must be {what}.")


def setting(
    meaning: str,
    *,
    default: T,
    unit: str = "",
    limits: tuple[float, float] | None = None,
    choices: tuple[str, ...] = (),
    check: Callable[[str], object] = str,
    has_flag: bool = False,
) -> T:
    """Declare a setting as a dataclass field. `meaning` is Markdown for the reference."""
    declared = {
        "meaning": meaning,
        "unit": unit,
        "limits": limits,
        "choices": choices,
        "check": check,
        "has_flag": has_flag,
    }
    return field(default=default, metadata=declared)


def networks(text: str, setting: str = "trusted_proxies") -> list[Network]:
    """Parse comma-separated networks; "none" is the empty list. Raises Error(INVALID), which names the setting."""
    named = [] if text == "none" else text.split(",")
    try:
        return [ip_network(one.strip()) for one in named]
    except ValueError as error:
        said = f"Setting '{setting}' must be addresses or networks, or none: {error}."
        raise Error(Kind.INVALID, said) from error


def host_and_port(text: str) -> tuple[str, int] | None:
    """Parse `HOST:PORT` or `[IPv6]:PORT`; "none" is None. Raises Error(INVALID)."""
    if text == "none":
        return None
    host, _, port = text.rpartition(":")
    host = host[1:-1] if host[:1] + host[-1:] == "[]" else host
    if not host or ("[" in host) or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65_535:
        said = f"Setting 'metrics_address' must be HOST:PORT, or none: '{text}'."
        raise Error(Kind.INVALID, said)
    return host, int(port)


def origins(text: str) -> frozenset[str]:
    """Parse comma-separated origins of pages; "none" is the empty set. Raises Error(INVALID)."""
    named = [] if text == "none" else [one.strip() for one in text.split(",")]
    for origin in named:
        if origin != "*" and not ORIGIN.fullmatch(origin):
            said = (
                "Setting 'cors_origins' must be origins such as https://chat.example:8443, in lower case and"
                f" without a path, or *, or none: '{origin}'."
            )
            raise Error(Kind.INVALID, said)
    return frozenset(named)


def hosts(text: str) -> frozenset[str]:
    """Parse comma-separated names of hosts, each with its port or without; "none" is the empty set. Raises Error(INVALID)."""
    named = [] if text == "none" else [one.strip().lower() for one in text.split(",")]
    for name in named:
        if not HOST.fullmatch(name):
            said = (
                f"Setting 'console_hosts' must be names such as models.example, or none: '{name}'."
            )
            raise Error(Kind.INVALID, said)
    return frozenset(named)


def web_address(text: str) -> str | None:
    """Parse an address such as `https://models.example`, without a path; "none" is None. Raises Error(INVALID)."""
    if text == "none":
        return None
    if not WEB_ADDRESS.fullmatch(text):
        said = f"Setting 'public_url' must be an address such as https://models.example, or none: '{text}'."
        raise Error(Kind.INVALID, said)
    return text


def one_line(text: str) -> str:
    """Check that a text has no line break or other control character. Raises Error(INVALID)."""
    if not text.isprintable():
        raise Error(Kind.INVALID, "A setting of mail must be one line of printable characters.")
    return text


def from_environment(
    environment: Mapping[str, str], known: Mapping[str, Setting]
) -> dict[str, Any]:
    """Return the settings in an environment. Raises Error(INVALID) for an unknown name."""
    named = {
        name.removeprefix(ENVIRONMENT_PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(ENVIRONMENT_PREFIX)
    }
    _refuse_unknown(named, "the environment", known)
    return named


def from_file(path: Path, known: Mapping[str, Setting]) -> dict[str, Any]:
    """Return the settings in a TOML file, none if there is no file. Raises Error(INVALID)."""
    try:
        with path.open("rb") as file:
            named = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Error(Kind.INVALID, f"{path.name} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Error(Kind.INVALID, f"{path.name} is not valid TOML: {error}") from error
    _refuse_unknown(named, path.name, known)
    return named


def _refuse_unknown(named: Mapping[str, Any], where: str, known: Mapping[str, Setting]) -> None:
    for name in named:
        if name not in known:
            raise Error(
                Kind.INVALID,
                f"Unknown setting '{name}' in {where}. Known: {', '.join(sorted(known))}.",
            )
