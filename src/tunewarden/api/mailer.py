"""Mails, if a mail server is set up. What is mailed does not depend on it: a failure is only said."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import anyio
import anyio.to_thread
from anyio import CapacityLimiter

from tunewarden import config, mail
from tunewarden.config import Config
from tunewarden.errors import Error, Kind
from tunewarden.mail import MailServer, Security

# How long an answer waits for the mail server, whatever that does.
SECONDS = 10.0
AT_ONCE_MAX = 4  # per worker
NONE = "none"


@dataclass(frozen=True, slots=True)
class Mailed:
    """What became of a message; `reason` is why it was not sent."""

    status: Literal["sent", "failed", "not_configured"]
    reason: str | None = None


class Mailer:
    """Sends mail of one worker, a few messages at once."""

    def __init__(self) -> None:
        self._limiter: CapacityLimiter | None = None

    async def send(self, settings: Config, *, to: str, subject: str, text: str) -> Mailed:
        """Send a message with a link of this server; return what became of it. Never raises Error."""
        if settings.smtp_host == NONE:
            return Mailed("not_configured")
        # Made here: it belongs to the event loop.
        self._limiter = self._limiter or CapacityLimiter(AT_ONCE_MAX)
        try:
            server = _server(settings)
            with anyio.fail_after(SECONDS):
                await anyio.to_thread.run_sync(
                    lambda: mail.send(server, to=to, subject=subject, text=text),
                    limiter=self._limiter,
                    abandon_on_cancel=True,
                )
        except Error as error:
            return Mailed("failed", error.message)
        except TimeoutError:
            said = "The message was not sent: the mail server did not answer in time."
            return Mailed("failed", said)
        return Mailed("sent")


def _server(settings: Config) -> MailServer:
    if settings.public_url == NONE:
        said = "The message was not sent: set 'public_url', the address that its link begins with."
        raise Error(Kind.MISCONFIGURED, said)
    if settings.smtp_sender == NONE:
        said = "The message was not sent: set 'smtp_sender', the address that it comes from."
        raise Error(Kind.MISCONFIGURED, said)
    has_user = settings.smtp_user != NONE
    return MailServer(
        host=settings.smtp_host,
        port=settings.smtp_port,
        security=Security(settings.smtp_security),
        user=settings.smtp_user if has_user else None,
        password=password(settings) if has_user else None,
        sender=settings.smtp_sender,
    )


def password(settings: Config) -> str | None:
    """Return the mail server's password, or None. Raises Error(MISCONFIGURED) if its file cannot be read."""
    if settings.smtp_password_file == NONE:
        return config.smtp_password()
    try:
        lines = Path(settings.smtp_password_file).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        said = "The message was not sent: the file that 'smtp_password_file' names cannot be read."
        raise Error(Kind.MISCONFIGURED, said) from error
    return lines[0] if lines else ""
