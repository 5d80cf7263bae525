"""Certificates for engines on other hosts: an authority of this installation, its gateway's, and one for each engine.

The authority's key never leaves the data directory. A server's certificate may not be used by a client, nor the other
way round, so that an engine's certificate opens no other engine.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tunewarden.engines.tls import AUTHORITY, GATEWAY
from tunewarden.errors import Error, Kind

AUTHORITY_DAYS = 3650
DAYS = 365
DAYS_MAX = 825
# Renew what ends sooner.
RENEW_DAYS = 30
# Clocks of other hosts may be behind.
SKEW = timedelta(hours=1)
ENGINE = "engine"
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate of the data directory. `name`: of its file, without its ending."""

    name: str
    subject: str
    ends_at: datetime

    def ends_within(self, now: datetime, *, days: int = RENEW_DAYS) -> bool:
        """Return whether it has ended, or will have in so many days."""
        return self.ends_at - now < timedelta(days=days)


@dataclass(frozen=True, slots=True)
class _Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def issue(
    directory: Path, hosts: Sequence[str], out: Path, now: datetime, *, days: int
) -> list[Path]:
    """Write a certificate for an engine's host, its key, and the authority's certificate into `out`.

    Makes the authority and the gateway's certificate where there are none. Raises Error(INVALID), Error(CONFLICT).
    """
    names = [_general_name(host) for host in hosts]
    written = [out / f"{ENGINE}.crt", out / f"{ENGINE}.key", out / f"{AUTHORITY}.crt"]
    for path in written:
        if path.exists():
            raise Error(
                Kind.CONFLICT, f"{path} exists already. Choose another directory.", param="out"
            )
    authority = _authority(directory, now)
    _gateway(directory, authority, now)
    usage = ExtendedKeyUsageOID.SERVER_AUTH
    made = _signed(authority, hosts[0], now, days, usage=usage, names=names)
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(written[1], made.key_pem)
    _write(written[0], made.certificate.public_bytes(Encoding.PEM))
    _write(written[2], authority.certificate.public_bytes(Encoding.PEM))
    return written


def renew(directory: Path, now: datetime) -> Certificate:
    """Write another certificate of the gateway; a running server uses it at its next connection.

    Raises Error(NOT_FOUND) without an authority.
    """
    if not (directory / f"{AUTHORITY}.key").exists():
        raise Error(
            Kind.NOT_FOUND, "There are no certificates yet: run `tunewarden certificates issue`."
        )
    _gateway(directory, _authority(directory, now), now, is_forced=True)
    return next(one for one in kept(directory) if one.name == GATEWAY)


def kept(directory: Path) -> Iterator[Certificate]:
    """Yield the certificates of the data directory. Raises Error(MISCONFIGURED) for a file that is none."""
    for path in sorted(directory.glob("*.crt")):
        found = _read_certificate(path)
        yield Certificate(path.stem, found.subject.rfc4514_string(), found.not_valid_after_utc)


def _authority(directory: Path, now: datetime) -> _Pair:
    paths = directory / f"{AUTHORITY}.crt", directory / f"{AUTHORITY}.key"
    if all(path.exists() for path in paths):
        return _Pair(_read_certificate(paths[0]), _read_key(paths[1]))
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("Tunewarden engines")
    built = (
        _builder(name, name, key, now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(is_authority=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    pair = _Pair(built, key)
    _keep(directory, AUTHORITY, pair)
    return pair


def _gateway(directory: Path, authority: _Pair, now: datetime, *, is_forced: bool = False) -> None:
    path = directory / f"{GATEWAY}.crt"
    if path.exists() and not is_forced:
        found = Certificate(GATEWAY, "", _read_certificate(path).not_valid_after_utc)
        if not found.ends_within(now):
            return
    usage = ExtendedKeyUsageOID.CLIENT_AUTH
    _keep(directory, GATEWAY, _signed(authority, "Tunewarden gateway", now, DAYS, usage=usage))


def _signed(
    authority: _Pair,
    subject: str,
    now: datetime,
    days: int,
    *,
    usage: x509.ObjectIdentifier,
    names: Sequence[x509.GeneralName] = (),
) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    builder = (
        _builder(_name(subject), issuer.subject, key, now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(is_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _Pair(builder.sign(authority.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        pass
    if not HOST.fullmatch(host):
        raise Error(Kind.INVALID, f"'{host}' is neither a host name nor an address.", param="host")
    return x509.DNSName(host)


def _keep(directory: Path, name: str, pair: _Pair) -> None:
    """Write a pair into the data directory: the key first, both whole or not at all."""
    directory.mkdir(mode=0o700, exist_ok=True)
    pem = pair.certificate.public_bytes(Encoding.PEM)
    # The gateway reads one file, so that a certificate never meets another one's key.
    content = {f"{name}.key": pair.key_pem, f"{name}.crt": pem}
    if name == GATEWAY:
        content = {f"{name}.crt": pem + pair.key_pem}
    for file, text in content.items():
        new = directory / f"{file}.new"
        new.unlink(missing_ok=True)
        _write(new, text)
        new.rename(directory / file)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _read_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Error(Kind.MISCONFIGURED, f"{path} holds no certificate.") from error


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise Error(Kind.MISCONFIGURED, f"{path} holds no private key.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Error(Kind.MISCONFIGURED, f"{path} holds no key of an elliptic curve.")
    return key
