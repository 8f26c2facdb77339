"""Taking the touch: what the operator reads while a security key blinks."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from killswitch.answer import mode_word
from killswitch.authority.ring import SANDBOX_RP_ID, KeyRing
from killswitch.cli.devices import find_devices
from killswitch.cli.session import Session
from killswitch.cli.terminal import Terminal
from killswitch.config import Config
from killswitch.model import Order, Proof

if TYPE_CHECKING:
    from killswitch.authority.touch import TouchState

_GRACE_S: Final = 0.5


def take_touch(
    session: Session,
    config: Config,
    order: Order,
    ring: KeyRing,
    *,
    timeout_s: float | None = None,
    yes: bool = False,
    on_touched: Callable[[], object] = lambda: None,
) -> Proof:
    """Return the proof that an enrolled key was touched on this very order.

    `on_touched` is called the moment a key was touched, before anything is checked.

    Raises:
        NotAuthorizedError: nobody touched, or what was signed does not fit.
        AbortedError: Ctrl-C.
    """
    from killswitch.authority.proof import verify
    from killswitch.authority.touch import ask_for_touch

    sandbox = config.sandbox is not None
    word = mode_word(order.mode, sandbox=sandbox)
    found = find_devices(config, yes=yes, no_input=session.no_input)
    assertion = ask_for_touch(
        challenge=order.challenge(),
        keys=ring.keys,
        rp_id=SANDBOX_RP_ID if sandbox else config.keys.rp_id,
        devices=found.devices,
        timeout_s=timeout_s or config.halt.touch_timeout_s,
        cancel=threading.Event(),
        on_state=Prompt(session.terminal, word, ring, sandbox=sandbox),
        diagnose=found.diagnose,
    )
    on_touched()
    proof = verify(order, assertion, ring.keys, sandbox=sandbox)
    session.terminal.say(word, f'touched: "{proof.key_label}" ({proof.operator})')
    return proof


def remember_counter(session: Session, config: Config, proof: Proof) -> None:
    """Keep the key's signature counter; that it could not be kept is said, not raised."""
    from killswitch.authority import ring

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
        if state.trouble:
            return state.trouble
        if state.strangers:
            names = ", ".join(self._names.values())
            return f"the key plugged in is not enrolled; enrolled: {names}"
        return f"plug in a security key: {', '.join(self._names.values())}"
