"""Software security keys behind /dev/uhid: real USB keys to the kernel and to every program."""

import contextlib
import sys
import time
from pathlib import Path

from runs import Run, SilenceError, WrongError

AAGUID = b"killswitch-e2e-k".hex()
"""Not the sandbox's own: a configuration of real systems refuses that one."""
RP_ID = "killswitch.example"
_START_S = 60.0
_BLINK_S = 90.0
_DARK_S = 20.0
_POLL_S = 0.05


class Key:
    """One key in a process of its own; plugged out at first."""

    def __init__(self, label: str, *options: str) -> None:
        self.label = label
        self.run = Run(
            [
                *(sys.executable, "-m", "killswitch.sandbox.uhid"),
                *("--unplugged", "--name", label, "--aaguid", AAGUID, "--rp-id", RP_ID),
                *options,
            ]
        )
        self._seen = 0
        self._told = 0
        self._plugged = False

    def plug(self) -> Path:
        """Plug it in; return the device file that the kernel made for it."""
        if not self._plugged:
            self._seen = len(self.run.text)
            self.run.say("plug")
            self._plugged = True
        until = time.monotonic() + _START_S
        while not (found := self._hidraw()):
            if time.monotonic() > until:
                raise WrongError(f"{self.label}: no /dev/hidraw for it")
            time.sleep(_POLL_S)
        return found

    def unplug(self) -> None:
        """Pull it out, and wait until the kernel has noticed."""
        if self._plugged:
            self.run.say("unplug")
            self._plugged = False
        until = time.monotonic() + _START_S
        while self._hidraw():
            if time.monotonic() > until:
                raise WrongError(f"{self.label}: its /dev/hidraw stays")
            time.sleep(_POLL_S)

    def wait_for_blinking(self) -> None:
        """Wait until it asks for a touch, once more than at the last call."""
        self._seen = self.run.wait_for("blinking", timeout_s=_BLINK_S, after=self._seen)

    def wait_for_dark(self) -> None:
        """Wait until it was told to stop asking."""
        self._seen = self.run.wait_for("dark", timeout_s=_DARK_S, after=self._seen)

    def touch(self) -> None:
        """Touch it, as soon as it asks; between two requests a touch would be lost."""
        self.wait_for_blinking()
        until = time.monotonic() + _BLINK_S
        while not self._blinking() and time.monotonic() < until:
            time.sleep(_POLL_S)
        self._seen = len(self.run.text)
        self.press()

    def press(self) -> None:
        """Touch it now."""
        self.run.say("touch")

    def touch_if_blinking(self) -> None:
        """Touch it if it asks now."""
        with contextlib.suppress(SilenceError):
            self._seen = self.run.wait_for("blinking", timeout_s=0, after=self._seen)
            self.press()

    def story(self) -> str:
        """Return what happened to it since the last call, in one line."""
        text, self._told = self.run.text[self._told :], len(self.run.text)
        return f"{self.label}: {' '.join(text.split())}"

    def _blinking(self) -> bool:
        text = self.run.text
        return text.rfind("blinking") > text.rfind("dark")

    def _hidraw(self) -> Path | None:
        for entry in Path("/sys/class/hidraw").glob("*"):
            device = Path("/dev") / entry.name
            if f"HID_NAME={self.label}\n" in _text(entry / "device/uevent") and device.exists():
                return device
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # it was pulled out while we looked
        return ""
