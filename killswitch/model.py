"""The words of killswitch as types: frozen data, no I/O, no clock, no vendor."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

import rfc8785

VANISHED: Final = "no longer there"
"""What was seen of a target that a later look, which saw everything, did not find any more."""

ORDER_DOMAIN: Final = b"killswitch/order/v1\n"


class Mode(StrEnum):
    """What an order authorises; it is part of what the security key signs."""

    LIVE = "live"
    DRILL = "drill"
    RELEASE = "release"
    KEYS = "keys"  # a change of who may halt, or of what the keys open
    LOOK = "look"  # to see with the halt's own credentials what is live


class Outcome(StrEnum):
    """What became of a target or a step; a step is as bad as its worst target."""

    FAILED = "failed"
    UNKNOWN = "unknown"
    SENT = "sent"
    SKIPPED = "skipped"
    REHEARSED = "rehearsed"
    VERIFIED = "verified"
    ALREADY = "already"

    @property
    def ended(self) -> bool:
        """True when it was read back, twice, that nothing is live."""
        return self in {Outcome.VERIFIED, Outcome.ALREADY}

    @property
    def good(self) -> bool:
        """True when nothing is left to mend: ended, or rehearsed without a fault."""
        return self.ended or self is Outcome.REHEARSED


def worst(outcomes: list[Outcome]) -> Outcome:
    """Return the worst of `outcomes`; none at all is unknown."""
    order = list(Outcome)
    return min(outcomes, key=order.index, default=Outcome.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Order:
    """One order, exactly as the security key signs it.

    `issued_at` is RFC 3339 UTC. `journal_head` is the hex hash of the newest event, so a touch
    notarises everything before it. `bundle_sha256` is the hash of the sealed secrets that the
    touch opens, "" when there are none. `nonce` is 16 random bytes in hex.
    """

    id: str
    mode: Mode
    issued_at: str
    reason: str
    trigger_value: str
    incident: str
    scope: tuple[str, ...]
    config_sha256: str
    journal_size: int
    journal_head: str
    bundle_sha256: str
    nonce: str

    def to_bytes(self) -> bytes:
        """Return the RFC 8785 form; stored verbatim, never serialised again."""
        fields = asdict(self)
        return rfc8785.dumps({**fields, "mode": self.mode.value, "scope": list(self.scope)})

    def challenge(self) -> bytes:
        """Return the 32 bytes that the security key signs (as WebAuthn challenge)."""
        return hashlib.sha256(ORDER_DOMAIN + self.to_bytes()).digest()


@dataclass(frozen=True, slots=True)
class Proof:
    """A WebAuthn assertion over an order's challenge, with whose key it was.

    `counter_regressed` is true when the key's signature counter did not grow.
    """

    credential_id: bytes
    client_data_json: bytes
    authenticator_data: bytes
    signature: bytes
    key_label: str
    operator: str
    user_verified: bool
    counter: int
    flags: int
    counter_regressed: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a system answered to one action: a claim, not yet evidence.

    `evidence` holds what is worth keeping (ids, codes, signatures), never a secret.
    """

    summary: str
    evidence: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Action:
    """Something live, and how to end it; inert until the engine calls it.

    `target` is a path from large to small, ``"sub 1234/key …f3Qa"``: a blind part of the same
    path hides it. `amount` counts what is live in it, so that a shrinking number is progress.
    `withheld` says why a policy keeps the engine from performing it now; it still counts as live.
    """

    verb: str
    target: str
    perform: Callable[[], Receipt] = field(compare=False, repr=False)
    rehearse: Callable[[], Receipt] = field(compare=False, repr=False)
    phase: int = 1
    amount: int = 1
    reversible: bool = False
    withheld: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What tells this action from every other one of its step."""
        return (self.target, self.verb)


@dataclass(frozen=True, slots=True)
class Blind:
    """A part of the system that a look could not see; it hides every target below its path.

    What the same look saw live stays live, below it or under the same name. `lasting` is true
    when looking again in a moment cannot help.
    """

    target: str
    reason: str
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class Clear:
    """A target that a look saw to be ended, and what was seen.

    `only_if_known` marks an absence that proves nothing by itself (a 404 may be a typo): it
    counts only for a target that was seen live before, in this run or an earlier one.
    """

    target: str
    saw: str
    only_if_known: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """Something true that is not ours to end: said in every report, with what to do about it."""

    kind: str
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one look at a system saw: what is live, what could not be seen, what has ended."""

    live: tuple[Action, ...] = ()
    blind: tuple[Blind, ...] = ()
    clear: tuple[Clear, ...] = ()
    notes: tuple[Note, ...] = ()


class Step(Protocol):
    """One independent system, and the one question that can be asked of it.

    An implementation is a frozen dataclass in `killswitch/steps/`.
    """

    @property
    def name(self) -> str:
        """The kind of system, as in the configuration: "bybit"."""
        ...

    @property
    def system(self) -> str:
        """Which one of its kind, as named in the configuration: "main-desk"."""
        ...

    @property
    def evidence(self) -> bool:
        """True for a step that tells or records: it does not decide whether trading is halted."""
        ...

    def plan(self) -> Plan:
        """Look, without changing anything; raises VendorError when nothing could be seen."""
        ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """One performed or rehearsed action. Times are seconds since the order was carried out."""

    verb: str
    started_s: float
    ended_s: float
    summary: str = ""
    error: str = ""
    evidence: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TargetResult:
    """What became of one target: its outcome, what was seen last, and all that was tried."""

    target: str
    outcome: Outcome
    saw: str
    live: bool
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class StepResult:
    """What became of one step. Times are seconds since the order was carried out.

    `verified_s` is when the newest unbroken row of clean looks began, None while not clean.
    """

    step: str
    system: str
    evidence: bool
    outcome: Outcome
    targets: tuple[TargetResult, ...]
    error: str
    notes: tuple[Note, ...]
    looks: int
    started_s: float
    ended_s: float
    verified_s: float | None

    @property
    def left_live(self) -> tuple[TargetResult, ...]:
        """The targets that were live when last seen."""
        return tuple(target for target in self.targets if target.live)


@dataclass(frozen=True, slots=True)
class HaltReport:
    """Everything that one order did, as data; rendered as text, JSON or an event.

    `halted` is true only if every containment step was read back as ended, twice.
    `degraded` says what is missing from the evidence. `verified_s` is when the last step was
    first read back clean, or None.
    """

    order: Order
    proof: Proof | None
    results: tuple[StepResult, ...]
    halted: bool
    degraded: tuple[str, ...]
    started_at: datetime
    verified_s: float | None
    elapsed_s: float

    @property
    def passed(self) -> bool:
        """True for a drill that rehearsed some action, in which all went well and is on record."""
        systems = [result for result in self.results if not result.evidence]
        good = all(result.outcome.good for result in self.results)
        rehearsed = any(result.outcome is Outcome.REHEARSED for result in systems)
        return self.order.mode is Mode.DRILL and good and rehearsed and not self.degraded

    @property
    def not_done(self) -> tuple[Note, ...]:
        """What is true and was not ours to end, without repeats."""
        notes = [note for result in self.results for note in result.notes]
        return tuple(dict.fromkeys(notes))
