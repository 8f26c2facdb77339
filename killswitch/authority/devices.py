"""Real security keys on USB: found, opened so that they cannot hang us, and explained if unseen."""

import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from fido2.ctap import STATUS, CtapDevice

if TYPE_CHECKING:
    from fido2.hid import CtapHidDevice
    from fido2.hid.base import CtapHidConnection, HidDescriptor

SILENCE_S: Final = 3.0
"""A key at work sends a sign of life every 100 ms: after this long without one it is dead."""

UDEV_RULE: Final = (
    'KERNEL=="hidraw*", SUBSYSTEM=="hidraw", ENV{ID_SECURITY_TOKEN}=="1", '
    'GROUP="plugdev", MODE="0660"'
)
_FIDO_USAGE_PAGE: Final = b"\x06\xd0\xf1"  # how every FIDO report descriptor begins
_BROADCAST: Final = b"\xff\xff\xff\xff"
_INIT: Final = 0x86  # CTAPHID_INIT, as the first packet carries it


class RealDevices:
    """The security keys plugged in now; the same object for the same key at every call.

    Finding sends nothing to any key: each is opened by the first request to it, in the thread of
    whoever asks, so that a dead key delays nobody else. `close` releases them all.
    """

    def __init__(
        self,
        *,
        silence_s: float = SILENCE_S,
        find: "Callable[[], Iterable[HidDescriptor]] | None" = None,
    ) -> None:
        self._silence_s = silence_s
        self._find = find or _on_usb
        self._known: dict[str, HidKey] = {}

    def __call__(self) -> Sequence[CtapDevice]:
        """Return the keys that are plugged in and may be opened."""
        descriptors = {str(found.path): found for found in self._find()}
        for path in [path for path in self._known if path not in descriptors]:
            self._known.pop(path).close()
        for path, descriptor in descriptors.items():
            if path not in self._known or self._known[path].closed:
                self._known[path] = HidKey(_opener(descriptor, self._silence_s))
        return list(self._known.values())

    def close(self) -> None:
        """Let go of every key."""
        for key in self._known.values():
            key.close()
        self._known.clear()


class HidKey(CtapDevice):
    """A key that is opened by the first request to it, and closed only between two requests.

    Closing under a running request would hand its file number to the next connection opened.
    """

    def __init__(self, opener: "Callable[[], CtapHidDevice]") -> None:
        self._opener = opener
        self._device: CtapHidDevice | None = None
        self._turn = threading.RLock()
        self.closed = False

    @property
    def capabilities(self) -> int:
        """What the key says it can do; opens it."""
        with self._turn:
            return self._opened().capabilities

    def call(
        self,
        cmd: int,
        data: bytes = b"",
        event: threading.Event | None = None,
        on_keepalive: Callable[[STATUS], None] | None = None,
    ) -> bytes:
        """Send one request and return the reply; raises OSError when the key is gone or dead."""
        try:
            with self._turn:
                return self._opened().call(cmd, data, event, on_keepalive)
        finally:
            if self.closed:  # meanwhile: now it can be let go
                self.close()

    def close(self) -> None:
        """Take no more requests; the running one ends first."""
        self.closed = True
        if self._turn.acquire(blocking=False):
            try:
                self._release()
            finally:
                self._turn.release()

    @classmethod
    def list_devices(cls) -> Iterator["HidKey"]:
        """Find nothing: `RealDevices` does."""
        return iter(())

    def _opened(self) -> "CtapHidDevice":
        if self.closed:
            raise OSError("the security key was removed")
        if self._device is None:
            self._device = self._opener()
        return self._device

    def _release(self) -> None:
        device, self._device = self._device, None
        if device is not None:
            device.close()


def _on_usb() -> "list[HidDescriptor]":
    from fido2.hid import list_descriptors  # noqa: PLC0415 (slow: loads the platform's HID)

    return cast("Callable[[], list[HidDescriptor]]", list_descriptors)()


def _opener(descriptor: "HidDescriptor", silence_s: float) -> "Callable[[], CtapHidDevice]":
    from fido2.hid import CtapHidDevice, open_connection  # noqa: PLC0415 (as above)

    def connect() -> CtapHidDevice:
        if sys.platform != "linux":
            return CtapHidDevice(descriptor, open_connection(descriptor))
        handle = os.open(descriptor.path, os.O_RDWR | os.O_CLOEXEC)
        connection = SafeConnection(handle, descriptor.report_size_in, silence_s=silence_s)
        try:
            return CtapHidDevice(descriptor, cast("CtapHidConnection", connection))
        except BaseException:
            connection.close()
            raise

    return connect


class SafeConnection:
    """A hidraw connection that cannot hang and cannot be confused by other programs.

    The kernel gives every report to every program that has the key open: packets of another
    channel belong to a browser or an agent. Raises TimeoutError after `silence_s` without a word.
    """

    def __init__(self, handle: int, packet_size: int, *, silence_s: float = SILENCE_S) -> None:
        self._handle = handle
        self._packet_size = packet_size
        self._silence_s = silence_s
        self._channel = b""
        self._nonce = b""

    def write_packet(self, data: bytes) -> None:
        """Send one packet, and remember whose answer to expect."""
        self._channel = data[:4]
        if data[4] == _INIT:
            self._nonce = data[7:15]
        if os.write(self._handle, b"\0" + data) != len(data) + 1:  # the report's number first
            raise OSError("the security key took only a part of a packet")

    def read_packet(self) -> bytes:
        """Return the next packet of our own conversation."""
        until = time.monotonic() + self._silence_s
        while True:
            left_s = until - time.monotonic()
            if left_s <= 0 or not select.select([self._handle], [], [], left_s)[0]:
                raise TimeoutError("the security key stopped answering")
            packet = os.read(self._handle, self._packet_size)
            if not packet:
                raise OSError("the security key was removed")
            if self._is_ours(packet):
                return packet

    def close(self) -> None:
        """Close the device file."""
        os.close(self._handle)

    def _is_ours(self, packet: bytes) -> bool:
        if packet[:4] != self._channel:
            return False
        # On the broadcast channel only the nonce tells our INIT from another program's.
        return self._channel != _BROADCAST or packet[4] != _INIT or packet[7:15] == self._nonce


def diagnose(
    *,
    classes: Path = Path("/sys/class/hidraw"),
    devices: Path = Path("/dev"),
    may_open: Callable[[Path], bool] = lambda path: os.access(path, os.R_OK | os.W_OK),
) -> str:
    """Say why no security key may be seen, or "" when one is there and may be opened.

    Reads only what every Linux user may read; elsewhere it knows nothing and says so.
    """
    if sys.platform != "linux":
        return "no security key was seen"
    names = sorted(entry.name for entry in classes.iterdir()) if classes.is_dir() else []
    found = [devices / name for name in names if _is_fido(classes / name)]
    if not found:
        return "no security key is plugged in"
    closed = [path for path in found if not may_open(path)]
    if len(closed) < len(found):
        return ""
    if not closed[0].exists():
        return (
            f"a security key is plugged in, but {closed[0]} is missing: pass it into the container"
        )
    return (
        f"a security key is plugged in, but you may not open {closed[0]}: put this line into "
        f"/etc/udev/rules.d/70-security-key.rules, join the group, plug it in again: {UDEV_RULE}"
    )


def _is_fido(entry: Path) -> bool:
    try:
        return _FIDO_USAGE_PAGE in (entry / "device" / "report_descriptor").read_bytes()
    except OSError:
        return False
