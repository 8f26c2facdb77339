"""What the software key remembers when it is unplugged, in memory or in a private file."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

import msgspec

from killswitch.authority.ring import locked, read_guarded, write_private
from killswitch.errors import ConfigError

PIN_RETRIES: Final = 8
MIN_PIN_LENGTH: Final = 4


@dataclass(frozen=True, slots=True)
class Resident:
    """A discoverable credential: what a key stores so that it can be found without its id."""

    rp_id: str
    credential_id: bytes
    user_id: bytes
    user_name: str | None = None
    user_display_name: str | None = None

    @property
    def owner(self) -> tuple[str, bytes]:
        """Whose it is: one account has one discoverable credential."""
        return self.rp_id, self.user_id

    @property
    def user(self) -> dict[str, object]:
        """The account, as WebAuthn writes it."""
        names = {"name": self.user_name, "displayName": self.user_display_name}
        return {"id": self.user_id, **{key: name for key, name in names.items() if name}}

    def named(self, name: str | None, display_name: str | None) -> "Resident":
        """Return the credential with other names for its account."""
        return replace(self, user_name=name, user_display_name=display_name)


@dataclass(frozen=True, slots=True)
class State:
    """All that outlives a replug; `pin_hash` is the first half of SHA-256 of the PIN."""

    master: bytes = field(repr=False)
    counter: int = 0
    pin_hash: bytes | None = field(default=None, repr=False)
    pin_length: int = 0
    retries: int = PIN_RETRIES
    always_uv: bool = False
    min_pin_length: int = MIN_PIN_LENGTH
    min_pin_rp_ids: tuple[str, ...] = ()
    force_pin_change: bool = False
    residents: tuple[Resident, ...] = ()


Change = Callable[[State], State]


def fresh() -> State:
    """Return the state of a key that was just reset."""
    return State(master=os.urandom(32))


class Store(Protocol):
    """Where the state is kept."""

    def read(self) -> State:
        """Return the state as it is now."""
        ...

    def change(self, change: Change) -> State:
        """Replace the state by what `change` makes of it, and return that."""
        ...


class InMemory:
    """A state that ends with the process."""

    def __init__(self, state: State) -> None:
        self._state = state

    def read(self) -> State:
        """Return the state as it is now."""
        return self._state

    def change(self, change: Change) -> State:
        """Replace the state by what `change` makes of it."""
        self._state = change(self._state)
        return self._state


class InFile:
    """A state in a file of mode 0600, which several processes may use at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with locked(path):
            try:
                self.read()
            except FileNotFoundError:
                self._write(fresh())

    def read(self) -> State:
        """Return the state as the file has it.

        Raises:
            ConfigError: others may change the file, or it is damaged.
        """
        raw = read_guarded(self._path, what="sandbox key")
        try:
            return msgspec.json.decode(raw, type=State)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise ConfigError(
                f"the sandbox key {self._path} is damaged",
                hint="delete it: the sandbox makes a new one",
            ) from None

    def change(self, change: Change) -> State:
        """Replace the state under the file's lock."""
        with locked(self._path):
            state = change(self.read())
            self._write(state)
        return state

    def _write(self, state: State) -> None:
        write_private(self._path, msgspec.json.encode(state))
