"""TLS to engines: with the installation's own certificates (`certificates.py`) where it has them.

Kept apart, because a worker needs no OpenSSL of `cryptography` for it.
"""

import ssl
from pathlib import Path

AUTHORITY, GATEWAY = "ca", "gateway"


class ClientTls:
    """TLS contexts for connections to engines; changed files are read again."""

    def __init__(self, directory: Path | None) -> None:
        """`directory`: the installation's certificates; None for a server that has no certificate of ours."""
        self._directory = directory
        self._context: ssl.SSLContext | None = None
        self._read: tuple[int, int] | None = None

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection: mutual TLS with our authority's certificates, if there is one."""
        found = self._found()
        if self._context is None or found != self._read:
            self._read, self._context = found, self._new(has_ours=found is not None)
        return self._context

    def lookup(self) -> ssl.SSLContext:
        """Return a context for a server that may have a certificate of ours, or a public one."""
        context = ssl.create_default_context()
        if self._found() is not None and self._directory is not None:
            _add(context, self._directory)
        return context

    def _found(self) -> tuple[int, int] | None:
        if self._directory is None:
            return None
        try:
            return tuple(  # type: ignore[return-value]  # two
                (self._directory / f"{name}.crt").stat().st_mtime_ns
                for name in (AUTHORITY, GATEWAY)
            )
        except FileNotFoundError:
            return None

    def _new(self, *, has_ours: bool) -> ssl.SSLContext:
        if not has_ours or self._directory is None:
            return ssl.create_default_context()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _add(context, self._directory)
        return context


def _add(context: ssl.SSLContext, directory: Path) -> None:
    context.load_verify_locations(directory / f"{AUTHORITY}.crt")
    context.load_cert_chain(directory / f"{GATEWAY}.crt")
