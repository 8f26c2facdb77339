"""What a kubeconfig's user is shown by: a token, what a plugin gives, a certificate, a name."""

import base64
import binascii
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Final

import msgspec

from killswitch.clients.kubeconfig_exec import Issued, issue
from killswitch.clients.kubeconfig_file import AuthProvider, Entry, User, read_file
from killswitch.clients.kubeconfig_tls import Pair, client_pair, ends_at
from killswitch.errors import RefusedError
from killswitch.secret import Secret

_REREAD_S: Final = 10.0
_INSTEAD: Final = {
    "gcp": "the plugin gke-gcloud-auth-plugin, allowed by exec, takes its place",
    "azure": "the plugin kubelogin, allowed by exec, takes its place",
    "oidc": "its refresh may need a browser: use a service account's token",
}


class TokenFile:
    """A token that stands in a file: service accounts' tokens are replaced there.

    The file is read again after `reread_s`; what was read last counts while it cannot be read.
    """

    def __init__(self, path: Path, *, reread_s: float = _REREAD_S) -> None:
        self._path = path
        self._reread_s = reread_s
        self._mutex = Lock()
        self._read_at = time.monotonic()
        self._token = self._read()

    def current(self) -> str:
        """Return the token."""
        with self._mutex:
            now = time.monotonic()
            if now - self._read_at > self._reread_s:
                self._read_at = now
                with suppress(RefusedError):  # it may be in the middle of being replaced
                    self._token = self._read()
            return self._token

    def _read(self) -> str:
        token = read_file(self._path, "tokenFile").decode(errors="replace").strip()
        if not token:
            raise RefusedError(f"the tokenFile {self._path} is empty")
        return checked_token(token)


@dataclass(frozen=True, slots=True)
class Credential:
    """What the API server is shown beside TLS.

    `what` names it. `expires_at` is what a JSON Web Token, a certificate or a plugin says of
    itself. `from_plugin` is true when loading the kubeconfig again gives a new one.
    """

    what: str = "no credential"
    authorization: Secret | None = None
    file: TokenFile | None = field(default=None, repr=False)
    expires_at: datetime | None = None
    from_plugin: bool = False

    def header(self) -> str:
        """Return the value for ``Authorization``, "" for none."""
        if self.file is not None:
            return f"Bearer {self.file.current()}"
        return self.authorization.reveal() if self.authorization else ""


def credential_of(
    entry: Entry, plugins: Sequence[str], *, tls: bool
) -> tuple[Credential, Pair | None]:
    """Return what `entry`'s user is shown by, and a client certificate for `tls`, if any.

    `plugins` may be run. Raises RefusedError; UnreachableError for a plugin that takes too long.
    """
    user, folder = entry.user, entry.folder
    for value in (user.token, user.password, user.client_key_data):
        Secret(value or "")
    if user.auth_provider is not None:
        raise _no_provider(entry, user.auth_provider)
    credential = Credential()
    pair = client_pair(user, folder) if tls else None
    if user.token_file:
        file = TokenFile(folder / user.token_file)
        credential = Credential(
            "the token of the tokenFile", file=file, expires_at=_expires_at(file.current())
        )
    elif user.token:
        credential = bearer(user.token)
    elif user.exec is not None:
        credential, issued = _from_plugin(issue(entry, user.exec, plugins))
        pair = issued or pair
    elif user.username:
        credential = Credential("the name and password", _basic(user))
    if pair is None:
        return credential, None
    ends = [ends_at(pair), *filter(None, [credential.expires_at])]
    what = "the client certificate"
    if credential.authorization or credential.file:
        what += f", or {credential.what},"
    return replace(credential, what=what, expires_at=min(ends)), pair


def bearer(token: str) -> Credential:
    """Return the credential for a token that does not stand in the kubeconfig.

    Raises RefusedError for what cannot be one.
    """
    checked = checked_token(token)
    return Credential("the token", Secret(f"Bearer {checked}"), expires_at=_expires_at(checked))


def checked_token(token: str) -> str:
    """Return `token`; RefusedError if it cannot be one."""
    Secret(token)
    # A stray line break would end up in the text of the HTTP library's own error.
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise RefusedError("the cluster's token holds characters that no token has")
    return token


def _from_plugin(issued: Issued) -> tuple[Credential, Pair | None]:
    pair: Pair | None = None
    credential = Credential("the plugin's certificate", from_plugin=True)
    expires_at = issued.expiration_timestamp
    if issued.token:
        token = bearer(issued.token)
        credential = replace(token, what="the plugin's token", from_plugin=True)
        expires_at = expires_at or token.expires_at
    if issued.client_certificate_data and issued.client_key_data:
        pair = (issued.client_certificate_data.encode(), issued.client_key_data.encode())
    return replace(credential, expires_at=expires_at), pair


def _no_provider(entry: Entry, provider: AuthProvider) -> RefusedError:
    instead = _INSTEAD.get(provider.name, "use a service account's token")
    return RefusedError(
        f"kubeconfig user {entry.user_name!r} uses the auth-provider {provider.name[:40]!r}, which"
        f" a halt cannot depend on: {instead}"
    )


def _basic(user: User) -> Secret:
    pair = base64.b64encode(f"{user.username}:{user.password or ''}".encode()).decode()
    Secret(pair)
    return Secret(f"Basic {pair}")


def _expires_at(token: str) -> datetime | None:
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(parts[1] + "=="))
        return datetime.fromtimestamp(float(claims["exp"]), UTC)
    except (binascii.Error, msgspec.DecodeError, KeyError, TypeError, ValueError, OverflowError):
        return None
