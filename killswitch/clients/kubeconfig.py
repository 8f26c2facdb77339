"""One context of a kubeconfig as what a connection needs: address, trust, credential.

The vendor's own loader runs `exec` plugins without a time-out, ignores `as`, and leaves client
keys in files under the temp directory; so the file is read here, and what it may not hold is
refused in words.
"""

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from killswitch.address import checked_url, host_of, is_loopback
from killswitch.clients.kubeconfig_credential import Credential, credential_of
from killswitch.clients.kubeconfig_file import Cluster, Entry, read_entry
from killswitch.clients.kubeconfig_tls import tls_context
from killswitch.errors import RefusedError
from killswitch.secret import Secret


@dataclass(frozen=True, slots=True)
class Access:
    """Where an API server is, and what it is shown.

    `tls` is None for plain http, which only loopback may have. `headers` say as whom to act.
    `proxy` is an http(s) address without its user; `proxy_user` is "user:password".
    """

    server: str
    credential: Credential
    tls: ssl.SSLContext | None
    tls_server_name: str | None
    headers: Mapping[str, str] = field(default_factory=dict)
    proxy: str = ""
    proxy_user: Secret | None = None


def load(
    path: Path,
    context: str,
    *,
    only_loopback: bool = False,
    plugins: Sequence[str] = (),
    own_credential: bool = True,
) -> Access:
    """Read `context` of the kubeconfig at `path`; RefusedError says what it may not hold.

    Args:
        path: of the file.
        context: its name in the file.
        only_loopback: refuse a server on another machine, before any credential is read.
        plugins: the credential plugins that may be run, see `kubeconfig_exec.issue`.
        own_credential: without it, the user's credential is neither read nor shown nor run: a
            client certificate, for one, would count more than a token from elsewhere.
    """
    entry = read_entry(path, context)
    cluster, folder = entry.cluster, entry.folder
    server = _server(cluster)
    proxy, proxy_user = _proxy(server, cluster)
    for address in (server, proxy) if only_loopback else ():
        if address and not is_loopback(host_of(address)):
            raise RefusedError(
                "the sandbox may only reach this machine, and the kubeconfig names"
                f" {host_of(address)}"
            )
    headers = _acting_as(entry)
    credential, pair = (
        credential_of(entry, plugins, tls=urlsplit(server).scheme == "https")
        if own_credential
        else (Credential(), None)
    )
    return Access(
        server=server,
        credential=credential,
        tls=tls_context(server, cluster, folder, pair),
        tls_server_name=cluster.tls_server_name or None,
        headers=headers,
        proxy=proxy,
        proxy_user=proxy_user,
    )


def _server(cluster: Cluster) -> str:
    try:
        return checked_url(cluster.server)
    except ValueError as error:
        raise RefusedError(f"the kubeconfig's server: {error}") from None


def _proxy(server: str, cluster: Cluster) -> tuple[str, Secret | None]:
    if not cluster.proxy_url:
        return "", None
    try:
        parts = urlsplit(cluster.proxy_url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise RefusedError("the kubeconfig's proxy-url cannot be read as an address") from None
    user = None
    if parts.username:
        Secret(unquote(parts.password or ""))
        user = Secret(f"{unquote(parts.username)}:{unquote(parts.password or '')}")
    if parts.scheme not in {"http", "https"} or not host or not cluster.proxy_url.isprintable():
        raise RefusedError(
            "the kubeconfig's proxy-url is not http or https: for SOCKS, forward a port"
            " (ssh -L) and name the server 127.0.0.1 with its tls-server-name"
        )
    if urlsplit(server).scheme == "http":
        raise RefusedError("a server without TLS is not reached through a proxy-url")
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}{f':{port}' if port else ''}", user


def _acting_as(entry: Entry) -> dict[str, str]:
    """Return the headers of an impersonation.

    https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/
    """
    user = entry.user
    more = user.as_uid or user.as_groups or user.as_user_extra
    if not user.act_as:
        if more:
            raise RefusedError(f"kubeconfig user {entry.user_name!r} has as-… without 'as'")
        return {}
    headers = {"Impersonate-User": user.act_as}
    if user.as_uid:
        headers["Impersonate-Uid"] = user.as_uid
    for number, group in enumerate(user.as_groups or ()):
        # One header for each: the line sends names that differ in this mark only as one name.
        headers[f"Impersonate-Group#{number}"] = group
    for key, values in (user.as_user_extra or {}).items():
        for number, value in enumerate(values):
            headers[f"Impersonate-Extra-{quote(key.lower(), safe='')}#{number}"] = value
    for value in headers.values():
        if not (value.isascii() and value.isprintable() and value.strip() == value):
            raise RefusedError(
                f"kubeconfig user {entry.user_name!r} acts as a name that no header can hold"
            )
    return headers
