"""Invites by mail: a real server of ours hands them to a real SMTP server; a failure is said, and the invite stays."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from tests.support import administration, mail_server, servers
from tests.support.mail_server import HOST, PASSWORD, REFUSED, USER, Mails
from tests.support.servers import Server, WithoutTorch

from tunewarden import mail
from tunewarden.api import mailer
from tunewarden.api.mailer import Mailer
from tunewarden.config import Config
from tunewarden.errors import Error
from tunewarden.mail import MailServer, Security

ADDRESS = "https://models.example"
SENDER = "invites@models.example"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mail")


@pytest.fixture(scope="module")
def mails(directory: Path) -> Iterator[Mails]:
    with mail_server.receiving(directory) as running:
        yield running


@pytest.fixture(scope="module")
def mailing(directory: Path, mails: Mails) -> Iterator[Server]:
    settings = {
        "public_url": ADDRESS,
        "smtp_host": HOST,
        "smtp_port": mails.port,
        "smtp_user": USER,
        "smtp_password": PASSWORD,  # no setting, but beside them in the environment
        "smtp_sender": SENDER,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(directory / "ca.pem"))
        with servers.serving(directory / "data", settings=settings, kind=WithoutTorch) as running:
            yield running


@pytest.fixture
def admin(mailing: Server) -> Iterator[OpenAI]:
    with administration.client(mailing, administration.make_admin_key(mailing.app)) as client:
        yield client


def _mailed(invite: Any) -> dict[str, Any]:
    found: dict[str, Any] = invite.model_extra["mail"]
    return found


def test_a_link_is_mailed_encrypted_after_a_login(admin: OpenAI, mails: Mails) -> None:
    invite = admin.admin.organization.invites.create(email="Ada@example.com", role="reader")
    assert _mailed(invite) == {"status": "sent", "reason": None}
    link = (invite.model_extra or {})["link"]
    assert link.startswith(f"{ADDRESS}/invites/")
    message = mails.messages[-1]
    assert (message["To"], message["From"]) == ("ada@example.com", SENDER)
    assert message["Subject"] == "Invitation to my-org"
    text = message.get_payload(decode=True)
    assert isinstance(text, bytes)
    assert link in text.decode()
    assert mails.recipients[-1] == ["ada@example.com"]
    assert mails.were_encrypted[-1]
    assert mails.users[-1] == USER.encode()


def test_an_address_that_the_mail_server_refuses_is_said_and_the_invite_stays(
    mailing: Server, admin: OpenAI
) -> None:
    invite = admin.admin.organization.invites.create(email=REFUSED, role="reader")
    assert _mailed(invite) == {
        "status": "failed",
        "reason": "The message was not sent: the mail server refused the address (code 550).",
    }
    assert admin.admin.organization.invites.retrieve(invite.id).status == "pending"
    path = (invite.model_extra or {})["link"].removeprefix(ADDRESS)
    assert mailing.get(path).status == 200
    assert "must not be shown" not in mailing.log()


def test_no_password_is_shown_or_logged(mailing: Server) -> None:
    shown = mailing.cli("config", "show", settings={"TUNEWARDEN_SMTP_PASSWORD": PASSWORD})
    assert shown.returncode == 0, shown.stderr
    assert "smtp_host" in shown.stdout
    assert PASSWORD not in shown.stdout + mailing.log()


def _server(port: int, **changes: Any) -> MailServer:
    usual: dict[str, Any] = {
        "host": HOST,
        "port": port,
        "security": Security.STARTTLS,
        "user": USER,
        "password": PASSWORD,
        "sender": SENDER,
    }
    return MailServer(**usual | changes)


def _reason(server: MailServer) -> str:
    with pytest.raises(Error) as failed:
        mail.send(server, to="ada@example.com", subject="x", text="x")
    return failed.value.message.removeprefix("The message was not sent: ")


def test_what_goes_wrong_is_told_by_its_step(
    mails: Mails, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = mail_server.free_port()
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    unencrypted = _reason(_server(mails.port))  # the authority is none that this process knows
    assert unencrypted == "the connection to the mail server could not be encrypted."
    monkeypatch.setenv("SSL_CERT_FILE", str(directory / "ca.pem"))
    before = len(mails.messages)
    refused = _reason(_server(mails.port, password="wrong"))
    assert refused == "the mail server refused the login (code 535)."
    in_clear = _reason(_server(mails.port, security=Security.NONE, user=None))
    assert in_clear == "the mail server refused the message (code 530)."
    missing = _reason(_server(nowhere))
    assert missing == "the mail server could not be reached, or does not speak SMTP."
    assert len(mails.messages) == before
    mail.send(_server(mails.port), to="ada@example.com", subject="x", text="x")  # the control
    assert len(mails.messages) == before + 1


@pytest.mark.parametrize(
    "changes", [{"to": "a@example.com\nBcc: b@example.com"}, {"subject": "a\r\nBcc: b@example.com"}]
)
def test_no_header_begins_another(
    mails: Mails, directory: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(directory / "ca.pem"))
    before = len(mails.messages)
    fields = {"to": "ada@example.com", "subject": "x", "text": "x"} | changes
    with pytest.raises((Error, ValueError)):
        mail.send(_server(mails.port), **fields)
    assert len(mails.messages) == before


@contextlib.contextmanager
def _silent() -> Iterator[int]:
    """A server that accepts connections and says nothing."""
    with socket.create_server((HOST, 0)) as listening:
        yield int(listening.getsockname()[1])


@contextlib.contextmanager
def _dripping() -> Iterator[int]:
    """A server that begins one greeting after another and never ends one."""
    stop = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while not stop.wait(1):
                connection.sendall(b"220-wait\r\n")

    def accept(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                threading.Thread(target=drip, args=(connection,), daemon=True).start()

    with socket.create_server((HOST, 0)) as listening:
        threading.Thread(target=accept, args=(listening,), daemon=True).start()
        yield int(listening.getsockname()[1])
        stop.set()
        listening.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("slow", [_silent, _dripping])
def test_a_mail_server_that_does_not_answer_is_waited_for_a_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: Any
) -> None:
    monkeypatch.setattr(mail, "STEP_SECONDS", 1.5)
    monkeypatch.setattr(mailer, "SECONDS", 3.0)
    with slow() as port:
        settings = Config(
            data=tmp_path,
            public_url=ADDRESS,
            smtp_host=HOST,
            smtp_port=port,
            smtp_sender=SENDER,
        )
        began = time.monotonic()
        mailed = asyncio.run(Mailer().send(settings, to="a@example.com", subject="x", text="x"))
        seconds = time.monotonic() - began
    print(f"{slow.__name__}: {seconds:.1f} s")
    assert mailed.status == "failed"
    assert "did not answer in time" in str(mailed.reason)
    assert seconds < mailer.SECONDS + 2


@pytest.mark.parametrize("missing", ["public_url", "smtp_sender"])
def test_what_is_not_set_is_named(tmp_path: Path, missing: str) -> None:
    settings: dict[str, Any] = {
        "public_url": ADDRESS,
        "smtp_sender": SENDER,
        "smtp_host": HOST,
        missing: "none",
    }
    chosen = Config(data=tmp_path, **settings)
    mailed = asyncio.run(Mailer().send(chosen, to="a@example.com", subject="x", text="x"))
    assert mailed.status == "failed"
    assert f"'{missing}'" in str(mailed.reason)


def test_the_password_is_read_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("of the file\nand more\n", "utf-8")
    found = mailer.password(Config(data=tmp_path, smtp_password_file=str(file)))
    assert found == "of the file"
    with pytest.raises(Error) as refused:
        mailer.password(Config(data=tmp_path, smtp_password_file=str(tmp_path / "nothing")))
    assert "smtp_password_file" in refused.value.message
