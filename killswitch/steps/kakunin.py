"""Take away the bots' identity: revoke every active certificate, then halt the agent."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Final, Protocol
from uuid import UUID

from killswitch.errors import VendorError
from killswitch.model import Action, Blind, Clear, Note, Plan, Receipt

# A word that is in neither set counts as live.
_STOPPED: Final = frozenset({"suspended", "retired"})
_ENDED: Final = frozenset({"revoked", "expired"})

KEYS_SURVIVE: Final = Note(
    "survives", "Kakunin API keys of the bots: no API revokes them", "console > API keys"
)
# Ended certificates stay listed, and an agent becomes active by getting one.
NOT_LISTED: Final = "kakunin lists no certificate at all, as when its own look-up fails"


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate of an agent, as Kakunin lists it."""

    id: str
    serial: str
    status: str


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent as Kakunin's own books have it; ended certificates stay listed."""

    status: str
    certificates: tuple[Certificate, ...]


@dataclass(frozen=True, slots=True)
class Tried:
    """What this run has asked for one agent: ids sent for revocation, and whether to halt it.

    `none_left` is true when the newest halt found no active certificate any more.
    """

    certificates: frozenset[str] = frozenset()
    halt: bool = False
    none_left: bool = False


class Registry(Protocol):
    """All that this step needs from Kakunin; an agent is named by its UUID."""

    def agents(self, agent_ids: tuple[str, ...]) -> Mapping[str, Agent | VendorError]:
        """Return each agent, or why it could not be seen."""

    def tried(self, agent_id: str) -> Tried:
        """Return what this run has already asked for that agent."""

    def revoke(self, agent_id: str, certificate_id: str, reason: str) -> Receipt:
        """Ask to revoke one certificate of the agent."""

    def halt(self, agent_id: str, reason: str) -> Receipt:
        """Ask to halt the agent, for a signed receipt."""

    def rehearse(self, agent_id: str) -> Receipt:
        """Show that the credential reaches the agent, without changing anything."""


@dataclass(frozen=True, slots=True)
class RevokeCertificates:
    """Every agent in `agents` ends suspended and without an active certificate.

    ValueError for an agent that is no UUID.
    """

    registry: Registry
    system: str
    agents: tuple[str, ...]
    reason: str
    name: ClassVar[str] = "kakunin"
    evidence: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for agent_id in self.agents:
            try:
                UUID(agent_id)
            except ValueError:
                raise ValueError(f"an agent's id is a UUID, not {agent_id!r}") from None

    def plan(self) -> Plan:
        """List what is live of every agent; one that cannot be seen is blind by itself."""
        seen = self.registry.agents(self.agents)
        parts = [self._look(agent_id, seen[agent_id]) for agent_id in dict.fromkeys(self.agents)]
        return Plan(
            live=tuple(action for part in parts for action in part.live),
            blind=tuple(blind for part in parts for blind in part.blind),
            clear=tuple(clear for part in parts for clear in part.clear),
            notes=(KEYS_SURVIVE,),
        )

    def _look(self, agent_id: str, agent: Agent | VendorError) -> Plan:
        target = f"agent {agent_id}"
        if isinstance(agent, VendorError):
            return Plan(blind=(Blind(target, agent.problem, lasting=agent.lasting),))
        tried = self.registry.tried(agent_id)
        perform = partial(self.registry.halt, agent_id, self.reason)
        rehearse = partial(self.registry.rehearse, agent_id)
        halt = (Action("halt", target, perform, rehearse, phase=2),)
        if not agent.certificates:
            # Each halt ends the newest certificate, also one that is not listed.
            done = agent.status in _STOPPED and tried.none_left
            return Plan(live=() if done else halt, blind=(Blind(target, NOT_LISTED),))
        live, clear = [], []
        for one in agent.certificates:
            path = f"{target}/certificate …{(one.serial or one.id)[-8:]}"
            if one.status not in _ENDED:
                perform = partial(self.registry.revoke, agent_id, one.id, self.reason)
                live.append(Action("revoke", path, perform, rehearse))
            elif one.id in tried.certificates:
                clear.append(Clear(path, one.status))
        # Revoking suspends the agent at the server, but only a halt gives the signed receipt.
        receipt_due = bool(tried.certificates) and not tried.halt
        if agent.status not in _STOPPED or receipt_due:
            return Plan(live=(*live, *halt), clear=tuple(clear))
        saw = agent.status if live else f"{agent.status}, no active certificate"
        return Plan(live=tuple(live), clear=(*clear, Clear(target, saw)))
