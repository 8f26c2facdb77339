"""What a kubeconfig says of TLS: whom to trust, and which client certificate to show."""

import base64
import os
import ssl
import tempfile
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from killswitch.address import host_of, is_loopback
from killswitch.clients.kubeconfig_file import Cluster, User, read_file
from killswitch.errors import RefusedError
from killswitch.secret import Secret

Pair = tuple[bytes, bytes]
"""A client certificate, perhaps with its chain, and its key: PEM."""


def client_pair(user: User, folder: Path) -> Pair | None:
    """Return the client certificate of `user`, None if it has none; raises RefusedError."""
    certificate = _pem(user.client_certificate_data, user.client_certificate, folder)
    key = _pem(user.client_key_data, user.client_key, folder)
    if not certificate and not key:
        return None
    if not certificate or not key:
        there, gone = ("certificate", "key") if certificate else ("key", "certificate")
        raise RefusedError(f"the kubeconfig has a client {there} without its {gone}")
    return certificate, key


def ends_at(pair: Pair) -> datetime:
    """Return until when the client certificate is valid; raises RefusedError."""
    from cryptography.x509 import load_pem_x509_certificate

    try:
        return load_pem_x509_certificate(pair[0]).not_valid_after_utc
    except ValueError:
        raise RefusedError("the client certificate is not a PEM certificate") from None


def tls_context(
    server: str, cluster: Cluster, folder: Path, pair: Pair | None
) -> ssl.SSLContext | None:
    """Return what an https connection is made with; None for http; raises RefusedError."""
    if urlsplit(server).scheme == "http":
        return None
    host = host_of(server)
    # Behind a proxy loopback is the proxy's, not this machine.
    if cluster.insecure_skip_tls_verify and (cluster.proxy_url or not is_loopback(host)):
        raise RefusedError(
            f"insecure-skip-tls-verify is refused except for loopback: {host}: anybody between"
            " could read the token; give the kubeconfig its certificate-authority-data"
        )
    context = _verifying(cluster, folder)
    if pair is not None:
        _show(context, pair)
    if cluster.insecure_skip_tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _verifying(cluster: Cluster, folder: Path) -> ssl.SSLContext:
    pem: str | None = None
    try:
        if cluster.certificate_authority_data:
            pem = _decoded(cluster.certificate_authority_data).decode()
        elif cluster.certificate_authority:
            file = folder / cluster.certificate_authority
            pem = read_file(file, "certificate-authority").decode()
        if pem is not None and not pem.strip():
            raise ValueError("none would mean the system's authorities")  # noqa: TRY301
        context = ssl.create_default_context(cadata=pem)
    except (ssl.SSLError, ValueError):
        raise RefusedError(
            "the certificate-authority of the kubeconfig cannot be used: it is not PEM"
        ) from None
    # Python 3.13 refuses authorities without a key identifier; many clusters' own have none.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _show(context: ssl.SSLContext, pair: Pair) -> None:
    certificate, key = pair
    Secret(key.decode(errors="replace"))
    if b"ENCRYPTED" in key:
        raise RefusedError(
            "the client key is encrypted, and a halt cannot ask for its pass phrase: use a token,"
            " or a key without one (openssl pkey -in KEY -out NEW), readable by its owner only"
        )
    # OpenSSL wants a file: in memory where there is such a directory, and gone at once.
    memory = os.environ.get("XDG_RUNTIME_DIR", "")
    where = memory if Path(memory).is_absolute() and Path(memory).is_dir() else None
    try:
        with tempfile.NamedTemporaryFile(dir=where) as file:
            file.write(certificate + b"\n" + key)
            file.flush()
            # An encrypted key would otherwise ask at the terminal for its pass phrase.
            context.load_cert_chain(file.name, password="")
    except ssl.SSLError as error:
        why = (
            "the key is of another certificate"
            if "MISMATCH" in str(error)
            else "a PEM certificate and a PEM key are wanted"
        )
        raise RefusedError(f"the client certificate cannot be used: {why}") from None
    except OSError as error:
        raise RefusedError(f"the client certificate cannot be used: {error.strerror}") from None


def _pem(data: str | None, name: str | None, folder: Path) -> bytes:
    if not data:
        return read_file(folder / name, "client certificate or key") if name else b""
    try:
        return _decoded(data)
    except ValueError:
        raise RefusedError(
            "the client certificate or key in the kubeconfig is not base64"
        ) from None


def _decoded(data: str) -> bytes:
    return base64.b64decode("".join(data.split()), validate=True)
