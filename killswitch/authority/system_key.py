"""Keys that only the operating system may talk to, and the choice between them and real USB."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from fido2.ctap import STATUS, CtapDevice

from killswitch.authority.devices import RealDevices

if TYPE_CHECKING:
    from fido2.client import ClientDataCollector, UserInteraction, WebAuthnClient


class SystemKey(CtapDevice):
    """The keys that only the operating system may talk to: it asks for the touch in its own window.

    `client` is told nothing of the key before the touch: not which it is, nor what it can do.
    """

    def __init__(self, client: "Callable[[ClientDataCollector], WebAuthnClient]") -> None:
        self.client = client

    @property
    def capabilities(self) -> int:
        """Nothing that we could use ourselves."""
        return 0

    def call(
        self,
        cmd: int,
        data: bytes = b"",
        event: threading.Event | None = None,
        on_keepalive: Callable[[STATUS], None] | None = None,
    ) -> bytes:
        """Refuse: requests go through `client`."""
        del cmd, data, event, on_keepalive
        raise OSError("only the operating system may talk to this key")

    @classmethod
    def list_devices(cls) -> Iterator["SystemKey"]:
        """Find nothing: `plugged_in` decides."""
        return iter(())


def client_for(
    device: CtapDevice, collector: "ClientDataCollector", interaction: "UserInteraction"
) -> "WebAuthnClient":
    """Return what asks this device for credentials and signatures."""
    from fido2.client import Fido2Client  # noqa: PLC0415 (slow, and needed while we wait)

    if isinstance(device, SystemKey):
        return device.client(collector)
    return Fido2Client(device, collector, interaction)


def _windows_client() -> "Callable[[ClientDataCollector], WebAuthnClient] | None":
    from fido2.client.windows import WindowsClient  # noqa: PLC0415 (loads on Windows only)

    return WindowsClient if WindowsClient.is_available() else None


def _is_administrator() -> bool:
    import ctypes  # noqa: PLC0415 (as above)

    return bool(ctypes.windll.shell32.IsUserAnAdmin())  # type: ignore[attr-defined]  # as above


def plugged_in(
    *,
    platform: str = sys.platform,
    is_administrator: Callable[[], bool] = _is_administrator,
    system_client: "Callable[[], Callable[[ClientDataCollector], WebAuthnClient] | None]" = (
        _windows_client
    ),
) -> "Callable[[], Sequence[CtapDevice]]":
    """Return what finds the keys of this machine.

    Windows lets administrators only talk to a key; for everybody else it does so itself.
    """
    if platform == "win32" and not is_administrator():
        client = system_client()
        if client is not None:
            keys = [SystemKey(client)]
            return lambda: keys
    return RealDevices()
