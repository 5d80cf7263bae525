"""Sends one plain-text message by SMTP. It blocks: call it in a thread."""

import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from enum import StrEnum

from tunewarden.errors import Error, Kind

# Of each step: connect, greeting, STARTTLS, login, and each part of the message.
STEP_SECONDS = 5.0


class Security(StrEnum):
    """How the connection is encrypted. The server's certificate is checked, against OpenSSL's authorities."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServer:
    """Where mail is handed in. Without `user` nobody logs in."""

    host: str
    port: int
    security: Security
    user: str | None
    password: str | None
    sender: str


def send(server: MailServer, *, to: str, subject: str, text: str) -> None:
    """Hand one message in. Raises Error(UNAVAILABLE), which says at which step it failed and nothing the server wrote."""
    message = EmailMessage()
    # The library refuses what would begin another header.
    message["From"], message["To"], message["Subject"] = server.sender, to, subject
    message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain="tunewarden.invalid")
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
    message.set_content(text)
    try:
        with _connected(server) as connection:
            connection.send_message(message)
    except smtplib.SMTPAuthenticationError as error:
        raise _failed(f"the mail server refused the login (code {error.smtp_code})") from error
    except smtplib.SMTPRecipientsRefused as error:
        codes = ", ".join(str(code) for code, _ in error.recipients.values())
        raise _failed(f"the mail server refused the address (code {codes})") from error
    except smtplib.SMTPResponseException as error:
        raise _failed(f"the mail server refused the message (code {error.smtp_code})") from error
    except ssl.SSLError as error:
        raise _failed("the connection to the mail server could not be encrypted") from error
    except (smtplib.SMTPException, OSError, UnicodeError, ValueError) as error:
        # smtplib makes an error of its own of a time-out while it reads an answer.
        if isinstance(error, TimeoutError) or isinstance(error.__context__, TimeoutError):
            raise _failed("the mail server did not answer in time") from error
        raise _failed("the mail server could not be reached, or does not speak SMTP") from error


def _connected(server: MailServer) -> smtplib.SMTP:
    """Return a connection that is encrypted and logged in as the settings say."""
    context = ssl.create_default_context()
    if server.security is Security.TLS:
        connection: smtplib.SMTP = smtplib.SMTP_SSL(
            server.host, server.port, timeout=STEP_SECONDS, context=context
        )
    else:
        connection = smtplib.SMTP(server.host, server.port, timeout=STEP_SECONDS)
    try:
        if server.security is Security.STARTTLS:
            connection.starttls(context=context)
        if server.user is not None:
            connection.login(server.user, server.password or "")
    except BaseException:
        connection.close()
        raise
    return connection


def _failed(why: str) -> Error:
    return Error(Kind.UNAVAILABLE, f"The message was not sent: {why}.", code="mail_failed")
