"""What a kubeconfig says: its shapes, and one context of it. Nothing that it names is run or read.

Format: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec

from killswitch.errors import RefusedError

_LARGEST: Final = 1 << 20


class Variable(msgspec.Struct):
    """One environment variable for a plugin."""

    name: str
    value: str


class Exec(msgspec.Struct, rename="camel"):
    """A credential plugin: the program that gives the credential."""

    command: str
    api_version: str = ""
    args: list[str] | None = None
    env: list[Variable] | None = None
    install_hint: str | None = None
    provide_cluster_info: bool = False
    interactive_mode: str | None = None


class AuthProvider(msgspec.Struct):
    """What came before the plugins; its settings are not read."""

    name: str = ""


class User(msgspec.Struct, rename="kebab"):
    """How to authenticate, and as whom to act."""

    token: str | None = None
    token_file: str | None = msgspec.field(name="tokenFile", default=None)
    username: str | None = None
    password: str | None = None
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    exec: Exec | None = None
    auth_provider: AuthProvider | None = None
    act_as: str | None = msgspec.field(name="as", default=None)
    as_uid: str | None = None
    as_groups: list[str] | None = None
    as_user_extra: dict[str, list[str]] | None = None


class Extension(msgspec.Struct):
    """Anything, by name."""

    name: str
    extension: Any = None


class Cluster(msgspec.Struct, rename="kebab"):
    """Where the API server is, and whom to trust."""

    server: str
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool = False
    tls_server_name: str | None = None
    proxy_url: str | None = None
    extensions: list[Extension] | None = None


class Context(msgspec.Struct):
    """Which user at which cluster."""

    cluster: str
    user: str = ""


class NamedUser(msgspec.Struct):
    """A user of the list."""

    name: str
    user: User | None = None


class NamedCluster(msgspec.Struct):
    """A cluster of the list."""

    name: str
    cluster: Cluster


class NamedContext(msgspec.Struct):
    """A context of the list."""

    name: str
    context: Context


class File(msgspec.Struct):
    """The file, as far as it is read: `current-context` is not, a halt's context is configured."""

    contexts: list[NamedContext] | None = None
    clusters: list[NamedCluster] | None = None
    users: list[NamedUser] | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One context of a kubeconfig. Relative paths in it begin at `folder`."""

    cluster: Cluster
    user_name: str
    user: User
    folder: Path


def read_entry(path: Path, context: str) -> Entry:
    """Return `context` of the kubeconfig at `path`; raises RefusedError."""
    file = _parse(read_file(path, "kubeconfig"), path)
    chosen = _only("context", file.contexts or (), context).context
    cluster = _only("cluster", file.clusters or (), chosen.cluster).cluster
    user = _only("user", file.users or (), chosen.user).user if chosen.user else None
    return Entry(cluster, chosen.user, user or User(), path.parent)


def read_file(path: Path, what: str) -> bytes:
    """Return at most 1 MiB of the file at `path`; RefusedError says `what` cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST)
    except OSError as error:
        raise RefusedError(f"cannot read the {what} {path}: {error.strerror}") from None
    except ValueError:
        raise RefusedError(f"the path of the {what} is no path") from None


def _parse(raw: bytes, path: Path) -> File:
    try:
        return msgspec.yaml.decode(raw, type=File, strict=False)
    except msgspec.ValidationError as error:
        raise RefusedError(f"{path} is not a kubeconfig: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        # The parser quotes the line that it stumbled over, which may be the token's.
        raise RefusedError(f"the kubeconfig {path} is not YAML") from None


class _Named(Protocol):
    name: str


_N = TypeVar("_N", bound=_Named)


def _only(what: str, listed: Sequence[_N], name: str) -> _N:
    found = [named for named in listed if named.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise RefusedError(f"the kubeconfig has {len(found)} {what}s named {name!r}: leave one")
    there = ", ".join(sorted({named.name for named in listed})) or "none"
    raise RefusedError(f"the kubeconfig has no {what} {name!r}; it has: {there}")
