"""The kernel's part between /dev/uhid and /dev/hidraw, for one device, without a kernel."""

import queue
import struct

from fido2.hid.base import CtapHidConnection, HidDescriptor, parse_report_descriptor

from killswitch.sandbox.uhid import EVENT_BYTES

PACKET_BYTES = 64
DESTROY, OUTPUT, CREATE2, INPUT2 = 1, 6, 11, 12
NO_SUCH_DEVICE = 19
INPUT_OUTPUT_ERROR = 5


class Kernel:
    """Takes and gives UHID events as /dev/uhid, and opens the device that they make.

    As with hidraw, everything that the device sends reaches everyone who has it open.
    `numbered` puts the report's number before each output report, as some kernels do.
    """

    def __init__(self, *, numbered: bool = False) -> None:
        self.numbered = numbered
        self.plugged = 0
        self.name = ""
        self._there = False
        self._events = queue.SimpleQueue[bytes]()
        self._open: list[Connection] = []

    def read(self, size: int) -> bytes:
        """Wait for an event; empty when the file was closed."""
        event = self._events.get()
        assert len(event) <= size
        return event

    def write(self, event: bytes) -> int:
        """Take an event from the device."""
        (kind,) = struct.unpack_from("<I", event)
        if kind == CREATE2:
            assert not self._there
            name, length = event[4:132], struct.unpack_from("<H", event, 260)[0]
            described = parse_report_descriptor(event[280 : 280 + length])
            assert described == (PACKET_BYTES, PACKET_BYTES)
            self.name = name.rstrip(b"\0").decode()
            self.plugged += 1
            self._there = True
        elif kind == DESTROY:
            self._there = False
            for one in self._open:
                one.packets.put(None)
            self._open.clear()
        elif kind == INPUT2:
            (length,) = struct.unpack_from("<H", event, 4)
            for one in self._open:
                one.packets.put(event[6 : 6 + length])
        return len(event)

    def close(self) -> None:
        """End the device's reading."""
        self._events.put(b"")

    def disturb(self, event: bytes) -> None:
        """Hand any event to the device."""
        self._events.put(event)

    def descriptors(self) -> list[HidDescriptor]:
        """Return the device, if it is there."""
        path = f"hidraw{self.plugged}"
        sizes = (PACKET_BYTES, PACKET_BYTES)
        return [HidDescriptor(path, 0x1209, 1, *sizes, self.name, None)] if self._there else []

    def open(self, descriptor: HidDescriptor) -> "Connection":
        """Open the device."""
        if descriptor not in self.descriptors():
            raise OSError(NO_SUCH_DEVICE, "No such device")
        self._open.append(Connection(self, descriptor))
        return self._open[-1]

    def output(self, packet: bytes, connection: "Connection") -> None:
        """Take a packet for the device from one who has it open."""
        if connection not in self._open:
            raise OSError(NO_SUCH_DEVICE, "No such device")
        data = b"\0" * self.numbered + packet
        event = struct.pack("<I4096sHB", OUTPUT, data, len(data), 0)
        self._events.put(event.ljust(EVENT_BYTES, b"\0"))

    def leave(self, connection: "Connection") -> None:
        """Close one opening."""
        if connection in self._open:
            self._open.remove(connection)


class Connection(CtapHidConnection):
    """One opening of the device."""

    def __init__(self, kernel: Kernel, descriptor: HidDescriptor, patience_s: float = 20) -> None:
        self.packets = queue.SimpleQueue[bytes | None]()
        self.descriptor = descriptor
        self.patience_s = patience_s
        self._kernel = kernel

    def read_packet(self) -> bytes:
        """Wait for a packet from the device; `queue.Empty` when none comes."""
        packet = self.packets.get(timeout=self.patience_s)
        if packet is None:
            raise OSError(INPUT_OUTPUT_ERROR, "Input/output error")
        return packet

    def write_packet(self, data: bytes) -> None:
        """Send a packet to the device."""
        self._kernel.output(data, self)

    def close(self) -> None:
        """Leave the device to others."""
        self._kernel.leave(self)
