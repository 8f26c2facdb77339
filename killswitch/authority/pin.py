"""The PIN of a security key: asked for once, checked before any touch, never tried to the end."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fido2.client import UserInteraction
    from fido2.ctap2.base import Ctap2, Info
    from fido2.ctap2.pin import ClientPin

AskPin = Callable[[str, int, str], str | None]
"""Asks a person for a PIN: the key's label, the tries it has left, a note such as "wrong PIN".

Returns None or nothing when there is to be none. May be called from another thread than the
caller's, never twice at a time.
"""

FEWEST_TRIES: Final = 3
"""With so few tries left nobody is asked: what is left is for a person with time to think."""

_SHORTEST, _LONGEST_BYTES = 4, 63  # of any PIN (CTAP 2.1 section 6.5.1)
_TURN_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class PinPolicy:
    """Whether a touch needs a PIN, and who is asked for it; a new one for every touch.

    With `required` every key has to verify its user; without, only a key that insists. `force`
    spends the last tries too. `ended` is set when no PIN is needed any more: an open prompt should
    then put the terminal in order and return None. `turn` is held while a prompt is open.
    """

    ask: AskPin
    required: bool = False
    force: bool = False
    ended: threading.Event = field(default_factory=threading.Event)
    turn: threading.Lock = field(default_factory=threading.Lock, repr=False)


class PinTroubleError(Exception):
    """A key cannot be used with its PIN now; the text is for the operator, "" for nothing.

    Args:
        problem: what is wrong with the PIN.
        hint: what can be done about it.
    """

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(f"{problem}: {hint}" if hint else problem)
        self.problem = problem
        self.hint = hint


class PinDesk:
    """Where one key's PIN is asked for; python-fido2 takes it for its `UserInteraction`.

    A PIN is kept only after the key itself said that it is right, and only in memory.
    """

    def __init__(
        self,
        ctap2: "Ctap2",
        *,
        label: str,
        rp_id: str,
        policy: PinPolicy | None,
        on_blink: Callable[[], object] = lambda: None,
    ) -> None:
        self._ctap2 = ctap2
        self._label = label
        self._name = f'the key "{label}"' if label else "a security key"
        self._rp_id = rp_id
        self._policy = policy
        self._on_blink = on_blink
        self._pin = ""

    def prepare(self, info: "Info") -> bool:
        """Get everything ready for a touch; return whether the user is to be verified by it.

        Raises PinTroubleError when that cannot be done with this key.
        """
        required = self._policy is not None and self._policy.required
        if not (required or info.options.get("alwaysUv")):
            return False
        if not can_verify(info):
            raise PinTroubleError(
                f"{self._name} has no PIN", "set one with fido2-token -S, or the maker's tool"
            )
        if not info.options.get("uv"):  # a fingerprint comes first; the PIN only if it fails
            self.obtain()
        return required

    def obtain(self) -> str:
        """Return the PIN, asked for until the key accepts it; raises PinTroubleError."""
        if self._pin:
            return self._pin
        if self._policy is None:
            raise PinTroubleError(f"{self._name} asks for its PIN")
        with self._my_turn(self._policy) as policy:
            note = ""
            while True:
                typed = policy.ask(self._label, self._tries_left(policy), note)
                if policy.ended.is_set():
                    raise PinTroubleError("")
                if not typed:
                    raise PinTroubleError(f"the PIN of {self._name} was not given")
                note = self._checked(typed)
                if not note:
                    self._pin = typed
                    return typed

    def prompt_up(self) -> None:
        """Tell that the key blinks; python-fido2 leaves it out when the touch comes at once."""
        self._on_blink()

    def request_pin(self, permissions: object, rp_id: str | None) -> str:
        """Answer python-fido2 when the key turns out to insist; raises PinTroubleError."""
        del permissions, rp_id
        return self.obtain()

    def request_uv(self, permissions: object, rp_id: str | None) -> bool:
        """Let the key verify its user by itself: a finger on it is a touch as well."""
        del permissions, rp_id
        return True

    def as_interaction(self) -> "UserInteraction":
        """Return this desk as what python-fido2 asks for."""
        return self  # type: ignore[return-value]  # its methods are what is called; the class loads late

    def __repr__(self) -> str:
        return f"PinDesk({self._label!r})"

    @contextmanager
    def _my_turn(self, policy: PinPolicy) -> Iterator[PinPolicy]:
        while not policy.turn.acquire(timeout=_TURN_S):
            if policy.ended.is_set():
                raise PinTroubleError("")
        try:
            if policy.ended.is_set():
                raise PinTroubleError("")
            yield policy
        finally:
            policy.turn.release()

    def _tries_left(self, policy: PinPolicy) -> int:
        from fido2.ctap import CtapError  # noqa: PLC0415 (all of fido2 is loaded while we wait)

        try:
            left, unplug = self._client_pin().get_pin_retries()
        except CtapError as error:
            raise self._trouble(error) or error from None
        if not left:
            raise self._blocked()
        if unplug:
            raise self._blocked_for_now()
        if left <= FEWEST_TRIES and not policy.force:
            raise PinTroubleError(
                f"{self._name} has only {left} PIN tries left",
                "use another key, or spend them with --force-pin",
            )
        return left

    def _checked(self, typed: str) -> str:
        """Return what the key says is wrong with this PIN, or "" when it is the right one."""
        from fido2.ctap import CtapError  # noqa: PLC0415 (as above)

        if len(typed) < _SHORTEST or len(typed.encode()) > _LONGEST_BYTES:
            return "no PIN is that short or long"  # known without spending a try
        try:
            self._client_pin().get_pin_token(typed, _assertion_only(), self._rp_id)
        except CtapError as error:
            if error.code == CtapError.ERR.PIN_INVALID:
                return "wrong PIN"
            raise self._trouble(error) or error from None
        return ""

    def _client_pin(self) -> "ClientPin":
        from fido2.ctap2.pin import ClientPin  # noqa: PLC0415 (as above)

        return ClientPin(self._ctap2)

    def _trouble(self, error: Exception) -> PinTroubleError | None:
        from fido2.ctap import CtapError  # noqa: PLC0415 (as above)

        match getattr(error, "code", None):
            case CtapError.ERR.PIN_AUTH_BLOCKED:
                return self._blocked_for_now()
            case CtapError.ERR.PIN_BLOCKED:
                return self._blocked()
            case CtapError.ERR.PIN_POLICY_VIOLATION:
                return PinTroubleError(
                    f"the PIN of {self._name} has to be changed first", "use the maker's tool"
                )
            case _:
                return None

    def _blocked_for_now(self) -> PinTroubleError:
        return PinTroubleError(
            f"the PIN of {self._name} is blocked for now", "take the key out and plug it in again"
        )

    def _blocked(self) -> PinTroubleError:
        return PinTroubleError(
            f"the PIN of {self._name} is blocked for good",
            "use another key; a reset of this one ends its enrolment",
        )


def can_verify(info: "Info") -> bool:
    """Whether the key has a PIN or a fingerprint set up."""
    return bool(info.options.get("clientPin") or info.options.get("uv"))


def _assertion_only() -> "ClientPin.PERMISSION":
    from fido2.ctap2.pin import ClientPin  # noqa: PLC0415 (as above)

    return ClientPin.PERMISSION.GET_ASSERTION
