"""A pytest plugin: python-fido2's own device tests meet the software key, and nothing else.

Those tests reset every key that they find. So before anything is collected this plugin puts the
software key in the place of all HID devices, forbids this process to open a hidraw device or a
smart card, and before each test it looks whether that still holds.
"""

import os
import sys
import threading
from types import ModuleType

import fido2.hid
import pytest
from fido2.hid import CtapHidDevice
from fido2.hid.base import HidDescriptor

from killswitch.sandbox.softkey import SoftKey
from killswitch.sandbox.uhid import UhidKey
from tests.device.kernel import Connection, Kernel

UPSTREAM = "upstream_tests.device"
_FORBIDDEN = ("/dev/hidraw", "/dev/uhid", "/dev/bus/usb")
_REAL_OPTIONS = ("reader", "ccid", "controller")

_LEFT_OUT = {
    "test_credman.py::test_missing_permissions": (
        "takes a token for large blobs, which only a key that has them gives"
    ),
}

_kernel = Kernel()
_key = UhidKey(
    SoftKey(touch=lambda _cancel: True, rp_ids={"example.com"}, hmac_secret_mc=True),
    _kernel,
    name="software key",
)


def _list_descriptors() -> list[HidDescriptor]:
    return _kernel.descriptors()


def _get_descriptor(path: str) -> HidDescriptor:
    return next(one for one in _kernel.descriptors() if one.path == path)


def _open_connection(descriptor: HidDescriptor) -> Connection:
    return _kernel.open(descriptor)


def _open_device(path: str) -> CtapHidDevice:
    descriptor = _get_descriptor(path)
    return CtapHidDevice(descriptor, _open_connection(descriptor))


_OURS = {
    "list_descriptors": _list_descriptors,
    "get_descriptor": _get_descriptor,
    "open_connection": _open_connection,
    "open_device": _open_device,
}


def _forbid(event: str, arguments: tuple[object, ...]) -> None:
    """Refuse real devices, whoever asks for them; an audit hook cannot be taken out again."""
    if event != "open" or not isinstance(arguments[0], str | bytes):
        return
    path = os.path.realpath(os.fsdecode(arguments[0]))
    if path.startswith(_FORBIDDEN):
        raise RuntimeError(f"the device tests must not open {path}")


def _swap() -> None:
    if not sys.platform.startswith("linux"):
        raise pytest.UsageError("only on Linux can real security keys be shut out for certain")
    if any(name.startswith(UPSTREAM) for name in sys.modules):
        raise pytest.UsageError("the device tests were loaded before real keys were shut out")
    sys.addaudithook(_forbid)
    sys.modules["fido2.pcsc"] = None  # type: ignore[assignment]  # makes its import fail
    for name, ours in _OURS.items():
        setattr(fido2.hid, name, ours)


def _check(module: ModuleType) -> None:
    for name, ours in _OURS.items():
        if getattr(module, name, ours) is not ours:
            pytest.exit(f"{module.__name__}.{name} could reach a real security key", returncode=3)


def pytest_configure(config: pytest.Config) -> None:
    """Begin: the software key is plugged in."""
    for option in _REAL_OPTIONS:
        if config.getoption(option, default=None):
            raise pytest.UsageError(f"--{option} is for real security keys")
    threading.Thread(target=_key.serve, daemon=True).start()
    _key.plug()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what upstream should skip by itself, each with its reason."""
    for item in items:
        for name, reason in _LEFT_OUT.items():
            if name in item.nodeid:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Play the person: upstream's tests say what to do by four methods of one class."""
    device_tests = sys.modules[UPSTREAM]
    printer = device_tests.Printer
    printer.print = lambda _self, *_messages: None
    printer.touch = lambda _self: None
    printer.remove = lambda _self, nfc=False: _key.unplug()  # noqa: ARG005 (its signature)
    printer.insert = lambda _self, nfc=False: _key.plug()  # noqa: ARG005 (its signature)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Refuse to go on if anything could reach a real key."""
    _check(fido2.hid)
    for name, module in list(sys.modules.items()):
        if name.startswith("upstream_tests") and isinstance(module, ModuleType):
            _check(module)


_swap()
