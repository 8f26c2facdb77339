"""The sealed secrets of a configuration: read before the touch, and doubted aloud."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from killswitch.authority.bundle import Bundle
from killswitch.authority.ring import KeyRing
from killswitch.authority.sealing import Recipient
from killswitch.config import Config
from killswitch.errors import KillswitchError
from killswitch.journal.history import History
from killswitch.sources import sealed_names


@dataclass(frozen=True, slots=True)
class Sealed:
    """The bundle as it was found; `problem` says why it could not be read, and it is empty then."""

    bundle: Bundle
    problem: str = ""

    def doubts(
        self, sources: Iterable[str], config: Config, ring: KeyRing, past: History
    ) -> list[str]:
        """Return what is wrong with the bundle, as far as can be seen without a touch."""
        if self.problem:
            return [self.problem]
        return [
            *_substituted(self.bundle, past),
            *_missing(self.bundle, sealed_names(sources)),
            *_not_ours(self.bundle, recipients_of(config, ring)),
            *_opens_nothing(self.bundle, config, ring),
        ]


def find_sealed(config: Config) -> Sealed:
    """Read the bundle that the configuration names; a damaged one costs only what is in it."""
    try:
        return Sealed(Bundle.load(config.bundle_file))
    except KillswitchError as error:
        return Sealed(Bundle(), error.problem)


def recipients_of(config: Config, ring: KeyRing) -> tuple[Recipient, ...]:
    """Return what a secret is to be sealed to: where a halt needs the PIN, only to keys with it."""
    return ring.recipients(uv_only=_only_with_pin(config))


def _only_with_pin(config: Config) -> bool:
    return "halt" in config.keys.require_pin


def _substituted(bundle: Bundle, past: History) -> list[str]:
    known = past.bundle_sha256()
    if known is None or known == bundle.sha256:
        return []
    if not bundle.sha256:
        return ["the file of the sealed secrets is gone"]
    return ["the sealed secrets are not those that the journal knows: another or an older file"]


def _missing(bundle: Bundle, names: Sequence[str]) -> list[str]:
    missing = [f"sealed:{name}" for name in names if name not in bundle.names]
    return [f"never set: {', '.join(missing)}"] if missing else []


def _not_ours(bundle: Bundle, recipients: Sequence[Recipient]) -> list[str]:
    found = []
    strangers = bundle.strangers(recipients)
    if strangers:
        found.append(f"sealed to somebody who is not enrolled: {', '.join(strangers)}")
    closed = bundle.not_for(recipients)
    if closed:
        found.append(f"not every enrolled key opens: {', '.join(closed)}")
    return found


def _opens_nothing(bundle: Bundle, config: Config, ring: KeyRing) -> list[str]:
    if not bundle.entries:
        return []
    useless = [
        f'"{key.label}"'
        for key in ring.keys
        if not any(one.uv or not _only_with_pin(config) for one in key.recipients)
    ]
    why = "its PIN was not set when it was enrolled" if _only_with_pin(config) else "enrol it anew"
    return [f"opened by no touch of {', '.join(useless)}: {why}"] if useless else []
