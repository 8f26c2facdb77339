"""The sandbox's promise: it reaches no other machine than this one."""

from collections.abc import Iterable
from typing import assert_never

from killswitch.address import host_of, is_loopback
from killswitch.config import Config, System
from killswitch.errors import ConfigError
from killswitch.sections import (
    BybitSection,
    KakuninSection,
    KubernetesSection,
    SyncedSecretsSection,
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
            host = _host(system, address)
            if not is_loopback(host):
                raise ConfigError(
                    f"the sandbox may only reach this machine, and {system.kind} "
                    f"{system.name} is at {host or 'no host'}",
                    hint="use a configuration without [sandbox] for real systems",
                )


def _host(system: System, address: str) -> str:
    try:
        return host_of(address)
    except ValueError as error:
        raise ConfigError(f"the address of {system.kind} {system.name}: {error}") from None


def _addresses(section: SystemSection | None) -> Iterable[str]:
    match section:
        case None:
            return ()
        case KubernetesSection() | SyncedSecretsSection():
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
