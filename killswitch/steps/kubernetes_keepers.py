"""Who may ask for pods again after a halt, and what suspends it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Tool(StrEnum):
    """What may set back what a halt has set; the first four can be paused."""

    ARGOCD = "Argo CD application"
    KUSTOMIZATION = "Flux Kustomization"
    HELMRELEASE = "Flux HelmRelease"
    KEDA = "KEDA ScaledObject"
    HPA = "HorizontalPodAutoscaler"
    HELM = "Helm release"
    K3S = "k3s AddOn"
    OWNER = "owner"
    INSTANCE = "the Argo CD application or Helm release, if it is one,"
    OTHER = "manager"


_SUSPEND: Final = (
    '--type merge --field-manager killswitch --patch \'{{"spec":{{"suspend":true}}}}\''
)
_BY_HAND: Final = {
    Tool.ARGOCD: "{at} annotate application {name} argocd.argoproj.io/skip-reconcile=true",
    Tool.KUSTOMIZATION: "{at} patch kustomization.kustomize.toolkit.fluxcd.io {name} " + _SUSPEND,
    Tool.HELMRELEASE: "{at} patch helmrelease.helm.toolkit.fluxcd.io {name} " + _SUSPEND,
    Tool.KEDA: "{at} annotate scaledobject {name} autoscaling.keda.sh/paused-replicas=0",
    Tool.HPA: "nothing to suspend: it leaves alone what asks for no pod",
    Tool.HELM: "do not upgrade it or roll it back",
    Tool.K3S: "take its file out of the manifests folder of every k3s server",
    Tool.OWNER: "suspend it: {at} edit {kind} {owner}",
    Tool.INSTANCE: "look who deploys it: an Argo CD application or a Helm release of that name",
    Tool.OTHER: "tell it to leave these alone",
}


@dataclass(frozen=True, slots=True)
class Keeper:
    """One object that may ask for pods again; an owner's `name` begins with its kind."""

    tool: Tool
    name: str
    namespace: str = ""

    def __str__(self) -> str:
        name = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return name if self.tool is Tool.OWNER else f"{self.tool} {name}"


@dataclass(frozen=True, slots=True)
class Reconciler:
    """A keeper as the cluster shows it: what it scales, "Deployment bot", and its own keepers."""

    keeper: Keeper
    paused: bool = False
    scales: str = ""
    keepers: tuple[Keeper, ...] = ()


def suspend(keeper: Keeper, namespace: str) -> str:
    """Return what suspends `keeper` by hand; `namespace` is where its pods are."""
    kind, _, owner = keeper.name.partition(" ")
    at = f"kubectl --namespace {keeper.namespace or namespace}"
    return _BY_HAND[keeper.tool].format(at=at, name=keeper.name, kind=kind.lower(), owner=owner)
