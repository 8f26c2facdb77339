"""The software key's PIN, held to the protocol by python-fido2's own ClientPin."""

from pathlib import Path

import pytest
from fido2.client import ClientError, PinRequiredError
from fido2.ctap import CtapError
from fido2.ctap2.base import Ctap2
from fido2.ctap2.config import Config
from fido2.ctap2.pin import ClientPin, PinProtocolV1, PinProtocolV2

from killswitch.authority.ring import SANDBOX_RP_ID
from killswitch.sandbox.softkey import SoftKey, SoftKeyDevice
from tests.device.clients import DISCOURAGED, REQUIRED, Person, listed, registered, signed, touched

ERR = CtapError.ERR
MAKE, SIGN = ClientPin.PERMISSION.MAKE_CREDENTIAL, ClientPin.PERMISSION.GET_ASSERTION
PROTOCOLS = [PinProtocolV1, PinProtocolV2]
Protocol = type[PinProtocolV1]


def desk(key: SoftKey, protocol: Protocol = PinProtocolV2) -> ClientPin:
    return ClientPin(Ctap2(SoftKeyDevice(key)), protocol())


def code(error: pytest.ExceptionInfo[CtapError]) -> int:
    return error.value.code


def wrong(pin: ClientPin, guess: str = "9999") -> int:
    with pytest.raises(CtapError) as caught:
        pin.get_pin_token(guess, SIGN, SANDBOX_RP_ID)
    return code(caught)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pin_is_set_once_and_changed_with_the_old_one(protocol: Protocol) -> None:
    key = SoftKey(touch=touched)
    pin = desk(key, protocol)
    pin.set_pin("1234")
    with pytest.raises(CtapError) as caught:
        pin.set_pin("5678")
    assert code(caught) == ERR.PIN_AUTH_INVALID
    pin.change_pin("1234", "5678")
    assert wrong(pin, "1234") == ERR.PIN_INVALID
    assert len(pin.get_pin_token("5678", SIGN, SANDBOX_RP_ID)) == 32
    assert len(pin.get_pin_token("5678")) == 32  # the command of CTAP 2.0


def test_a_key_without_a_pin_says_so() -> None:
    pin = desk(SoftKey(touch=touched))
    with pytest.raises(CtapError) as caught:
        pin.get_pin_retries()
    assert code(caught) == ERR.PIN_NOT_SET
    assert wrong(pin) == ERR.PIN_NOT_SET


def test_three_wrong_pins_block_it_until_it_is_plugged_in_again() -> None:
    key = SoftKey(touch=touched, pin="1234")
    pin = desk(key)
    assert pin.get_pin_retries() == (8, False)
    assert [wrong(pin) for _ in range(3)] == [ERR.PIN_INVALID] * 2 + [ERR.PIN_AUTH_BLOCKED]
    assert pin.get_pin_retries() == (5, True)
    assert wrong(pin, "1234") == ERR.PIN_AUTH_BLOCKED
    assert pin.get_pin_retries() == (5, True)  # a blocked key does not count
    key.replug()
    assert pin.get_pin_token("1234", SIGN, SANDBOX_RP_ID)
    assert pin.get_pin_retries() == (8, False)


def test_eight_wrong_pins_block_it_for_good(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    key = SoftKey.load(path, touch=touched)
    key.set_pin("1234")
    codes = []
    for number in range(8):
        codes.append(wrong(desk(key)))
        if number % 2:
            key.replug()
    assert codes == [ERR.PIN_INVALID] * 7 + [ERR.PIN_BLOCKED]
    again = desk(SoftKey.load(path, touch=touched))
    assert wrong(again, "1234") == ERR.PIN_BLOCKED
    assert again.get_pin_retries()[0] == 0


@pytest.mark.parametrize("pin", ["1234567890" * 7, "äöü"])
def test_a_pin_that_is_too_long_or_too_short_is_refused(pin: str) -> None:
    with pytest.raises(CtapError) as caught:
        SoftKey(touch=touched, pin=pin)
    assert code(caught) == ERR.PIN_POLICY_VIOLATION


def test_with_the_pin_the_assertion_says_that_the_user_was_verified() -> None:
    device = SoftKeyDevice(SoftKey(touch=touched, pin="1234"))
    credential, made = registered(device, Person("1234"), uv=REQUIRED)
    assert made.response.attestation_object.auth_data.is_user_verified()
    with_pin = signed(device, [credential], Person("1234"), uv=REQUIRED)
    assert with_pin.response.authenticator_data.is_user_verified()
    nobody = Person()
    without = signed(device, [credential], nobody, uv=DISCOURAGED)
    assert not without.response.authenticator_data.is_user_verified()
    assert nobody.asked == 0


def test_always_uv_asks_for_the_pin_although_nobody_wants_it() -> None:
    key = SoftKey(touch=touched, pin="1234")
    device = SoftKeyDevice(key)
    credential, _ = registered(device)
    key.always_uv = True
    person = Person("1234")
    answer = signed(device, [credential], person)
    assert answer.response.authenticator_data.is_user_verified()
    assert person.asked == 1
    with pytest.raises(PinRequiredError):
        signed(device, [credential], Person())
    with pytest.raises(ClientError, check=lambda error: "PIN_INVALID" in repr(error)):
        signed(device, [credential], Person("9999"))


def test_always_uv_lets_a_look_without_touch_pass_and_nothing_else() -> None:
    key = SoftKey(touch=touched, pin="1234")
    credential, _ = registered(SoftKeyDevice(key))
    key.always_uv = True
    ctap = Ctap2(SoftKeyDevice(key))
    allowed = listed(credential)
    look = ctap.get_assertion(SANDBOX_RP_ID, bytes(32), allowed, options={"up": False})
    assert look.auth_data.flags == 0
    with pytest.raises(CtapError) as caught:
        ctap.get_assertion(SANDBOX_RP_ID, bytes(32), allowed)
    assert code(caught) == ERR.PUAT_REQUIRED


def test_a_token_serves_one_touch_of_one_relying_party() -> None:
    key = SoftKey(touch=touched, pin="1234")
    credential, _ = registered(SoftKeyDevice(key))
    ctap, pin = Ctap2(SoftKeyDevice(key)), desk(key)
    allowed = listed(credential)

    def use(token: bytes, rp_id: str = SANDBOX_RP_ID) -> None:
        proof = pin.protocol.authenticate(token, bytes(32))
        ctap.get_assertion(rp_id, bytes(32), allowed, None, None, proof, 2)

    token = pin.get_pin_token("1234", SIGN, SANDBOX_RP_ID)
    use(token)
    for spent in (
        token,
        bytes(32),
        pin.get_pin_token("1234", SIGN, "elsewhere.example"),
        pin.get_pin_token("1234", MAKE, SANDBOX_RP_ID),
    ):
        with pytest.raises(CtapError) as caught:
            use(spent)
        assert code(caught) == ERR.PIN_AUTH_INVALID


def test_a_token_dies_with_a_replug_and_a_new_pin() -> None:
    key = SoftKey(touch=touched, pin="1234")
    pin = desk(key)

    def dead(token: bytes) -> bool:
        proof = pin.protocol.authenticate(token, bytes(32))
        with pytest.raises(CtapError) as caught:
            pin.ctap.get_assertion(SANDBOX_RP_ID, bytes(32), None, None, None, proof, 2)
        return code(caught) == ERR.PIN_AUTH_INVALID

    token = pin.get_pin_token("1234", SIGN, SANDBOX_RP_ID)
    key.replug()
    assert dead(token)
    token = pin.get_pin_token("1234", SIGN, SANDBOX_RP_ID)
    pin.change_pin("1234", "5678")
    assert dead(token)


@pytest.mark.parametrize(
    ("permissions", "rp_id", "expected"),
    [
        (0, SANDBOX_RP_ID, ERR.INVALID_PARAMETER),
        (2, None, ERR.MISSING_PARAMETER),
        (8, SANDBOX_RP_ID, ERR.UNAUTHORIZED_PERMISSION),
    ],
)
def test_a_senseless_permission_is_refused(
    permissions: int, rp_id: str | None, expected: int
) -> None:
    pin = desk(SoftKey(touch=touched, pin="1234"))
    with pytest.raises(CtapError) as caught:
        pin.get_pin_token("1234", ClientPin.PERMISSION(permissions), rp_id)
    assert code(caught) == expected


@pytest.mark.parametrize(
    "change", [{3: {1: 2}}, {3: {-2: bytes(32), -3: bytes(32)}}, {6: b"short"}, {6: bytes(15)}]
)
def test_a_damaged_exchange_gets_a_code_and_costs_no_try(change: dict[int, object]) -> None:
    key = SoftKey(touch=touched, pin="1234")
    pin = desk(key, PinProtocolV1)
    agreement, _ = pin._get_shared_secret()  # type: ignore[no-untyped-call]  # upstream's
    request = {1: 1, 2: 5, 3: agreement, 6: bytes(16)}
    with pytest.raises(CtapError) as caught:
        pin.ctap.send_cbor(Ctap2.CMD.CLIENT_PIN, {**request, **change})
    assert code(caught) == ERR.INVALID_PARAMETER
    assert pin.get_pin_retries()[0] == 8


def test_the_owner_switches_always_uv_and_demands_a_longer_pin_through_the_protocol() -> None:
    key = SoftKey(touch=touched, pin="1234")
    pin = desk(key)

    def owner(secret: str) -> Config:
        token = pin.get_pin_token(secret, ClientPin.PERMISSION.AUTHENTICATOR_CFG)
        return Config(Ctap2(SoftKeyDevice(key)), pin.protocol, token)

    owner("1234").toggle_always_uv()
    assert key.always_uv
    with pytest.raises(CtapError) as caught:
        Config(Ctap2(SoftKeyDevice(key))).toggle_always_uv()
    assert code(caught) == ERR.PUAT_REQUIRED
    owner("1234").set_min_pin_length(6)
    assert Ctap2(SoftKeyDevice(key)).info.force_pin_change
    assert wrong(pin, "1234") == ERR.PIN_INVALID
    pin.change_pin("1234", "123456")
    with pytest.raises(CtapError) as caught:
        owner("123456").set_min_pin_length(4)
    assert code(caught) == ERR.PIN_POLICY_VIOLATION
