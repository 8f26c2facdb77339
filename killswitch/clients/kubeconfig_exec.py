"""Credential plugins of a kubeconfig: programs that are run only when they are allowed by name.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

import msgspec

from killswitch.clients.kubeconfig_file import Cluster, Entry, Exec, read_file
from killswitch.errors import RefusedError, UnreachableError
from killswitch.programs import Ran, run
from killswitch.secret import MASK, Secret, redact

PLUGIN_TIMEOUT_S: Final = 10.0
_LONGEST: Final = 256 * 1024
_LONGEST_TEXT: Final = 200
_VERSIONS: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_EXTENSION: Final = "client.authentication.k8s.io/exec"
# A plugin's complaint may quote what nobody has told us is secret: no long word of it is shown.
_LONG_WORD: Final = re.compile(r"[A-Za-z0-9+/=_.~-]{32,}")
_HIDDEN: Final = re.compile(r"SECRET|TOKEN|PASSWORD|KEY")


class Issued(msgspec.Struct, rename="camel"):
    """What a plugin gave: a token, or a client certificate with its key (PEM), or both."""

    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: datetime | None = None

    def __repr__(self) -> str:
        return "Issued()"


class _ExecCredential(msgspec.Struct, rename="camel"):
    api_version: str
    kind: Literal["ExecCredential"]
    status: Issued


def issue(
    entry: Entry,
    plugin: Exec,
    allowed: Sequence[str],
    *,
    timeout_s: float = PLUGIN_TIMEOUT_S,
    environment: Mapping[str, str] = os.environ,
) -> Issued:
    """Run the plugin of `entry` and return the credential that it prints.

    `allowed` holds commands exactly as kubeconfigs write them: a bare name allows that name, to be
    found in PATH; a command with a slash must be allowed with it, so that no other program of the
    same name is run.

    Raises:
        RefusedError: it is not allowed, cannot be run, failed, or printed something else.
        UnreachableError: it was not done within `timeout_s`; it and its children were ended.
    """
    name = _shown(plugin.command)
    _demand_allowed(entry, plugin, allowed)
    for variable in plugin.env or ():
        if _HIDDEN.search(variable.name.upper()):
            Secret(variable.value)
    own = {variable.name: variable.value for variable in plugin.env or ()}
    merged = {**environment, **own, "KUBERNETES_EXEC_INFO": _info(entry, plugin)}
    program = _program(entry, plugin, merged)
    try:
        ran = run(
            [program, *(plugin.args or ())],
            timeout_s=timeout_s,
            longest=_LONGEST,
            environment=merged,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "a null byte in its arguments"
        raise RefusedError(f"the plugin {name} cannot be run: {reason}") from None
    if ran.code is None and len(ran.output) <= _LONGEST:
        raise UnreachableError(f"the plugin {name} was not done within {timeout_s:g} s")
    return _issued(name, plugin, ran)


def _demand_allowed(entry: Entry, plugin: Exec, allowed: Sequence[str]) -> None:
    who = f"kubeconfig user {entry.user_name!r}"
    name = _shown(plugin.command)
    if plugin.command not in allowed:
        line = json.dumps([*allowed, plugin.command], ensure_ascii=False)
        raise RefusedError(
            f"{who} gets its credential from the plugin {name}, which is not allowed to run:"
            f" write exec = {redact(line)} in its section, or give it a token"
        )
    if plugin.api_version not in _VERSIONS:
        version = _shown(plugin.api_version) if plugin.api_version else "no apiVersion"
        raise RefusedError(f"the plugin {name} speaks {version}: only v1 and v1beta1 are spoken")
    if plugin.interactive_mode == "Always":
        raise RefusedError(
            f"the plugin {name} wants to ask a person (interactiveMode Always), which a halt"
            " cannot wait for: use a plugin that does not, or a token"
        )


def _program(entry: Entry, plugin: Exec, environment: Mapping[str, str]) -> str:
    if "/" in plugin.command:
        return str(entry.folder.absolute() / plugin.command)
    found = shutil.which(plugin.command, path=environment.get("PATH", os.defpath))
    # What a relative entry of PATH finds depends on the folder that killswitch runs in.
    if found is not None and Path(found).is_absolute():
        return found
    hint = f": {_one_line(plugin.install_hint)}" if plugin.install_hint else ""
    raise RefusedError(f"the plugin {_shown(plugin.command)} is not in PATH{hint}")


def _info(entry: Entry, plugin: Exec) -> str:
    spec: dict[str, object] = {"interactive": False}
    if plugin.provide_cluster_info:
        spec["cluster"] = _cluster_info(entry.cluster, entry.folder)
    info = {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": spec}
    return json.dumps(info)


def _cluster_info(cluster: Cluster, folder: Path) -> dict[str, object]:
    info: dict[str, object] = {"server": cluster.server}
    if cluster.tls_server_name:
        info["tls-server-name"] = cluster.tls_server_name
    if cluster.insecure_skip_tls_verify:
        info["insecure-skip-tls-verify"] = True
    if cluster.proxy_url:
        info["proxy-url"] = cluster.proxy_url
    if cluster.certificate_authority_data:
        info["certificate-authority-data"] = "".join(cluster.certificate_authority_data.split())
    elif cluster.certificate_authority:
        pem = read_file(folder / cluster.certificate_authority, "certificate-authority")
        info["certificate-authority-data"] = msgspec.to_builtins(pem)  # base64
    for one in cluster.extensions or ():
        if one.name == _EXTENSION:
            info["config"] = msgspec.to_builtins(one.extension)
    return info


def _issued(name: str, plugin: Exec, ran: Ran) -> Issued:
    if len(ran.output) > _LONGEST:
        raise RefusedError(f"the plugin {name} printed more than {_LONGEST >> 10} KiB")
    if ran.code != 0:
        # What it says then is not repeated: it may hold anything.
        raise RefusedError(
            f"the plugin {name} failed (exit code {ran.code}); run it by hand to see why"
        )
    try:
        answer = msgspec.json.decode(ran.output, type=_ExecCredential)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RefusedError(f"the plugin {name} printed something else than a credential") from None
    issued = answer.status
    for value in (issued.token, issued.client_key_data):
        Secret(value or "")
    if answer.api_version != plugin.api_version:
        raise RefusedError(f"the plugin {name} answered in another apiVersion than it was asked in")
    if bool(issued.client_certificate_data) is not bool(issued.client_key_data):
        raise RefusedError(f"the plugin {name} gave a client certificate without its key, or a key")
    if not issued.token and not issued.client_key_data:
        raise RefusedError(f"the plugin {name} gave neither a token nor a client certificate")
    if issued.expiration_timestamp is not None and issued.expiration_timestamp.tzinfo is None:
        raise RefusedError(f"the plugin {name} gave an expirationTimestamp without a time zone")
    return issued


def _shown(command: str) -> str:
    return repr(redact(command)[:_LONGEST_TEXT])


def _one_line(text: str) -> str:
    line = _LONG_WORD.sub(MASK, " ".join(redact(text).split()))
    # The end of it: that is where a traceback says what it was.
    return "".join(part for part in line if part.isprintable())[-_LONGEST_TEXT:]
