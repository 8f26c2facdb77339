"""Real keys: the connection that cannot hang, the key that opens late, the diagnosis."""

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from fido2.client import (
    ClientDataCollector,
    DefaultClientDataCollector,
    UserInteraction,
    WebAuthnClient,
)
from fido2.hid import CAPABILITY, CTAPHID, CtapHidDevice
from fido2.hid.base import CtapHidConnection, HidDescriptor

from killswitch.authority.devices import HidKey, RealDevices, SafeConnection, diagnose
from killswitch.authority.system_key import SystemKey, client_for, plugged_in

DESCRIPTOR = HidDescriptor("/dev/hidraw7", 1, 2, 64, 64, "test key", None)
BROADCAST = b"\xff" * 4
MINE, THEIRS = b"\0\0\0\1", b"\0\0\0\2"
FIDO_REPORT = bytes.fromhex("06d0f10901a1010920150026ff0075089540810209211500")


class Wire:
    """The key's end of a hidraw file: answers INIT and PING, lets other programs talk as well."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.handle = ours.detach()
        self.mute = False
        self.noise: list[bytes] = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while packet := self.theirs.recv(65)[1:]:
            for foreign in self.noise:
                self.theirs.send(foreign.ljust(64, b"\0"))
            if self.mute:
                continue
            channel, command = packet[:4], packet[4]
            (size,) = struct.unpack_from(">H", packet, 5)
            body = packet[7 : 7 + size]
            if command == 0x86:
                body = body + MINE + bytes([2, 5, 7, 1, CAPABILITY.CBOR])
            head = channel + bytes([command]) + struct.pack(">H", len(body))
            self.theirs.send((head + body).ljust(64, b"\0"))

    def close(self) -> None:
        self.theirs.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.theirs.shutdown(socket.SHUT_RDWR)
    wire.thread.join()
    wire.close()


def connect(wire: Wire, silence_s: float = 2) -> CtapHidDevice:
    connection = SafeConnection(wire.handle, 64, silence_s=silence_s)
    return CtapHidDevice(DESCRIPTOR, cast("CtapHidConnection", connection))


def test_a_key_is_opened_and_answers(wire: Wire) -> None:
    device = connect(wire)
    assert device.call(CTAPHID.PING, b"hello") == b"hello"
    device.close()


def test_what_other_programs_say_to_the_key_is_not_ours(wire: Wire) -> None:
    wire.noise = [
        THEIRS + b"\x90\0\1\x2e",  # an answer on another channel
        BROADCAST + b"\x86\0\x11" + b"notmine!" + THEIRS + b"\2\5\7\1\4",  # another's INIT
    ]
    device = connect(wire)
    assert device.call(CTAPHID.PING, b"hello") == b"hello"
    device.close()


def test_a_silent_key_is_given_up(wire: Wire) -> None:
    device = connect(wire, silence_s=0.2)
    wire.mute = True
    started = time.monotonic()
    with pytest.raises(TimeoutError, match="stopped answering"):
        device.call(CTAPHID.PING, b"hello")
    assert time.monotonic() - started < 1
    device.close()


def test_other_programs_talking_do_not_keep_a_silent_key_alive(wire: Wire) -> None:
    device = connect(wire, silence_s=0.3)
    wire.mute = True
    stop = threading.Event()

    def talk() -> None:
        while not stop.wait(0.05):
            wire.theirs.send((THEIRS + b"\xbb\0\1\1").ljust(64, b"\0"))

    talker = threading.Thread(target=talk)
    talker.start()
    with pytest.raises(TimeoutError):
        device.call(CTAPHID.PING, b"hello")
    stop.set()
    talker.join()
    device.close()


def test_a_key_that_was_pulled_out_is_an_os_error(wire: Wire) -> None:
    device = connect(wire)
    wire.theirs.shutdown(socket.SHUT_RDWR)
    with pytest.raises(OSError, match=r"removed|Broken pipe"):
        device.call(CTAPHID.PING, b"hello")
    device.close()


def test_a_key_is_opened_by_its_first_request(wire: Wire) -> None:
    opened = list[int]()

    def opener() -> CtapHidDevice:
        opened.append(1)
        return connect(wire)

    key = HidKey(opener)
    assert opened == []
    assert key.capabilities == CAPABILITY.CBOR
    assert key.call(CTAPHID.PING, b"hello") == b"hello"
    assert opened == [1]
    key.close()
    with pytest.raises(OSError, match="removed"):
        key.call(CTAPHID.PING, b"hello")


def test_a_key_is_not_closed_under_a_running_request(wire: Wire) -> None:
    key = HidKey(lambda: connect(wire, silence_s=0.4))
    assert key.capabilities == CAPABILITY.CBOR
    wire.mute = True
    errors = list[BaseException]()

    def ping() -> None:
        try:
            key.call(CTAPHID.PING, b"hello")
        except TimeoutError as error:
            errors.append(error)

    caller = threading.Thread(target=ping)
    caller.start()
    time.sleep(0.1)
    key.close()
    os.fstat(wire.handle)  # still open
    caller.join()
    assert len(errors) == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(wire.handle)


def test_a_key_stays_the_same_object_until_it_is_pulled_out_or_has_failed() -> None:
    plugged = [DESCRIPTOR]
    devices = RealDevices(find=lambda: plugged)
    (first,) = devices()
    assert devices() == [first]
    first.close()  # it failed: the next look opens it afresh
    (second,) = devices()
    assert second is not first
    plugged.clear()
    assert list(devices()) == []
    assert isinstance(second, HidKey)
    assert second.closed


def test_a_key_that_is_gone_before_it_is_opened_is_an_os_error() -> None:
    devices = RealDevices(find=lambda: [replace(DESCRIPTOR, path="/dev/no-such-hidraw")])
    (key,) = devices()
    with pytest.raises(OSError, match="no-such-hidraw"):
        _ = key.capabilities
    devices.close()


def test_looking_for_real_keys_opens_none_of_them() -> None:
    devices = RealDevices()
    assert all(isinstance(key, HidKey) for key in devices())
    devices.close()


def plug_in(root: Path, name: str, report: bytes, *, node: bool = True) -> None:
    entry = root / "class" / name / "device"
    entry.mkdir(parents=True)
    (entry / "report_descriptor").write_bytes(report)
    (root / "dev").mkdir(exist_ok=True)
    if node:
        (root / "dev" / name).touch()


def look(root: Path) -> str:
    return diagnose(classes=root / "class", devices=root / "dev")


def test_no_key_at_all_is_said(tmp_path: Path) -> None:
    assert look(tmp_path) == "no security key is plugged in"
    plug_in(tmp_path, "hidraw0", bytes.fromhex("05010902a101"))  # a mouse
    assert look(tmp_path) == "no security key is plugged in"


def test_a_key_that_can_be_opened_needs_no_words(tmp_path: Path) -> None:
    plug_in(tmp_path, "hidraw1", FIDO_REPORT)
    assert look(tmp_path) == ""


def test_a_key_outside_the_container_is_said(tmp_path: Path) -> None:
    plug_in(tmp_path, "hidraw1", FIDO_REPORT, node=False)
    assert "hidraw1 is missing: pass it into the container" in look(tmp_path)


def test_a_key_without_permission_comes_with_the_rule_that_mends_it(tmp_path: Path) -> None:
    plug_in(tmp_path, "hidraw1", FIDO_REPORT)
    seen = diagnose(
        classes=tmp_path / "class", devices=tmp_path / "dev", may_open=lambda _path: False
    )
    assert f"you may not open {tmp_path / 'dev' / 'hidraw1'}" in seen
    assert 'ENV{ID_SECURITY_TOKEN}=="1"' in seen


def test_one_key_that_can_be_opened_is_enough(tmp_path: Path) -> None:
    plug_in(tmp_path, "hidraw1", FIDO_REPORT)
    plug_in(tmp_path, "hidraw2", FIDO_REPORT)
    seen = diagnose(
        classes=tmp_path / "class",
        devices=tmp_path / "dev",
        may_open=lambda path: path.name == "hidraw2",
    )
    assert seen == ""


def test_windows_itself_asks_for_the_touch_unless_it_is_an_administrator() -> None:
    def client(_collector: ClientDataCollector) -> WebAuthnClient:
        raise NotImplementedError

    found = plugged_in(
        platform="win32", is_administrator=lambda: False, system_client=lambda: client
    )
    (only,) = found()
    assert isinstance(only, SystemKey)
    assert found()[0] is only, "the same object at every call"
    with pytest.raises(NotImplementedError):
        client_for(only, DefaultClientDataCollector("https://x.example"), UserInteraction())
    with pytest.raises(OSError, match="only the operating system"):
        only.call(CTAPHID.CBOR)
    assert not only.capabilities
    assert list(SystemKey.list_devices()) == []


@pytest.mark.parametrize(
    ("platform", "administrator", "available"),
    [
        ("win32", True, True),
        ("win32", False, False),
        ("linux", False, True),
        ("darwin", False, True),
    ],
)
def test_everywhere_else_keys_are_talked_to_over_usb(
    platform: str, *, administrator: bool, available: bool
) -> None:
    def client(_collector: ClientDataCollector) -> WebAuthnClient:
        raise NotImplementedError

    found = plugged_in(
        platform=platform,
        is_administrator=lambda: administrator,
        system_client=lambda: client if available else None,
    )
    assert isinstance(found, RealDevices)
