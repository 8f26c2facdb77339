"""CTAPHID and UHID of the software key: python-fido2's HID device on a stand-in for the kernel."""

import io
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from fido2.ctap import STATUS, CtapError
from fido2.ctap2.base import Ctap2
from fido2.hid import CAPABILITY, CTAPHID, ConnectionFailure, CtapHidDevice

from killswitch.sandbox.softkey import SoftKey, Touch
from killswitch.sandbox.uhid import Hand, UhidKey, obey
from tests.device.clients import REQUIRED, Person, registered, signed, touched
from tests.device.kernel import PACKET_BYTES, Connection, Kernel

ERR = CtapError.ERR
BROADCAST = 0xFFFFFFFF
SELECT = bytes([Ctap2.CMD.SELECTION])


class Desk:
    """A kernel with a key in it."""

    def __init__(self, key: SoftKey, *, numbered: bool = False, silent: bool = False) -> None:
        self.kernel = Kernel(numbered=numbered)
        self.key = UhidKey(key, self.kernel, name="soft", silent=silent)
        self.key.plug()

    def device(self) -> CtapHidDevice:
        [descriptor] = self.kernel.descriptors()
        return CtapHidDevice(descriptor, self.kernel.open(descriptor))

    def raw(self) -> "Raw":
        [descriptor] = self.kernel.descriptors()
        return Raw(self.kernel.open(descriptor))


class Raw:
    """A host that writes packets by hand."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        connection.patience_s = 5

    def send(self, channel: int, command: int, data: bytes = b"", length: int = -1) -> None:
        size = len(data) if length < 0 else length
        packet = struct.pack(">IBH", channel, 0x80 | command, size) + data
        self.connection.write_packet(packet.ljust(PACKET_BYTES, b"\0"))

    def go_on(self, channel: int, number: int, data: bytes = b"") -> None:
        packet = struct.pack(">IB", channel, number) + data
        self.connection.write_packet(packet.ljust(PACKET_BYTES, b"\0"))

    def receive(self) -> tuple[int, int, bytes]:
        """Return channel, command and data of the next message of one packet."""
        packet = self.connection.read_packet()
        channel, command, length = struct.unpack_from(">IBH", packet)
        return channel, command & 0x7F, packet[7 : 7 + length]

    def channel(self, on: int = BROADCAST) -> int:
        """Begin, or begin again."""
        self.send(on, CTAPHID.INIT, b"12345678")
        channel, command, data = self.receive()
        assert (channel, command, data[:8]) == (on, CTAPHID.INIT, b"12345678")
        return int.from_bytes(data[8:12], "big")

    def error(self) -> int:
        _, command, data = self.receive()
        assert command == CTAPHID.ERROR
        return data[0]


@contextmanager
def plugged(
    touch: Touch = touched, *, pin: str | None = None, numbered: bool = False, silent: bool = False
) -> Iterator[Desk]:
    desk = Desk(SoftKey(touch=touch, pin=pin), numbered=numbered, silent=silent)
    thread = threading.Thread(target=desk.key.serve)
    thread.start()
    try:
        yield desk
    finally:
        desk.kernel.close()
        thread.join(5)
        assert not thread.is_alive()


def until_cancelled(cancel: threading.Event) -> None:
    cancel.wait(5)


@pytest.mark.parametrize("numbered", [False, True])
def test_it_registers_and_signs_over_hid_as_in_this_process(numbered: bool) -> None:  # noqa: FBT001 (a parameter)
    with plugged(pin="1234", numbered=numbered) as desk:
        device = desk.device()
        assert desk.kernel.name == "soft"
        assert device.capabilities == CAPABILITY.WINK | CAPABILITY.CBOR | CAPABILITY.NMSG
        person = Person("1234")
        credential, _ = registered(device, person, uv=REQUIRED, extensions={"prf": {}})
        salts = {"prf": {"eval": {"first": b"salt"}}}
        answers = [
            signed(device, [credential], person, uv=REQUIRED, extensions=salts) for _ in range(2)
        ]
        first, second = (one.client_extension_results.prf.results.first for one in answers)
        assert first == second


def test_a_ping_of_any_length_comes_back_and_a_wink_is_seen() -> None:
    with plugged() as desk:
        device = desk.device()
        for size in (0, 1, 57, 58, 116, 117, 7609):
            assert device.ping(b"p" * size) == b"p" * size
        device.wink()
        assert desk.key._hid.winks == 1


def test_a_waiting_key_says_that_it_is_there_and_can_be_called_off() -> None:
    with plugged(until_cancelled) as desk:
        cancel, seen = threading.Event(), list[STATUS]()

        def keepalive(status: STATUS) -> None:
            seen.append(status)
            cancel.set()

        answer = desk.device().call(CTAPHID.CBOR, SELECT, cancel, keepalive)
        assert answer == bytes([ERR.KEEPALIVE_CANCEL])
        assert seen == [STATUS.UPNEEDED]


def test_it_says_so_every_tenth_of_a_second() -> None:
    with plugged(until_cancelled) as desk:
        host = desk.raw()
        channel = host.channel()
        host.send(channel, CTAPHID.CBOR, SELECT)
        began = time.monotonic()
        for _ in range(3):
            assert host.receive() == (channel, CTAPHID.KEEPALIVE, bytes([STATUS.UPNEEDED]))
        assert 0.25 < time.monotonic() - began < 2
        host.send(channel, CTAPHID.CANCEL)
        while (message := host.receive())[1] == CTAPHID.KEEPALIVE:
            pass
        assert message == (channel, CTAPHID.CBOR, bytes([ERR.KEEPALIVE_CANCEL]))


def test_one_channel_at_work_makes_the_others_wait() -> None:
    with plugged(until_cancelled) as desk:
        host = desk.raw()
        first, second = host.channel(), host.channel()
        assert first != second
        host.send(first, CTAPHID.PING, b"p" * 57, 100)
        host.send(second, CTAPHID.PING, b"?")
        assert host.error() == 0x06
        host.go_on(second, 0)  # not its turn: ignored
        host.go_on(first, 0, b"p" * 43)
        assert host.receive()[:2] == (first, CTAPHID.PING)
        host.connection.read_packet()
        host.send(first, CTAPHID.CBOR, SELECT)
        host.send(second, CTAPHID.CANCEL)  # not its request: ignored
        host.send(second, CTAPHID.PING, b"?")
        messages = [host.receive() for _ in range(3)]
        assert (second, CTAPHID.ERROR, b"\x06") in messages
        assert host_init_while_busy(host) not in {first, second}
        host.send(first, CTAPHID.CANCEL)


def host_init_while_busy(host: Raw) -> int:
    host.send(BROADCAST, CTAPHID.INIT, b"12345678")
    while (message := host.receive())[1] == CTAPHID.KEEPALIVE:
        pass
    return int.from_bytes(message[2][8:12], "big")


def test_a_message_that_stops_half_way_gives_way_after_half_a_second() -> None:
    with plugged() as desk:
        host = desk.raw()
        first, second = host.channel(), host.channel()
        host.send(first, CTAPHID.PING, b"p" * 57, 100)
        time.sleep(0.55)
        host.send(second, CTAPHID.PING, b"?")
        assert host.receive() == (first, CTAPHID.ERROR, b"\x05")
        assert host.receive() == (second, CTAPHID.PING, b"?")


def test_a_host_that_begins_again_hears_nothing_of_its_old_request() -> None:
    with plugged(until_cancelled) as desk:
        host = desk.raw()
        channel = host.channel()
        host.send(channel, CTAPHID.CBOR, SELECT)
        assert host.channel(on=channel) == channel
        host.send(channel, CTAPHID.PING, b"?")
        assert host.receive() == (channel, CTAPHID.PING, b"?")


Wrong = Callable[[Raw, int], None]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        pytest.param(lambda host, own: host.send(own, 0x05), 0x01, id="unknown"),
        pytest.param(lambda host, own: host.send(own, CTAPHID.MSG, b"u2f"), 0x01, id="u2f"),
        pytest.param(
            lambda host, own: host.send(own, CTAPHID.PING, length=7610), 0x03, id="too long"
        ),
        pytest.param(lambda host, own: host.send(own, CTAPHID.CBOR), 0x03, id="empty cbor"),
        pytest.param(
            lambda host, own: host.send(own, CTAPHID.WINK, b"?"), 0x03, id="wink with data"
        ),
        pytest.param(
            lambda host, _own: host.send(BROADCAST, CTAPHID.INIT, b"short"), 0x03, id="short nonce"
        ),
        pytest.param(
            lambda host, own: host.send(own + 1, CTAPHID.PING), 0x0B, id="unknown channel"
        ),
        pytest.param(
            lambda host, own: host.send(own + 1, CTAPHID.INIT, b"12345678"),
            0x0B,
            id="init on an unknown channel",
        ),
        pytest.param(lambda host, _own: host.send(BROADCAST, CTAPHID.PING), 0x0B, id="broadcast"),
        pytest.param(lambda host, _own: host.send(0, CTAPHID.PING), 0x0B, id="channel zero"),
    ],
)
def test_a_wrong_packet_gets_its_error(wrong: Wrong, code: int) -> None:
    with plugged() as desk:
        host = desk.raw()
        channel = host.channel()
        wrong(host, channel)
        assert host.error() == code
        host.send(channel, CTAPHID.PING, b"?")
        assert host.receive() == (channel, CTAPHID.PING, b"?")


def test_packets_out_of_order_are_refused() -> None:
    with plugged() as desk:
        host = desk.raw()
        channel = host.channel()
        host.send(channel, CTAPHID.PING, b"p" * 57, 100)
        host.go_on(channel, 1)
        assert host.error() == 0x04
        host.send(channel, CTAPHID.PING, b"p" * 57, 100)
        host.send(channel, CTAPHID.PING)
        assert host.error() == 0x04


def test_a_bug_in_the_key_is_an_answer_and_not_a_silence() -> None:
    def broken(_cancel: threading.Event) -> bool:
        raise RuntimeError("bug")

    with plugged(broken) as desk:
        device = desk.device()
        for _ in range(2):
            assert device.call(CTAPHID.CBOR, SELECT) == b"\x7f"


def test_events_that_mean_nothing_are_passed_over() -> None:
    with plugged() as desk:
        for event in (b"\x02\0\0\0", b"\x06\0\0\0", b"\x04" + bytes(4379), b"\x06" + bytes(4379)):
            desk.kernel.disturb(event)
        assert desk.device().ping(b"?") == b"?"


def test_unplugged_in_the_middle_of_a_touch_it_comes_back_as_a_new_device() -> None:
    with plugged(until_cancelled) as desk:
        old = desk.device()

        def pull(_status: STATUS) -> None:
            desk.key.unplug()
            desk.key.unplug()

        with pytest.raises(OSError, match="Input/output error"):
            old.call(CTAPHID.CBOR, SELECT, on_keepalive=pull)
        assert desk.kernel.descriptors() == []
        with pytest.raises(OSError, match="No such device"):
            old.ping()
        desk.key.plug()
        desk.key.plug()
        assert desk.device().ping(b"?") == b"?"
        assert desk.kernel.plugged == 2


def test_two_programs_on_one_key_read_each_others_packets_as_with_hidraw() -> None:
    with plugged() as desk:
        first, second = desk.device(), desk.device()
        assert second.ping(b"?") == b"?"
        with pytest.raises(ConnectionFailure, match="Wrong channel"):
            first.ping(b"!")


def test_a_dead_key_answers_nothing() -> None:
    with plugged(silent=True) as desk:
        host = desk.raw()
        host.send(BROADCAST, CTAPHID.INIT, b"12345678")
        time.sleep(0.1)
        assert host.connection.packets.empty()


def test_it_obeys_line_by_line() -> None:
    said = list[str]()
    hand = Hand(said.append, patience_s=5)
    with plugged(hand) as desk:
        lines = io.StringIO("unplug\nplug\n\ndance\ntouch\nquit\ntouch\n")
        assert obey(lines, desk.key, hand, said.append)
        assert said == ["unplugged\n", "plugged\n", "unknown command: dance\n"]
        assert not obey(["unplug"], desk.key, hand, said.append)


@pytest.mark.parametrize(
    ("word", "code"), [("touch", ERR.SUCCESS), ("refuse", ERR.OPERATION_DENIED)]
)
def test_only_a_touch_while_it_blinks_counts(word: str, code: int) -> None:
    said = list[str]()
    hand = Hand(said.append, patience_s=5)
    hand.give(touch=code != ERR.SUCCESS)  # too early: lost
    with plugged(hand) as desk:

        def person(_status: STATUS) -> None:
            while not said:
                time.sleep(0.01)
            obey([word], desk.key, hand, said.append)

        assert desk.device().call(CTAPHID.CBOR, SELECT, on_keepalive=person) == bytes([code])
    assert said == ["blinking\n", "dark\n"]


def test_a_hand_that_is_not_told_gives_up_or_touches_by_itself_or_is_called_off() -> None:
    cancel, said = threading.Event(), list[str]()
    assert Hand(said.append, patience_s=0.1)(cancel) is None
    assert Hand(said.append, after_s=0.1)(cancel) is True
    cancel.set()
    assert Hand(said.append, after_s=5)(cancel) is None
    assert said == ["blinking\n", "dark\n"] * 3


def test_its_help_says_how_to_run_it() -> None:
    command = [sys.executable, "-m", "killswitch.sandbox.uhid", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    assert "--touch-after" in shown.stdout
