"""Certificates that one command makes: what connects with them, and what does not."""

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tunewarden.engines import certificates
from tunewarden.engines.tls import ClientTls
from tunewarden.errors import Error, Kind

NOW = datetime.now(UTC)


def issued(directory: Path, name: str, *hosts: str, now: datetime = NOW, days: int = 365) -> Path:
    out = directory.parent / name
    certificates.issue(directory, hosts, out, now, days=days)
    return out


def engine_context(files: Path) -> ssl.SSLContext:
    """Return the context that vLLM makes of its flags `--ssl-…` with `--ssl-cert-reqs 2`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "engine.crt", files / "engine.key")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(files / "ca.crt")
    return context


def connected(client: ssl.SSLContext, engine: ssl.SSLContext, host: str = "localhost") -> bool:
    """Return whether both sides accept one another."""
    ours, theirs = socket.socketpair()
    accepted = []

    def serve() -> None:
        try:
            with engine.wrap_socket(theirs, server_side=True) as found:
                found.recv(1)
                found.send(b"x")
                accepted.append(True)
        except (ssl.SSLError, OSError):
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=host) as found:
            found.send(b"x")
            return found.recv(1) == b"x" and not accepted[1:]
    except (ssl.SSLError, OSError):
        return False
    finally:
        ours.close()
        thread.join()


def test_gateway_and_engine_accept_one_another_by_name_and_address(tmp_path: Path) -> None:
    directory = tmp_path / "certificates"
    engine = engine_context(issued(directory, "gpu", "localhost", "127.0.0.1"))
    gateway = ClientTls(directory).context()
    assert connected(gateway, engine)
    assert connected(gateway, engine, "127.0.0.1")
    assert connected(ClientTls(directory, accepts_public=True).context(), engine)
    assert not connected(gateway, engine, "gpu-2.example")


def test_only_the_gateways_certificate_opens_an_engine(tmp_path: Path) -> None:
    directory = tmp_path / "certificates"
    first, second = (issued(directory, name, "localhost") for name in ("one", "two"))
    without = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    without.load_verify_locations(first / "ca.crt")
    assert not connected(without, engine_context(first))
    another_engine = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    another_engine.load_verify_locations(first / "ca.crt")
    another_engine.load_cert_chain(second / "engine.crt", second / "engine.key")
    assert not connected(another_engine, engine_context(first))
    other = tmp_path / "other" / "certificates"
    other.parent.mkdir()
    issued(other, "gpu", "localhost")
    assert not connected(ClientTls(other).context(), engine_context(first))


def test_the_gateways_certificate_is_no_servers(tmp_path: Path) -> None:
    directory = tmp_path / "certificates"
    files = issued(directory, "gpu", "localhost")
    fake = engine_context(files)
    fake.load_cert_chain(directory / "gateway.crt")
    client = ClientTls(directory).context()
    client.check_hostname = False
    assert not connected(client, fake)


def test_certificates_end(tmp_path: Path) -> None:
    directory = tmp_path / "certificates"
    issued(directory, "gpu", "localhost")
    old = issued(directory, "old", "localhost", now=NOW - timedelta(days=2), days=1)
    assert not connected(ClientTls(directory).context(), engine_context(old))


def test_a_renewed_certificate_is_used_without_a_restart(tmp_path: Path) -> None:
    directory = tmp_path / "certificates"
    past = NOW - timedelta(days=certificates.DAYS + 1)
    issued(directory, "gpu", "localhost", now=past)
    engine = engine_context(issued(tmp_path / "certificates", "new", "localhost", now=NOW))
    # The second call has renewed what had ended.
    tls = ClientTls(directory)
    assert connected(tls.context(), engine)
    before = tls.context()
    assert tls.context() is before
    renewed = certificates.renew(directory, NOW)
    assert not renewed.ends_within(NOW)
    assert renewed.ends_within(NOW + timedelta(days=340))
    assert tls.context() is not before
    assert connected(tls.context(), engine)


def test_everything_is_readable_to_its_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "certificates"
    out = issued(directory, "gpu", "localhost")
    assert directory.stat().st_mode & 0o077 == 0
    for path in (*directory.iterdir(), *out.iterdir()):
        assert path.stat().st_mode & 0o177 == 0, path
    assert [one.name for one in certificates.kept(directory)] == ["ca", "gateway"]


@pytest.mark.parametrize("host", ["", "a b", "https://a", "a:1", "-a", "a" * 300])
def test_what_is_no_host_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(Error) as refused:
        issued(tmp_path / "certificates", "gpu", host)
    assert refused.value.kind is Kind.INVALID
    assert not (tmp_path / "certificates").exists()


def test_nothing_is_overwritten_and_nothing_is_renewed_that_is_not_there(tmp_path: Path) -> None:
    directory = tmp_path / "certificates"
    with pytest.raises(Error, match="no certificates yet"):
        certificates.renew(directory, NOW)
    issued(directory, "gpu", "localhost")
    with pytest.raises(Error, match="exists already"):
        issued(directory, "gpu", "localhost")


def test_without_certificates_public_authorities_are_used(tmp_path: Path) -> None:
    for directory in (None, tmp_path):
        for accepts_public in (False, True):
            context = ClientTls(directory, accepts_public=accepts_public).context()
            assert context.verify_mode is ssl.CERT_REQUIRED
            assert context.check_hostname
