"""The sandbox's promise: it reaches no other machine than this one."""

import ipaddress
from collections.abc import Iterable
from typing import assert_never
from urllib.parse import urlsplit

from killswitch.config import Config
from killswitch.errors import ConfigError
from killswitch.sections import (
    BybitSection,
    KakuninSection,
    KubernetesSection,
    SystemSection,
    TelegramSection,
    VaultSection,
)


def demand_loopback(config: Config) -> None:
    """Refuse a configuration in which a system is on another machine.

    Raises:
        ConfigError: names the first one that is.
    """
    for system in config.systems:
        for address in _addresses(system.section):
            if not _is_loopback(urlsplit(address).hostname or ""):
                raise ConfigError(
                    f"the sandbox may only reach this machine, and {system.kind} "
                    f"{system.name} is at {urlsplit(address).hostname}",
                    hint="use a configuration without [sandbox] for real systems",
                )


def _addresses(section: SystemSection | None) -> Iterable[str]:
    match section:
        case None:
            return ()
        case KubernetesSection():
            return ()  # the address stands in the kubeconfig; its client checks it
        case BybitSection():
            return (section.url,)
        case KakuninSection():
            return (section.base_url,)
        case VaultSection():
            return (section.address,)
        case TelegramSection():
            return (section.base_url,)
        case _:
            assert_never(section)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
