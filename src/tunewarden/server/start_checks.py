"""Checks of the machine by `serve` and `doctor`: file modes, swap, and plaintext HTTP."""

import ipaddress
import logging
import stat
from collections.abc import Iterator
from pathlib import Path

from tunewarden.app import App
from tunewarden.artifacts.plain_memory import REMEDY
from tunewarden.config import SETTINGS_FILE, Config
from tunewarden.console.oidc import setup
from tunewarden.embedded_engine import installed
from tunewarden.errors import Error, Kind
from tunewarden.gateway import tracing
from tunewarden.registry import artifacts
from tunewarden.settings import host_and_port

OTHERS = 0o077

logger = logging.getLogger(__name__)


def too_open(settings: Config) -> Iterator[tuple[Path, int]]:
    """Yield paths that other users can access, with their modes: the data directory, or files in it.

    If only its owner can enter the directory, only secrets count, because a copy would keep
    their modes. The settings file may be readable: it holds no secrets.
    """
    if not settings.data.is_dir():
        return
    secrets = (
        settings.owner_key,
        settings.admin_key,
        settings.signing_key,
        settings.keyring,
        settings.engine_keys,
        settings.certificates,
    )
    everything = (path for path in settings.data.iterdir() if path.name != SETTINGS_FILE)
    is_closed = not _open_bits(settings.data)
    for path in (settings.data, *sorted(secrets if is_closed else everything)):
        if path.exists() and _open_bits(path):
            yield path, stat.S_IMODE(path.stat().st_mode)


def _open_bits(path: Path) -> int:
    return path.stat().st_mode & OTHERS


def close_to_others(settings: Config) -> None:
    """Remove access for other users. Raises Error(MISCONFIGURED) if this user cannot."""
    for path, mode in list(too_open(settings)):
        try:
            path.chmod(mode & ~OTHERS)
        except PermissionError as error:
            raise Error(
                Kind.MISCONFIGURED,
                f"{path} has mode {mode:04o}: other users can read it, and this user cannot change that."
                f" Run `chmod go= {path}` as its owner, then start again.",
            ) from error
        logger.warning("%s had mode %04o; access for other users was removed", path, mode)


def require_engine() -> None:
    """Refuse the demo if the local engine is not installed. Raises Error(UNAVAILABLE)."""
    missing = installed.missing()
    if missing:
        raise Error(
            Kind.UNAVAILABLE,
            f"The demo needs the local engine: {installed.demo_remedy()} (missing: {', '.join(missing)}).",
        )


def check_swap(app: App) -> None:
    """Warn if memory may be swapped to a disk; refuse to start with private data then (I16)."""
    where = app.memory.places()
    if not where:
        return
    names = ", ".join(where)
    if app.memory.swap_is_accepted:
        logger.warning(
            "memory may be swapped to %s: plain weights may reach it, as accepted", names
        )
    elif artifacts.has_private(app.database):
        raise Error(
            Kind.MISCONFIGURED,
            f"Memory may be swapped to {names}, so plain weights and training data would reach a disk, and"
            f" deleting would not erase them there. To start, {REMEDY}.",
        )
    else:
        logger.warning(
            "memory may be swapped to %s: imports, files and fine-tuning jobs are refused; to accept"
            " them, %s",
            names,
            REMEDY,
        )


def warn_of_plain_http(settings: Config) -> None:
    """Warn if keys and responses can be read on the network."""
    if not _is_loopback(settings.host):
        logger.warning(
            "%s can be reached from the network and speaks plain HTTP: API keys and responses can be read on"
            " the network. Put a TLS proxy in front and listen on 127.0.0.1 (docs/reference/configuration.md)",
            settings.host,
        )
    metrics = host_and_port(settings.metrics_address)
    if metrics is not None and not _is_loopback(metrics[0]):
        logger.warning(
            "metrics at %s can be read on the network without a key; they name no model or organization, but show"
            " how much each base is used and when things are deleted",
            settings.metrics_address,
        )


def warn_of_tracing(settings: Config) -> None:
    """Warn if spans are wanted and cannot be made."""
    if settings.otel_endpoint != "none" and not tracing.is_installed():
        logger.warning("otel_endpoint is set, but no spans are made: %s", tracing.REMEDY)


def warn_of_single_sign_on(settings: Config) -> None:
    """Warn if people are to sign in at an identity provider and cannot."""
    lacking = setup.missing(settings) if setup.is_wanted(settings) else None
    if lacking is not None:
        logger.warning("sso_issuer is set, but nobody can sign in there: %s", lacking)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
