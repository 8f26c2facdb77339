"""Taking the touch: what the operator reads while a security key blinks."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from killswitch.answer import mode_word
from killswitch.authority.ring import SANDBOX_RP_ID, KeyRing
from killswitch.cli.devices import find_devices
from killswitch.cli.session import Session
from killswitch.cli.terminal import Terminal
from killswitch.config import Config
from killswitch.errors import NOTHING_DONE, AbortedError, NotAuthorizedError
from killswitch.model import Mode, Order, Proof

if TYPE_CHECKING:
    from killswitch.authority.bundle import Bundle
    from killswitch.authority.touch import TouchState
    from killswitch.authority.unsealing import Unsealed

_GRACE_S: Final = 0.5


_ACTS: Final[Mapping[Mode, str]] = {
    Mode.LIVE: "halt",
    Mode.DRILL: "drill",
    Mode.LOOK: "drill",
    Mode.RELEASE: "release",
    Mode.KEYS: "keys",
}
"""What a mode is called in `[keys] require_pin`."""
_WORDS: Final[Mapping[Mode, str]] = {**_ACTS, Mode.KEYS: "change keys", Mode.LOOK: "look"}


@dataclass(frozen=True, slots=True)
class Authority:
    """What one touch gave: the proof for its order, and the secrets that it opened."""

    proof: Proof
    unsealed: "Unsealed"


def take_touch(
    session: Session,
    config: Config,
    order: Order,
    ring: KeyRing,
    *,
    bundle: "Bundle | None" = None,
    timeout_s: float | None = None,
    yes: bool = False,
    on_touched: Callable[[], object] = lambda: None,
    effect: str = NOTHING_DONE,
    keep_identity: bool = False,
) -> Authority:
    """Return what an enrolled key gave that was touched on this very order.

    The same touch opens what of `bundle` is sealed to that key; with `keep_identity` it can be
    sealed anew. `on_touched` is called the moment a key was touched, before anything is checked.
    `effect` is what an error says that was changed by it.

    Raises:
        NotAuthorizedError: nobody touched, or what was signed does not fit.
        AbortedError: Ctrl-C.
    """
    try:
        return _touch(
            session, config, order, ring, bundle, timeout_s, on_touched, yes=yes, keep=keep_identity
        )
    except (NotAuthorizedError, AbortedError) as error:
        error.effect = effect
        raise


def _touch(
    session: Session,
    config: Config,
    order: Order,
    ring: KeyRing,
    bundle: "Bundle | None",
    timeout_s: float | None,
    on_touched: Callable[[], object],
    *,
    yes: bool,
    keep: bool,
) -> Authority:
    from killswitch.authority.bundle import Bundle
    from killswitch.authority.proof import verify
    from killswitch.authority.touch import ask_for_touch
    from killswitch.authority.unsealing import unseal
    from killswitch.cli.pin_prompt import pin_policy

    sandbox = config.sandbox is not None
    word = mode_word(order.mode, sandbox=sandbox)
    found = find_devices(config, yes=yes, no_input=session.no_input)
    allowed = tuple(key for key in ring.keys if key.may(order.mode.value))
    if ring.keys and not allowed:
        raise NotAuthorizedError(
            f"no enrolled key may {_WORDS[order.mode]}",
            hint="see the roles: killswitch keys list",
        )
    pin = pin_policy(session, required=pin_required(config, order.mode))
    touched = ask_for_touch(
        challenge=order.challenge(),
        keys=allowed,
        rp_id=SANDBOX_RP_ID if sandbox else config.keys.rp_id,
        devices=found.devices,
        timeout_s=timeout_s or config.halt.touch_timeout_s,
        cancel=threading.Event(),
        on_state=Prompt(session.terminal, word, KeyRing(allowed), sandbox=sandbox),
        diagnose=found.diagnose,
        unseal=bundle is not None,
        pin=pin,
    )
    on_touched()
    proof = verify(
        order, touched.assertion, ring.keys, sandbox=sandbox, user_verification=pin.required
    )
    key = next(key for key in ring.keys if key.credential_id == proof.credential_id)
    unsealed = unseal(bundle or Bundle(), touched, key, keep_identity=keep)
    count = len(unsealed.secrets)
    opened = f"; it opened {count} secret{'s' if count != 1 else ''}" if count else ""
    session.terminal.say(word, f'touched: "{proof.key_label}" ({proof.operator}){opened}')
    return Authority(proof, unsealed)


def refuse_regressed(proof: Proof, *, effect: str) -> None:
    """Raise NotAuthorizedError for a key that may have been copied; a halt is not held up by it."""
    if proof.counter_regressed:
        raise NotAuthorizedError(
            f'the counter of key "{proof.key_label}" went back: there may be a copy of it',
            effect=effect,
            hint="use another key, and remove this one: killswitch keys remove",
        )


def pin_required(config: Config, mode: Mode) -> bool:
    """Whether the configuration asks for the key's PIN on an order of this mode."""
    return _ACTS[mode] in config.keys.require_pin


def remember_counter(session: Session, config: Config, proof: Proof) -> None:
    """Keep the key's signature counter; that it could not be kept is said, not raised."""
    from killswitch.authority import ring

    if not config.key_file.exists():
        return  # a ring that is gone is not begun anew by the way
    try:
        ring.update(
            config.key_file, lambda keys: keys.with_counter(proof.credential_id, proof.counter)
        )
    except Exception as error:  # noqa: BLE001 (the order is done; its bookkeeping is not)
        session.terminal.hint(f"the key's counter was not kept: {error}")


class Prompt:
    """Says what to touch, once for each change, and the time left now and then."""

    def __init__(self, terminal: Terminal, word: str, ring: KeyRing, *, sandbox: bool) -> None:
        self._terminal = terminal
        self._word = word
        self._names = {key.label: f'"{key.label}" ({key.operator})' for key in ring.keys}
        self._sandbox = sandbox
        self._said = ""
        self._first_left_s: float | None = None

    def __call__(self, state: "TouchState") -> None:
        """Take the state of the touch."""
        if self._first_left_s is None:
            self._first_left_s = state.left_s
        if not state.touch and self._first_left_s - state.left_s < _GRACE_S:
            return  # the keys plugged in are still being asked whether they are enrolled
        text = self._text(state)
        if text != self._said:
            self._said = text
            self._terminal.ask(self._word, f"{text:<52} {state.left_s:.0f} s left")

    def _text(self, state: "TouchState") -> str:
        if state.touch and self._sandbox:
            return "press Enter to touch the software key"
        if state.touch:
            keys = " or ".join(self._names.get(label, label) for label in state.touch)
            return f"touch a security key now: {keys}"
        if state.strangers and not state.trouble:
            names = ", ".join(self._names.values())
            return f"the key plugged in is not enrolled for this; plug in: {names}"
        if state.absent:
            return f"{state.absent}; enrolled: {', '.join(self._names.values())}"
        return state.reason
