"""The software key as a real /dev/hidraw device, through the kernel's /dev/uhid (Linux, root).

    python -m killswitch.sandbox.uhid --name NAME [--pin PIN] [--touch-after SECONDS] [--silent]
        [--rp-id ID]... [--aaguid HEX] [--always-uv] [--unplugged]

Says "plugged", "unplugged", "blinking" (it wants a touch) and "dark" (no longer) on standard
output. Takes commands from standard input, one per line: touch, refuse, plug, unplug, quit. At the
end of its input it serves on until it is killed. A touch while it is dark is lost, as on a real
key; 30 seconds after it began to blink it gives up, or with --touch-after is touched by itself.
With --silent it takes every packet and answers none.
"""

import argparse
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import Final, Protocol

from killswitch.authority.ring import SANDBOX_AAGUID, SANDBOX_RP_ID
from killswitch.sandbox.softkey import SoftKey
from killswitch.sandbox.softkey_hid import PACKET_BYTES, HidKey

DEVICE: Final = Path("/dev/uhid")
EVENT_BYTES: Final = 4380

# linux/uhid.h
_DESTROY: Final = 1
_OUTPUT: Final = 6
_CREATE2: Final = 11
_INPUT2: Final = 12
_TYPE: Final = Struct("<I")
_CREATE2_EVENT: Final = Struct("<I128s64s64sHHIIII4096s")
_INPUT2_EVENT: Final = Struct("<IH64s")
_OUTPUT_EVENT: Final = Struct("<I4096sH")
_USB: Final = 3
_VENDOR, _PRODUCT, _VERSION = 0x1209, 0x0001, 0x0100  # a number that is set aside for tests

# Usage page F1D0, usage 1: one input and one output report of 64 bytes (section 11.2.8.1).
_REPORT_DESCRIPTOR: Final = bytes.fromhex(
    "06d0f1 0901 a101 0920 1500 26ff00 7508 9540 8102 0921 1500 26ff00 7508 9540 9102 c0"
)
_TOUCH_S: Final = 30.0
_POLL_S: Final = 0.05


Say = Callable[[str], object]


class EventFile(Protocol):
    """What /dev/uhid is when it is open: one event per read and per write."""

    def read(self, size: int, /) -> bytes | None:
        """Wait for the next event."""
        ...

    def write(self, event: bytes, /) -> int | None:
        """Hand over one event."""
        ...


class UhidKey:
    """A software key behind an open /dev/uhid.

    Args:
        key: the key.
        file: an open /dev/uhid, unbuffered, or what behaves like one.
        name: what the kernel calls the device.
        silent: answer nothing, as a dead key.
    """

    def __init__(
        self, key: SoftKey, file: EventFile, *, name: str = "killswitch", silent: bool = False
    ) -> None:
        self._file = file
        self._name = name
        self._plugged = False
        self._hid = HidKey(key, (lambda _packet: None) if silent else self._send)

    def plug(self) -> None:
        """Appear as a new device."""
        if self._plugged:
            return
        self._hid.key.replug()
        name, size = self._name.encode()[:127], len(_REPORT_DESCRIPTOR)
        ids = (_USB, _VENDOR, _PRODUCT, _VERSION, 0)
        self._plugged = True
        self._file.write(
            _CREATE2_EVENT.pack(_CREATE2, name, b"uhid", name[:63], size, *ids, _REPORT_DESCRIPTOR)
        )

    def unplug(self) -> None:
        """Disappear, in the middle of a request as well."""
        if not self._plugged:
            return
        self._plugged = False
        self._hid.unplug()
        self._file.write(_TYPE.pack(_DESTROY))

    def serve(self) -> None:
        """Take the kernel's events until the file ends."""
        while event := self._file.read(EVENT_BYTES):
            if len(event) >= _OUTPUT_EVENT.size and _TYPE.unpack_from(event) == (_OUTPUT,):
                _, data, size = _OUTPUT_EVENT.unpack_from(event)
                with_number = size > PACKET_BYTES  # the report's number, always 0, comes first
                self._hid.receive(data[1:size] if with_number else data[:size])

    def _send(self, packet: bytes) -> None:
        if not self._plugged:
            return
        with suppress(OSError):  # unplugged meanwhile: nobody is left to hear it
            self._file.write(_INPUT2_EVENT.pack(_INPUT2, len(packet), packet))


class Hand:
    """A touch that comes by command, or by itself after `after_s`.

    It says "blinking" when the key begins to ask for a touch and "dark" when it no longer does.
    """

    def __init__(
        self, say: Say, *, after_s: float | None = None, patience_s: float = _TOUCH_S
    ) -> None:
        self._say = say
        self._after_s = after_s
        self._patience_s = patience_s
        self._answer: bool | None = None
        self._given = threading.Event()

    def give(self, *, touch: bool) -> None:
        """Touch, or refuse, the request that waits; when none does, nothing comes of it."""
        self._answer = touch
        self._given.set()

    def __call__(self, cancel: threading.Event) -> bool | None:
        """Wait, as `SoftKey.touch`."""
        self._given.clear()
        self._say("blinking\n")
        try:
            return self._wait(cancel)
        finally:
            self._say("dark\n")

    def _wait(self, cancel: threading.Event) -> bool | None:
        wait_s = self._patience_s if self._after_s is None else self._after_s
        for _ in range(int(wait_s / _POLL_S)):
            if cancel.is_set():
                return None
            if self._given.wait(_POLL_S):
                return self._answer
        return None if self._after_s is None else True


def obey(lines: Iterable[str], key: UhidKey, hand: Hand, say: Say) -> bool:
    """Carry out commands, one per line; return whether "quit" was among them."""

    def plug() -> None:
        key.plug()
        say("plugged\n")

    def unplug() -> None:
        key.unplug()
        say("unplugged\n")

    commands: dict[str, Callable[[], None]] = {
        "touch": lambda: hand.give(touch=True),
        "refuse": lambda: hand.give(touch=False),
        "plug": plug,
        "unplug": unplug,
    }
    for line in lines:
        word = line.strip()
        if word == "quit":
            return True
        if word in commands:
            commands[word]()
        elif word:
            say(f"unknown command: {word}\n")
    return False


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve one key until "quit" or the end of the process."""
    options = _parser().parse_args(arguments)
    hand = Hand(_say, after_s=options.touch_after)
    key = SoftKey(
        touch=hand,
        pin=options.pin,
        always_uv=options.always_uv,
        aaguid=options.aaguid,
        rp_ids=options.rp_id or [SANDBOX_RP_ID],
    )
    with DEVICE.open("r+b", buffering=0) as file:
        device = UhidKey(key, file, name=options.name, silent=options.silent)
        reader = threading.Thread(target=device.serve, daemon=True)
        reader.start()
        if not options.unplugged:
            obey(["plug"], device, hand, _say)
        if not obey(sys.stdin, device, hand, _say):
            reader.join()
        device.unplug()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m killswitch.sandbox.uhid")
    parser.add_argument("--name", required=True, help="what the kernel calls the device")
    parser.add_argument("--pin", help="the PIN it has")
    parser.add_argument("--touch-after", type=float, help="seconds until it is touched by itself")
    parser.add_argument("--silent", action="store_true", help="answer nothing")
    parser.add_argument("--rp-id", action="append", help="a relying party it serves")
    parser.add_argument("--aaguid", type=bytes.fromhex, default=SANDBOX_AAGUID)
    parser.add_argument("--always-uv", action="store_true", help="demand the PIN always")
    parser.add_argument("--unplugged", action="store_true", help='wait for "plug"')
    return parser


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
