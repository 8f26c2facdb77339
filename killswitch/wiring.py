"""The composition root: configuration and secrets become steps with real clients.

Nothing here fails for all: a section that cannot be built becomes a unit whose step says why.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

from killswitch import cluster_units
from killswitch.config import Config, System
from killswitch.errors import ConfigError, RefusedError
from killswitch.loopback import demand_loopback
from killswitch.model import Step
from killswitch.secret import Secret
from killswitch.sections import (
    BybitSection,
    KakuninSection,
    KubernetesSection,
    SyncedSecretsSection,
    SystemSection,
    TelegramSection,
    VaultSection,
)
from killswitch.sources import Sources, check_source
from killswitch.steps.telegram import Message
from killswitch.unit import NO_PAST, Past, Unit


def units(config: Config, sources: Sources, past: Past = NO_PAST) -> tuple[Unit, ...]:
    """Return a unit for every configured system, in the order of the file's kinds.

    `past` is asked when a step is built, after the touch.

    Raises:
        ConfigError: a sandbox configuration names a host that is not loopback.
    """
    if config.sandbox is not None:
        demand_loopback(config)
    return tuple(_unit(config, system, sources, past) for system in config.systems)


def _unit(config: Config, system: System, sources: Sources, past: Past) -> Unit:
    if system.section is None:
        return _broken(system, system.problem)
    try:
        unit = _whole(config, system.section, sources, past)
        for source in unit.sources:
            check_source(source)
        return _loading_first(unit)
    except (ValueError, ImportError, OSError, ConfigError) as error:
        return _broken(system, str(error))


def _loading_first(unit: Unit) -> Unit:
    """Return the unit with its vendor imported before anything else of it happens."""
    from killswitch.clients.loading import load

    def warm() -> str:
        load(unit.kind)
        return unit.warm()

    def build(may_write: bool, message: Message) -> Step:
        load(unit.kind)
        return unit.build(may_write, message)

    return replace(unit, warm=warm, build=build)


def _whole(config: Config, section: SystemSection, sources: Sources, past: Past) -> Unit:
    match section:
        case KubernetesSection():
            return cluster_units.kubernetes(config, section, sources)
        case SyncedSecretsSection():
            return cluster_units.synced_secrets(config, section, sources, past)
        case BybitSection():
            return _bybit(config, section, sources, past)
        case KakuninSection():
            return _kakunin(config, section, sources)
        case VaultSection():
            return _vault(config, section, sources, past)
        case TelegramSection():
            return _telegram(section, sources)
        case _:
            assert_never(section)


def _broken(system: System, problem: str) -> Unit:
    def refuse(*_: object) -> Step:
        raise RefusedError(f"configuration: {problem}")

    def warm() -> str:
        raise RefusedError(f"configuration: {problem}")

    return Unit(
        kind=system.kind,
        system=system.name,
        does="cannot",
        scope="",
        sources=(),
        evidence=system.kind == "telegram",
        warm=warm,
        build=refuse,
        problem=problem,
    )


def _bybit(config: Config, section: BybitSection, sources: Sources, past: Past) -> Unit:
    from killswitch.clients.bybit import BybitClient
    from killswitch.clients.bybit_credential import Credential
    from killswitch.steps.bybit import RevokeKeys

    client = BybitClient(
        endpoint=section.url,
        steady_s=min(1.0, config.halt.stay_down_s),
        ca_file=_ca(config, section.ca_file),
    )

    def credential(api_key: str, api_secret: str) -> Credential:
        return Credential(api_key=sources.get(api_key), api_secret=sources.get(api_secret))

    def build(may_write: bool, _message: Message) -> Step:
        own = credential(section.api_key, section.api_secret)
        held = {key.sub: credential(key.api_key, key.api_secret) for key in section.held}
        held_keys = {uid: key.api_key for uid, key in held.items()}
        client.login(
            own=own,
            held=held,
            may_write=may_write,
            account=section.account,
            spent=_spent(held_keys, past.ended("bybit", section.name)),
        )
        return RevokeKeys(client, section.name, section.orders)

    needed = [section.api_key, section.api_secret]
    for key in section.held:
        needed += [key.api_key, key.api_secret]
    scope = "keys, open orders, own key last"
    return Unit("bybit", section.name, "revoke", scope, tuple(needed), False, client.warm, build)


def _spent(held: Mapping[str, Secret], ended: frozenset[str]) -> set[str]:
    """Return the sub accounts whose held key an earlier halt deleted, with no order left there.

    Evidence only while the own key still lists that account's keys: see the Bybit client.
    """

    def deleted(uid: str, key: Secret) -> bool:
        prefix = f"sub {uid}/key …"
        labels = (target.removeprefix(prefix) for target in ended if target.startswith(prefix))
        return any(label and key.reveal().endswith(label) for label in labels)

    return {uid for uid, key in held.items() if f"sub {uid}/orders" in ended and deleted(uid, key)}


def _kakunin(config: Config, section: KakuninSection, sources: Sources) -> Unit:
    from killswitch.clients.kakunin import KakuninClient
    from killswitch.steps.kakunin import RevokeCertificates

    client = KakuninClient(base_url=section.base_url, ca_file=_ca(config, section.ca_file))

    step = RevokeCertificates(client, section.name, section.agents, section.reason)

    def build(may_write: bool, _message: Message) -> Step:
        client.login(api_key=sources.get(section.api_key), may_write=may_write)
        return step

    count = len(section.agents)
    scope = f"certificates of {count} agent{'s' if count != 1 else ''}"
    needed = (section.api_key,)
    return Unit("kakunin", section.name, "revoke", scope, needed, False, client.warm, build)


def _vault(config: Config, section: VaultSection, sources: Sources, past: Past) -> Unit:
    from killswitch.clients.vault import VaultClient
    from killswitch.steps.vault import WipeSecrets, mounts_named

    client = VaultClient(
        address=section.address,
        namespace=section.namespace or None,
        ca_file=_ca(config, section.ca_file),
    )
    step = WipeSecrets(
        client,
        section.name,
        paths=section.paths,
        mounts=section.mounts,
        roles=section.roles,
        revoke_prefixes=section.revoke_prefixes,
        revoke_own_token=section.revoke_own_token,
    )

    def build(may_write: bool, _message: Message) -> Step:
        told, over = past.tried("vault", section.name), past.ended("vault", section.name)
        client.login(
            token=sources.get(section.token),
            may_write=may_write,
            begun=mounts_named(told),
            ended=mounts_named(over),
            seen=told | over,
        )
        return step

    cut = (*section.roles, *section.revoke_prefixes)
    own = ("own token last",) if section.revoke_own_token else ()
    whole = tuple(f"{mount} (whole mount)" for mount in section.mounts)
    scope = ", ".join((*cut, *whole, *section.paths, *own))
    needed = (section.token,)
    return Unit("vault", section.name, "wipe", scope, needed, False, client.warm, build)


def _telegram(section: TelegramSection, sources: Sources) -> Unit:
    from killswitch.clients.telegram import TelegramClient
    from killswitch.steps.telegram import SendAlert

    client = TelegramClient(
        chat_id=section.chat_id, thread_id=section.thread_id, base_url=section.base_url
    )

    def build(may_write: bool, message: Message) -> Step:
        client.login(token=sources.get(section.token), may_write=may_write)
        return SendAlert(client, section.name, message)

    needed = (section.token,)
    return Unit("telegram", section.name, "tell", "", needed, True, client.warm, build)


def _ca(config: Config, ca_file: str) -> str | None:
    return str(config.resolve(ca_file)) if ca_file else None
