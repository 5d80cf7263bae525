"""TLS to engines: with the installation's own certificates (`certificates.py`) where it has them.

Kept apart, because a worker needs no OpenSSL of `cryptography` for it.
"""

import ssl
from pathlib import Path

AUTHORITY, GATEWAY = "ca", "gateway"


class ClientTls:
    """TLS contexts for connections to engines; changed files are read again."""

    def __init__(self, directory: Path | None, *, accepts_public: bool = False) -> None:
        """`directory`: the installation's certificates, if there are any.

        Where there are, no others are accepted, unless `accepts_public`: for servers that get no adapters.
        """
        self._directory = directory
        self._accepts_public = accepts_public
        self._context: ssl.SSLContext | None = None
        self._read: tuple[int, int] | None = None

    def context(self) -> ssl.SSLContext:
        """Return the context for a new connection."""
        found = self._found()
        if self._context is None or found != self._read:
            self._read, self._context = found, self._new(has_ours=found is not None)
        return self._context

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
        if self._directory is None or not has_ours:
            return ssl.create_default_context()
        if self._accepts_public:
            context = ssl.create_default_context()
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self._directory / f"{AUTHORITY}.crt")
        context.load_cert_chain(self._directory / f"{GATEWAY}.crt")
        return context
