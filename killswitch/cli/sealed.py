"""The sealed secrets of a configuration: read before the touch, doubted aloud, changed as one."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from killswitch.authority.bundle import Bundle
from killswitch.authority.files import locked
from killswitch.authority.ring import KeyRing
from killswitch.authority.sealing import Recipient
from killswitch.cli.record import demand_admitted, record
from killswitch.cli.session import Session
from killswitch.config import Config
from killswitch.errors import ConfigError, KillswitchError
from killswitch.journal.history import History
from killswitch.journal.store import Journal
from killswitch.sources import sealed_names

UNCHANGED = "the sealed secrets are unchanged"
_LOCK_WAIT_S = 10.0
_SET = "killswitch secrets set NAME"
_RESEAL = "killswitch secrets reseal"
_WHOSE = (
    "restore the file from a copy, or set the secrets anew; if the change was yours: " + _RESEAL
)


@dataclass(frozen=True, slots=True)
class Doubt:
    """What is wrong with the sealed secrets; `foreign` when the file is not the known one."""

    problem: str
    mend: str
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class Sealed:
    """The bundle as it was found; `problem` says why it could not be read, and it is empty then."""

    bundle: Bundle
    problem: str = ""

    def doubts(
        self, sources: Iterable[str], config: Config, ring: KeyRing, past: History
    ) -> list[Doubt]:
        """Return what is wrong with the bundle, as far as can be seen without a touch."""
        if self.problem:
            return [Doubt(self.problem, _WHOSE, foreign=True)]
        return [
            *_substituted(self.bundle, past),
            *_missing(self.bundle, sealed_names(sources)),
            *_not_ours(self.bundle, ring, recipients_of(config, ring)),
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


def change_bundle(
    session: Session,
    config: Config,
    change: Callable[[Bundle, tuple[Recipient, ...]], Bundle],
    kind: str,
    event_id: str,
    data: Mapping[str, object],
    *,
    accept_foreign: bool = False,
) -> Bundle:
    """Change the bundle and write its hash down, as one step between processes.

    `change` is given the bundle as it is now, and the recipients of the ring as it is now, which
    the journal must have admitted. A file that is not the one that the journal knows is refused,
    unless a person has said that it is good: `accept_foreign`. Raises KillswitchError.
    """
    with locked(config.bundle_file, wait_s=_LOCK_WAIT_S):
        ring = KeyRing.load(config.key_file)
        demand_admitted(config, ring, effect=UNCHANGED)
        before = Bundle.load(config.bundle_file)
        past = History(Journal(config.journal_file).events())
        if (doubts := _substituted(before, past)) and not accept_foreign:
            problem = f"the sealed secrets: {doubts[0].problem}"
            raise ConfigError(problem, effect=UNCHANGED, hint=doubts[0].mend)
        recipients = recipients_of(config, ring)
        if not recipients:
            raise ConfigError(
                "no enrolled key opens secrets in the way that [keys] require_pin asks for",
                effect=UNCHANGED,
                hint="set a PIN on each key, then: keys remove, keys enroll",
            )
        bundle = change(before, recipients)
        bundle.save(config.bundle_file)
        record(session, config, kind, event_id, {**data, "bundle_sha256": bundle.sha256})
    return bundle


def _only_with_pin(config: Config) -> bool:
    return "halt" in config.keys.require_pin


def _substituted(bundle: Bundle, past: History) -> list[Doubt]:
    known = past.bundle_sha256()
    if known is None or known == bundle.sha256:
        return []
    if not bundle.sha256:
        return [Doubt("the file is gone", _WHOSE, foreign=True)]
    what = "not those that the journal knows: another or an older file"
    return [Doubt(what, _WHOSE, foreign=True)]


def _missing(bundle: Bundle, names: Sequence[str]) -> list[Doubt]:
    missing = [f"sealed:{name}" for name in names if name not in bundle.names]
    return [Doubt(f"never set: {', '.join(missing)}", _SET)] if missing else []


def _not_ours(bundle: Bundle, ring: KeyRing, recipients: Sequence[Recipient]) -> list[Doubt]:
    found = []
    strangers = bundle.strangers(ring.recipients())
    if strangers:
        who = f"sealed to somebody who is not enrolled: {', '.join(strangers)}"
        found.append(Doubt(who, _RESEAL))
    elif bundle.strangers(recipients):
        found.append(Doubt("a touch without PIN opens some, and a halt needs the PIN", _RESEAL))
    closed = bundle.not_for(recipients)
    if closed:
        found.append(Doubt(f"not every enrolled key opens: {', '.join(closed)}", _RESEAL))
    return found


def _opens_nothing(bundle: Bundle, config: Config, ring: KeyRing) -> list[Doubt]:
    if not bundle.entries:
        return []
    useless = [
        f'"{key.label}"'
        for key in ring.keys
        if not any(one.uv or not _only_with_pin(config) for one in key.recipients)
    ]
    why = " (its PIN was not set when it was enrolled)" if _only_with_pin(config) else ""
    mend = "killswitch keys remove LABEL, then enrol it anew"
    return [Doubt(f"opened by no touch of {', '.join(useless)}{why}", mend)] if useless else []
