"""Read one context of a kubeconfig without running anything that it names.

The vendor's own loader runs `exec` plugins without a time-out, and leaves client keys in files
under the temp directory; so the file is read here, and what it may not hold is refused in words.
Format: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

import base64
import binascii
import os
import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from killswitch.address import checked_url, host_of, is_loopback
from killswitch.errors import RefusedError
from killswitch.secret import Secret

_LARGEST: Final = 1 << 20


class _User(msgspec.Struct, rename="kebab"):
    token: str | None = None
    token_file: str | None = msgspec.field(name="tokenFile", default=None)
    username: str | None = None
    password: str | None = None
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    exec: Any = None
    auth_provider: Any = None
    impersonate: Any = msgspec.field(name="as", default=None)


class _Cluster(msgspec.Struct, rename="kebab"):
    server: str
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool = False
    tls_server_name: str | None = None


class _Context(msgspec.Struct):
    cluster: str
    user: str = ""


class _NamedUser(msgspec.Struct):
    name: str
    user: _User | None = None


class _NamedCluster(msgspec.Struct):
    name: str
    cluster: _Cluster


class _NamedContext(msgspec.Struct):
    name: str
    context: _Context


class _File(msgspec.Struct):
    contexts: list[_NamedContext] | None = None
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """Where an API server is, and what it is shown.

    `authorization` is the header's value. `expires_at` is what a JSON Web Token says of itself.
    `tls` is None for plain http, which only loopback may have.
    """

    server: str
    authorization: Secret | None
    expires_at: datetime | None
    tls: ssl.SSLContext | None
    tls_server_name: str | None


def load(path: Path, context: str, *, only_loopback: bool = False) -> Access:
    """Read `context` of the kubeconfig at `path`; RefusedError says what it may not hold.

    With `only_loopback` a server on another machine is refused before any credential is read.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST)
    except OSError as error:
        raise RefusedError(f"cannot read the kubeconfig {path}: {error.strerror}") from None
    cluster, user_name, user = _choose(_parse(raw, path), context)
    _remember(user)
    server = _server(cluster)
    if only_loopback and not is_loopback(host_of(server)):
        raise RefusedError(
            f"the sandbox may only reach this machine, and the kubeconfig names {host_of(server)}"
        )
    for key, value in (
        ("exec", user.exec),
        ("auth-provider", user.auth_provider),
        ("as", user.impersonate),
    ):
        if value is not None:
            raise RefusedError(
                f"kubeconfig user {user_name!r} uses {key!r}, which a kill switch must not depend"
                " on: give it a token or a client certificate"
            )
    token = _token(user, path.parent)
    return Access(
        server=server,
        authorization=_authorization(user, token),
        expires_at=_expires_at(token),
        tls=_tls(server, cluster, user, path.parent),
        tls_server_name=cluster.tls_server_name or None,
    )


def bearer(token: str) -> Secret:
    """Return the header's value for a token that does not stand in the kubeconfig.

    Raises RefusedError for what cannot be one.
    """
    _check_token(token)
    return Secret(f"Bearer {token}")


def _parse(raw: bytes, path: Path) -> _File:
    try:
        return msgspec.yaml.decode(raw, type=_File, strict=False)
    except msgspec.ValidationError as error:
        raise RefusedError(f"{path} is not a kubeconfig: {error}") from None
    except msgspec.DecodeError:
        # The parser quotes the line that it stumbled over, which may be the token's.
        raise RefusedError(f"the kubeconfig {path} is not YAML") from None


def _choose(file: _File, context: str) -> tuple[_Cluster, str, _User]:
    contexts = {named.name: named.context for named in file.contexts or ()}
    clusters = {named.name: named.cluster for named in file.clusters or ()}
    users = {named.name: named.user for named in file.users or ()}
    if context not in contexts:
        there = ", ".join(sorted(contexts)) or "none"
        raise RefusedError(f"the kubeconfig has no context {context!r}; it has: {there}")
    chosen = contexts[context]
    if chosen.cluster not in clusters:
        raise RefusedError(f"the kubeconfig has no cluster {chosen.cluster!r}")
    if chosen.user and chosen.user not in users:
        raise RefusedError(f"the kubeconfig has no user {chosen.user!r}")
    return clusters[chosen.cluster], chosen.user, users.get(chosen.user) or _User()


def _server(cluster: _Cluster) -> str:
    try:
        return checked_url(cluster.server)
    except ValueError as error:
        raise RefusedError(f"the kubeconfig's server: {error}") from None


def _remember(user: _User) -> None:
    for value in (user.token, user.password, user.client_key_data):
        Secret(value or "")


def _token(user: _User, folder: Path) -> str:
    token = user.token or ""
    if user.token_file:
        token = _read(folder / user.token_file, "tokenFile").decode(errors="replace").strip()
    if token:
        _check_token(token)
    return token


def _check_token(token: str) -> None:
    # A stray line break would end up in the text of the HTTP library's own error.
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise RefusedError("the cluster's token holds characters that no token has")


def _authorization(user: _User, token: str) -> Secret | None:
    if token:
        Secret(token)
        return Secret(f"Bearer {token}")
    if user.username:
        pair = f"{user.username}:{user.password or ''}".encode()
        return Secret(f"Basic {base64.b64encode(pair).decode()}")
    return None


def _expires_at(token: str) -> datetime | None:
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(parts[1] + "=="))
        return datetime.fromtimestamp(float(claims["exp"]), UTC)
    except (binascii.Error, msgspec.DecodeError, KeyError, TypeError, ValueError, OverflowError):
        return None


def _tls(server: str, cluster: _Cluster, user: _User, folder: Path) -> ssl.SSLContext | None:
    if urlsplit(server).scheme == "http":
        return None
    host = host_of(server)
    if cluster.insecure_skip_tls_verify and not is_loopback(host):
        raise RefusedError(f"insecure-skip-tls-verify is refused except for loopback: {host}")
    try:
        context = _verifying(cluster, folder)
        _show_certificate(context, user, folder)
    except (ssl.SSLError, ValueError):
        raise RefusedError("a certificate or key in the kubeconfig cannot be used") from None
    if cluster.insecure_skip_tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _verifying(cluster: _Cluster, folder: Path) -> ssl.SSLContext:
    pem: str | None = None
    if cluster.certificate_authority_data:
        pem = base64.b64decode(cluster.certificate_authority_data, validate=True).decode()
    elif cluster.certificate_authority:
        file = folder / cluster.certificate_authority
        pem = _read(file, "certificate-authority").decode()
    context = ssl.create_default_context(cadata=pem)
    # Python 3.13 refuses authorities without a key identifier; many clusters' own have none.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _show_certificate(context: ssl.SSLContext, user: _User, folder: Path) -> None:
    certificate = _pem(user.client_certificate_data, user.client_certificate, folder)
    key = _pem(user.client_key_data, user.client_key, folder)
    if not certificate or not key:
        return
    Secret(key.decode(errors="replace"))
    # OpenSSL wants a file: in memory where there is such a directory, and gone at once.
    memory = os.environ.get("XDG_RUNTIME_DIR", "")
    where = memory if Path(memory).is_absolute() and Path(memory).is_dir() else None
    with tempfile.NamedTemporaryFile(dir=where) as file:
        file.write(certificate + b"\n" + key)
        file.flush()
        # An encrypted key would otherwise ask at the terminal for its pass phrase.
        context.load_cert_chain(file.name, password="")


def _pem(data: str | None, name: str | None, folder: Path) -> bytes:
    if data:
        return base64.b64decode(data, validate=True)
    return _read(folder / name, "client certificate or key") if name else b""


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST)
    except OSError as error:
        raise RefusedError(f"cannot read the {what} {path}: {error.strerror}") from None
