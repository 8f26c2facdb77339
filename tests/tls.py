"""Certificates made at test time: an authority, and what it signs."""

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self._key_pem(serialization.NoEncryption())

    @property
    def encrypted_key_pem(self) -> bytes:
        return self._key_pem(serialization.BestAvailableEncryption(b"a pass phrase"))

    def _key_pem(self, encryption: serialization.KeySerializationEncryption) -> bytes:
        kind = serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(serialization.Encoding.PEM, kind, encryption)


class Authority:
    """A certificate authority."""

    def __init__(self, name: str = "authority") -> None:
        self._signed = _sign(name, None, days=10, names=())
        self.pem = self._signed.pem

    def sign(self, name: str, *, names: tuple[str, ...] = (), days: float = 1) -> Signed:
        """Sign a certificate for `names`, hosts or addresses; negative `days` are over."""
        return _sign(name, self._signed, days=days, names=names)

    def server(
        self,
        folder: Path,
        *,
        names: tuple[str, ...] = ("127.0.0.1", "localhost"),
        days: float = 1,
        clients: str = "",
    ) -> ssl.SSLContext:
        """Return what a server listens with; `clients` is "" or "asked" or "required"."""
        signed = self.sign("server", names=names, days=days)
        file, authority = folder / "server.pem", folder / "authority.pem"
        file.write_bytes(signed.pem + signed.key_pem)
        authority.write_bytes(self.pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        if clients:
            context.load_verify_locations(authority)
            required = clients == "required"
            context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        return context


def _sign(name: str, issuer: Signed | None, *, days: float, names: tuple[str, ...]) -> Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    end = datetime.now(UTC) + timedelta(days=days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(end, datetime.now(UTC)) - timedelta(days=20))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if names:
        alternative = x509.SubjectAlternativeName([_general(one) for one in names])
        builder = builder.add_extension(alternative, critical=False)
    signer = issuer.key if issuer else key
    return Signed(builder.sign(signer, hashes.SHA256()), key)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
