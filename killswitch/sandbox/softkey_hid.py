"""CTAPHID in front of a software key: packets of 64 bytes in, packets of 64 bytes out.

CTAP 2.1 section 11.2: channels, messages cut into packets, keep-alives, cancelling. A message of
one channel keeps the key busy for all others.
"""

import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from fido2.ctap import STATUS, CtapError
from fido2.hid import CAPABILITY, CTAPHID

from killswitch.sandbox.softkey import SoftKey

PACKET_BYTES: Final = 64

_BROADCAST: Final = 0xFFFFFFFF
_INITIAL: Final = 0x80
_HEAD: Final = struct.Struct(">IBH")
_NONCE_BYTES: Final = 8
_FIRST_BYTES: Final = PACKET_BYTES - _HEAD.size
_NEXT_BYTES: Final = PACKET_BYTES - 5
_MOST_BYTES: Final = _FIRST_BYTES + 128 * _NEXT_BYTES
_PROTOCOL_VERSION: Final = 2
_DEVICE_VERSION: Final = (0, 0, 0)
_MESSAGE_S: Final = 0.5  # the packets of one message come within this
_CAPABILITIES: Final = CAPABILITY.WINK | CAPABILITY.CBOR | CAPABILITY.NMSG


class _Error(IntEnum):
    INVALID_COMMAND = 0x01
    INVALID_LENGTH = 0x03
    INVALID_SEQUENCE = 0x04
    TIMEOUT = 0x05
    BUSY = 0x06
    INVALID_CHANNEL = 0x0B


@dataclass(slots=True)
class _Message:
    channel: int
    command: int
    length: int
    data: bytes
    since: float = field(default_factory=time.monotonic)
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class _Request:
    channel: int
    cancel: threading.Event = field(default_factory=threading.Event)
    abandoned: threading.Event = field(default_factory=threading.Event)


class HidKey:
    """A `SoftKey` that is spoken to in HID packets.

    Args:
        key: the key.
        send: takes each packet that the key sends; called from several threads, never at once.
        keepalive_s: how often a waiting key says that it is still there.
    """

    def __init__(
        self, key: SoftKey, send: Callable[[bytes], None], *, keepalive_s: float = 0.1
    ) -> None:
        self.key = key
        self.winks = 0
        self._send = send
        self._keepalive_s = keepalive_s
        self._last_channel = 0
        self._message: _Message | None = None
        self._request: _Request | None = None
        self._lock = threading.RLock()
        self._sending = threading.Lock()

    def receive(self, packet: bytes) -> None:
        """Take one packet from the host; what is too short to be one is ignored."""
        if len(packet) < _HEAD.size:
            return
        channel, command, length = _HEAD.unpack_from(packet)
        with self._lock:
            if command & _INITIAL:
                body = packet[_HEAD.size : _HEAD.size + length]
                self._first(_Message(channel, command & ~_INITIAL, length, body))
            else:
                self._continued(channel, command, packet[5:])

    def unplug(self) -> None:
        """Drop whatever was going on, and all channels."""
        with self._lock:
            self._abandon()
            self._message = None
            self._last_channel = 0

    def _first(self, message: _Message) -> None:
        channel, command = message.channel, message.command
        if command == CTAPHID.CANCEL:
            if self._request and self._request.channel == channel:
                self._request.cancel.set()
        elif command == CTAPHID.INIT:
            self._initialise(message)
        elif not 0 < channel <= self._last_channel:
            self._fail(channel, _Error.INVALID_CHANNEL)
        elif self._is_busy(channel):
            self._fail(channel, _Error.BUSY)
        elif self._message is not None:  # this channel's own, and unfinished
            self._message = None
            self._fail(channel, _Error.INVALID_SEQUENCE)
        elif message.length > _MOST_BYTES:
            self._fail(channel, _Error.INVALID_LENGTH)
        else:
            self._collect(message)

    def _continued(self, channel: int, sequence: int, data: bytes) -> None:
        message = self._message
        if message is None or message.channel != channel:
            return  # spurious: section 11.2.5.2 has it ignored
        if sequence != message.sequence:
            self._message = None
            self._fail(channel, _Error.INVALID_SEQUENCE)
            return
        message.sequence += 1
        message.data += data[: message.length - len(message.data)]
        self._collect(message)

    def _collect(self, message: _Message) -> None:
        complete = len(message.data) >= message.length
        self._message = None if complete else message
        if complete:
            self._carry_out(message)

    def _is_busy(self, channel: int) -> bool:
        if self._request is not None:
            return True
        message = self._message
        if message is None or message.channel == channel:
            return False
        if time.monotonic() - message.since < _MESSAGE_S:
            return True
        self._message = None
        self._fail(message.channel, _Error.TIMEOUT)
        return False

    def _initialise(self, message: _Message) -> None:
        channel = message.channel
        if message.length != _NONCE_BYTES:
            self._fail(channel, _Error.INVALID_LENGTH)
            return
        if channel == _BROADCAST:
            self._last_channel += 1
            given = self._last_channel
        elif 0 < channel <= self._last_channel:
            given = channel  # the host wants to begin again
            if self._request and self._request.channel == channel:
                self._abandon()
            if self._message and self._message.channel == channel:
                self._message = None
        else:
            self._fail(channel, _Error.INVALID_CHANNEL)
            return
        said = struct.pack(">IB3BB", given, _PROTOCOL_VERSION, *_DEVICE_VERSION, _CAPABILITIES)
        self._answer(channel, CTAPHID.INIT, message.data + said)

    def _carry_out(self, message: _Message) -> None:
        channel = message.channel
        match message.command:
            case CTAPHID.PING:
                self._answer(channel, CTAPHID.PING, message.data)
            case CTAPHID.WINK if message.length:
                self._fail(channel, _Error.INVALID_LENGTH)
            case CTAPHID.WINK:
                self.winks += 1
                self._answer(channel, CTAPHID.WINK, b"")
            case CTAPHID.CBOR if not message.length:
                self._fail(channel, _Error.INVALID_LENGTH)
            case CTAPHID.CBOR:
                request = self._request = _Request(channel)
                threading.Thread(
                    target=self._serve, args=(request, message.data), daemon=True
                ).start()
            case _:
                self._fail(channel, _Error.INVALID_COMMAND)

    def _serve(self, request: _Request, data: bytes) -> None:
        status, done = [STATUS.PROCESSING], threading.Event()

        def changed(new: STATUS) -> None:
            status[0] = new

        def keep_alive() -> None:
            while not done.wait(self._keepalive_s) and not request.abandoned.is_set():
                self._answer(request.channel, CTAPHID.KEEPALIVE, bytes([status[0]]))

        heart = threading.Thread(target=keep_alive, daemon=True)
        heart.start()
        try:
            answer = self.key.handle(data, request.cancel, changed)
        except Exception:  # noqa: BLE001 (a silent key would hang its host for ever)
            answer = bytes([CtapError.ERR.OTHER])
        done.set()
        heart.join()
        with self._lock:
            if self._request is request:
                self._request = None
        if not request.abandoned.is_set():
            self._answer(request.channel, CTAPHID.CBOR, answer)

    def _abandon(self) -> None:
        if self._request is not None:
            self._request.abandoned.set()
            self._request.cancel.set()
            self._request = None

    def _fail(self, channel: int, error: _Error) -> None:
        self._answer(channel, CTAPHID.ERROR, bytes([error]))

    def _answer(self, channel: int, command: int, data: bytes) -> None:
        first = _HEAD.pack(channel, command | _INITIAL, len(data)) + data[:_FIRST_BYTES]
        rest = data[_FIRST_BYTES:]
        cuts = range(0, len(rest), _NEXT_BYTES)
        packets = [first] + [
            struct.pack(">IB", channel, number) + rest[start : start + _NEXT_BYTES]
            for number, start in enumerate(cuts)
        ]
        with self._sending:
            for packet in packets:
                self._send(packet.ljust(PACKET_BYTES, b"\0"))
