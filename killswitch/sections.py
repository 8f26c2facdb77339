"""The tables of `killswitch.toml` as types: every field is a key, every default is here."""

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec

_BYBIT_HOSTS: Final = {
    "mainnet": "https://api.bybit.com",
    "testnet": "https://api-testnet.bybit.com",
}


# Neither nan nor inf passes: a halt whose deadline never comes, or has passed, is no halt.
Bound = Annotated[float, msgspec.Meta(gt=0, le=3600)]
Pause = Annotated[float, msgspec.Meta(ge=0, le=3600)]

# As Kubernetes takes them: another name or label would match no pod at all.
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL: Final = re.compile(r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?")
_LABEL_KEY: Final = re.compile(rf"([a-z0-9]([-.a-z0-9]{{0,251}}[a-z0-9])?/)?{_LABEL.pattern}")


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A table of the file; every field is a key."""


class ClusterSection(Section, frozen=True, kw_only=True):
    """One cluster, and the namespaces that hold the trader.

    `token` is where the credential comes from when the kubeconfig holds none. `exec` names the
    credential plugins that the kubeconfig may run. `cluster_uid` pins the cluster.
    """

    name: str
    kubeconfig: str
    context: str
    token: str = ""
    exec: tuple[str, ...] = ()
    cluster_uid: str = ""
    namespaces: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.namespaces:
            raise ValueError("`namespaces` names none")
        if not all(map(_NAME.fullmatch, self.namespaces)):
            raise ValueError("`namespaces` has a name that Kubernetes does not take")


class KubernetesSection(ClusterSection, frozen=True, kw_only=True):
    """`[[kubernetes]]`: where the trader runs.

    `selector` chooses pods by their labels; without it the namespaces hold nothing else. `latch`
    is whether a quota keeps every pod out of them, by default only without a selector. `pause`
    names the reconcilers that may be paused.
    """

    selector: dict[str, str] = {}
    latch: bool | None = None
    pause: tuple[Literal["argocd", "flux", "keda"], ...] = ()
    grace_s: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        keys, values = self.selector.keys(), self.selector.values()
        if not (all(map(_LABEL_KEY.fullmatch, keys)) and all(map(_LABEL.fullmatch, values))):
            raise ValueError("`selector` has a label that Kubernetes does not take")

    @property
    def latched(self) -> bool:
        """Whether a quota keeps pods out."""
        return not self.selector if self.latch is None else self.latch


class SyncedSecretsSection(ClusterSection, frozen=True, kw_only=True):
    """`[[synced_secrets]]`: the namespaces of one cluster that External Secrets copies keys into.

    `secrets` are those to delete, each "namespace/name"; what External Secrets names besides is
    found by itself.
    """

    secrets: tuple[str, ...] = ()


class HeldKey(Section, frozen=True, kw_only=True):
    """`[[bybit.held]]`: a key of a sub account that only killswitch holds, to cancel orders."""

    sub: str
    api_key: str
    api_secret: str


class BybitSection(Section, frozen=True, kw_only=True):
    """`[[bybit]]`: one master credential; `account` is the user id that it must belong to."""

    name: str
    account: str = ""
    api_key: str
    api_secret: str
    environment: Literal["mainnet", "testnet"] = "mainnet"
    endpoint: str = ""
    orders: Literal["entries", "all"] = "entries"
    held: tuple[HeldKey, ...] = ()
    ca_file: str = ""

    @property
    def url(self) -> str:
        """Where the API answers."""
        return self.endpoint or _BYBIT_HOSTS[self.environment]


class KakuninSection(Section, frozen=True, kw_only=True):
    """`[[kakunin]]`: one tenant key and the agents to halt with it."""

    name: str
    api_key: str
    agents: tuple[str, ...]
    base_url: str = "https://www.kakunin.ai/api/v1"
    reason: Literal[
        "kill_switch_activated",
        "risk_threshold_exceeded",
        "regulatory_order",
        "operator_initiated",
    ] = "kill_switch_activated"
    ca_file: str = ""


class VaultSection(Section, frozen=True, kw_only=True):
    """`[[vault]]`: one Vault, what to wipe in it, and who to cut off before.

    `paths` begin with their mount's name, `mounts` go whole. `roles`, and what was issued under
    `revoke_prefixes`, end before the wipe.
    """

    name: str
    address: str
    token: str
    paths: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    revoke_prefixes: tuple[str, ...] = ()
    revoke_own_token: bool = False
    namespace: str = ""
    ca_file: str = ""


class TelegramSection(Section, frozen=True, kw_only=True):
    """`[[telegram]]`: one chat to tell."""

    name: str
    token: str
    chat_id: str
    thread_id: int | None = None
    base_url: str = "https://api.telegram.org/bot"


SystemSection = (
    KubernetesSection
    | SyncedSecretsSection
    | BybitSection
    | KakuninSection
    | VaultSection
    | TelegramSection
)
SYSTEMS: Final[Mapping[str, type[SystemSection]]] = {
    "kubernetes": KubernetesSection,
    "synced_secrets": SyncedSecretsSection,
    "bybit": BybitSection,
    "kakunin": KakuninSection,
    "vault": VaultSection,
    "telegram": TelegramSection,
}


class KeysSection(Section, frozen=True, kw_only=True):
    """`[keys]`: the name that the security keys are enrolled for, the file that lists them, policy.

    `require_pin` names the acts that need the key's PIN. `attestation` says which makes of key may
    be enrolled, `attestation_roots` the files with the makers' root certificates (PEM).
    """

    rp_id: str = "killswitch.internal"
    file: str = "keys.json"
    require_pin: tuple[Literal["halt", "drill", "release", "keys"], ...] = ("release", "keys")
    release_by_another: bool = False
    attestation: Literal["any", "attested", "aaguid-list"] = "any"
    attestation_roots: tuple[str, ...] = ()
    aaguids: tuple[str, ...] = ()


class SecretsSection(Section, frozen=True, kw_only=True):
    """`[secrets]`: the file with the credentials that are sealed to the security keys."""

    file: str = "secrets.json"


class JournalSection(Section, frozen=True, kw_only=True):
    """`[journal]`: where the evidence goes; empty means the user's state folder."""

    file: str = ""
    fallback: str = ""


class HaltSection(Section, frozen=True, kw_only=True):
    """`[halt]`: bounds, in seconds."""

    deadline_s: Bound = 60.0
    stay_down_s: Pause = 5.0
    patience_s: Pause = 15.0
    touch_timeout_s: Bound = 60.0


class DrillSection(Section, frozen=True, kw_only=True):
    """`[drill]`: how often a drill is due."""

    every_days: Annotated[int, msgspec.Meta(ge=1, le=3660)] = 90


class SandboxSection(Section, frozen=True, kw_only=True):
    """`[sandbox]`: written by `killswitch sandbox`; the touch comes from a software key.

    `spare_keys` are plugged in as well: to enrol, and to try several keys with.
    """

    software_key: str
    spare_keys: tuple[str, ...] = ()


class File(Section, frozen=True, kw_only=True):
    """The whole file."""

    name: str = "unnamed"
    keys: KeysSection = KeysSection()
    secrets: SecretsSection = SecretsSection()
    journal: JournalSection = JournalSection()
    halt: HaltSection = HaltSection()
    drill: DrillSection = DrillSection()
    sandbox: SandboxSection | None = None
    kubernetes: tuple[KubernetesSection, ...] = ()
    synced_secrets: tuple[SyncedSecretsSection, ...] = ()
    bybit: tuple[BybitSection, ...] = ()
    kakunin: tuple[KakuninSection, ...] = ()
    vault: tuple[VaultSection, ...] = ()
    telegram: tuple[TelegramSection, ...] = ()
