"""The units of a Kubernetes cluster: configuration and secrets become steps on its client."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from killswitch.config import Config
from killswitch.model import Step
from killswitch.sections import ClusterSection, KubernetesSection, SyncedSecretsSection
from killswitch.sources import Sources
from killswitch.steps.telegram import Message
from killswitch.unit import Past, Unit

if TYPE_CHECKING:
    from killswitch.clients.kubernetes import KubernetesClient


def kubernetes(config: Config, section: KubernetesSection, sources: Sources) -> Unit:
    """Return what stops the trader's pods there."""
    from killswitch.steps.kubernetes import StopTrading

    client = _cluster(config, section, grace_s=section.grace_s, selector=section.selector)
    stop = StopTrading(
        client, section.name, section.namespaces, latch=section.latched, pause=section.pause
    )
    which = f"pods with {client.selector} in " if client.selector else ""
    scope = which + _namespaces(section)
    scope += "" if section.latched else ", no quota"
    scope += f", pausing {', '.join(section.pause)}" if section.pause else ""
    return _on_cluster(client, section, stop, sources, does="stop", scope=scope)


def synced_secrets(
    config: Config, section: SyncedSecretsSection, sources: Sources, past: Past
) -> Unit:
    """Return what deletes the keys that were copied into it."""
    from killswitch.clients.kubernetes_secrets import SecretsClient
    from killswitch.steps.synced_secrets import DeleteSyncedSecrets

    client = _cluster(config, section)
    cluster = SecretsClient(client)
    step = DeleteSyncedSecrets(cluster, section.name, section.namespaces, section.secrets)
    scope = _namespaces(section)
    unit = _on_cluster(client, section, step, sources, does="unsync", scope=scope)

    def build(may_write: bool, message: Message) -> Step:
        cluster.recall(past.mentioned(step.name, section.name), section.secrets)
        return unit.build(may_write, message)

    return replace(unit, build=build)


def _namespaces(section: ClusterSection) -> str:
    return f"namespace {', '.join(section.namespaces)}"


def _cluster(
    config: Config,
    section: ClusterSection,
    *,
    grace_s: int = 1,
    selector: Mapping[str, str] | None = None,
) -> "KubernetesClient":
    from killswitch.clients.kubernetes import KubernetesClient

    kubeconfig = config.resolve(section.kubeconfig)
    if not kubeconfig.is_file():
        raise ValueError(f"there is no kubeconfig at {kubeconfig}")
    return KubernetesClient(
        kubeconfig=kubeconfig,
        context=section.context,
        cluster_uid=section.cluster_uid,
        plugins=section.exec,
        own_credential=not section.token,
        needed_s=config.halt.deadline_s,
        grace_s=grace_s,
        selector=selector,
        only_loopback=config.sandbox is not None,
    )


def _on_cluster(
    client: "KubernetesClient",
    section: ClusterSection,
    step: Step,
    sources: Sources,
    *,
    does: str,
    scope: str,
) -> Unit:
    from killswitch.steps.kubernetes_identity import Identified

    identified = Identified(step, client)

    def build(may_write: bool, _message: Message) -> Step:
        token = sources.get(section.token) if section.token else None
        client.login(may_write=may_write, token=token)
        client.identify()
        return identified

    needed = (section.token,) if section.token else ()
    return Unit(step.name, section.name, does, scope, needed, False, client.warm, build)
