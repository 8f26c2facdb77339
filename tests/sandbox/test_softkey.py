"""The software key, held to the protocol by the real python-fido2 client and server."""

import json
import stat
import threading
from pathlib import Path

import pytest
from fido2 import cbor
from fido2.client import ClientError, DefaultClientDataCollector, Fido2Client
from fido2.ctap import CtapError
from fido2.ctap2.base import Ctap2
from fido2.server import Fido2Server
from fido2.webauthn import (
    AttestationConveyancePreference,
    AttestationObject,
    AttestedCredentialData,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialUserEntity,
    UserVerificationRequirement,
)

from killswitch.authority.ring import SANDBOX_AAGUID, SANDBOX_RP_ID
from killswitch.errors import ConfigError
from killswitch.sandbox import softkey_credentials as credentials
from killswitch.sandbox.softkey import SoftKey, SoftKeyDevice, Touch
from killswitch.sandbox.softkey_state import InFile

ERR = CtapError.ERR
DISCOURAGED = UserVerificationRequirement.DISCOURAGED
USER = PublicKeyCredentialUserEntity(id=b"anna", name="anna")


def touched(_cancel: threading.Event) -> bool:
    return True


def refused(_cancel: threading.Event) -> bool:
    return False


def ignored(_cancel: threading.Event) -> None:
    return None


class Person:
    """Touches at every request, and counts them."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, _cancel: threading.Event) -> bool:
        self.asked += 1
        return True


def client(key: SoftKey, rp_id: str = SANDBOX_RP_ID) -> Fido2Client:
    return Fido2Client(SoftKeyDevice(key), DefaultClientDataCollector(f"https://{rp_id}"))


def server(rp_id: str = SANDBOX_RP_ID) -> Fido2Server:
    return Fido2Server(
        PublicKeyCredentialRpEntity(id=rp_id, name="killswitch"),
        attestation=AttestationConveyancePreference.DIRECT,
        verify_attestation=self_attested,
    )


def self_attested(attestation: AttestationObject, client_data_hash: bytes) -> None:
    """The statement is packed, without a chain, and signed by the new credential itself."""
    assert attestation.fmt == "packed"
    assert set(attestation.att_stmt) == {"alg", "sig"}
    credential = attestation.auth_data.credential_data
    assert credential is not None
    credential.public_key.verify(
        attestation.auth_data + client_data_hash, attestation.att_stmt["sig"]
    )


def register(
    key: SoftKey, exclude: list[AttestedCredentialData] | None = None, rp_id: str = SANDBOX_RP_ID
) -> AttestedCredentialData:
    options, state = server(rp_id).register_begin(USER, exclude, user_verification=DISCOURAGED)
    made = client(key, rp_id).make_credential(options.public_key)
    credential = server(rp_id).register_complete(state, made).credential_data
    assert credential is not None
    return credential


def sign(key: SoftKey, credential: AttestedCredentialData) -> int:
    """Return the counter of a fresh, verified signature."""
    options, state = server().authenticate_begin([credential], user_verification=DISCOURAGED)
    response = client(key).get_assertion(options.public_key).get_response(0)
    server().authenticate_complete(state, [credential], response)
    return response.response.authenticator_data.counter


def status(key: SoftKey, request: bytes, *, cancelled: bool = False) -> int:
    cancel = threading.Event()
    if cancelled:
        cancel.set()
    return key.handle(request, cancel)[0]


def test_it_registers_and_signs_through_the_real_client_and_server() -> None:
    key = SoftKey(touch=touched)
    credential = register(key)
    assert bytes(credential.aaguid) == SANDBOX_AAGUID == b"killswitch-sandb"
    assert [sign(key, credential), sign(key, credential)] == [2, 3]


def test_it_says_truthfully_what_it_can_do() -> None:
    key = SoftKey(touch=touched)
    info = Ctap2(SoftKeyDevice(key)).info
    assert info.versions == ["FIDO_2_0", "FIDO_2_1"]
    assert bytes(info.aaguid) == SANDBOX_AAGUID
    assert info.extensions == ["hmac-secret", "credProtect", "minPinLength"]
    assert info.pin_uv_protocols == [2, 1]
    assert info.options == {
        "alwaysUv": False,
        "authnrCfg": True,
        "clientPin": False,
        "credMgmt": True,
        "makeCredUvNotRqd": True,
        "pinUvAuthToken": True,
        "plat": False,
        "rk": True,
        "setMinPINLength": True,
        "up": True,
    }
    key.set_pin("1234")
    key.always_uv = True
    changed = {"alwaysUv": True, "clientPin": True, "makeCredUvNotRqd": False}
    assert Ctap2(SoftKeyDevice(key)).info.options == {**info.options, **changed}


def test_a_look_without_touch_signs_without_the_presence_flag_and_asks_nobody() -> None:
    person = Person()
    key = SoftKey(touch=person)
    credential = register(key)
    answer = Ctap2(SoftKeyDevice(key)).get_assertion(
        SANDBOX_RP_ID,
        bytes(32),
        [{"type": "public-key", "id": credential.credential_id}],
        options={"up": False},
    )
    answer.verify(bytes(32), credential.public_key)
    assert not answer.auth_data.is_user_present()
    assert person.asked == 1  # at the registration


def test_it_makes_no_credential_for_a_production_relying_party() -> None:
    with pytest.raises(ClientError) as caught:
        register(SoftKey(touch=touched), rp_id="killswitch.example")
    assert isinstance(caught.value.cause, CtapError)
    assert caught.value.cause.code == ERR.NOT_ALLOWED


def test_it_will_not_register_twice() -> None:
    key = SoftKey(touch=touched)
    credential = register(key)
    with pytest.raises(ClientError, check=lambda error: "EXCLUDED" in repr(error)):
        register(key, [credential])


def test_it_does_not_know_another_keys_credential_but_still_wants_the_touch() -> None:
    person = Person()
    credential = register(SoftKey(touch=touched))
    with pytest.raises(ClientError, check=lambda error: "NO_CREDENTIALS" in repr(error)):
        sign(SoftKey(touch=person), credential)
    assert person.asked == 1


@pytest.mark.parametrize(
    ("touch", "code"), [(refused, ERR.OPERATION_DENIED), (ignored, ERR.USER_ACTION_TIMEOUT)]
)
def test_a_refusal_and_a_time_out_have_their_own_codes(touch: Touch, code: int) -> None:
    assert status(SoftKey(touch=touch), bytes([Ctap2.CMD.SELECTION])) == code


def test_a_cancelled_request_answers_so_whatever_the_touch_says() -> None:
    key = SoftKey(touch=touched)
    assert status(key, bytes([Ctap2.CMD.SELECTION]), cancelled=True) == ERR.KEEPALIVE_CANCEL


def test_a_second_request_waits_for_its_turn_and_can_be_cancelled() -> None:
    go = threading.Event()
    key = SoftKey(touch=lambda _cancel: go.wait(5))
    busy = threading.Thread(target=status, args=(key, bytes([Ctap2.CMD.SELECTION])))
    busy.start()
    try:
        assert status(key, bytes([4]), cancelled=True) == ERR.KEEPALIVE_CANCEL
    finally:
        go.set()
        busy.join()


MAKE: dict[int, object] = {
    1: bytes(32),
    2: {"id": SANDBOX_RP_ID},
    3: {"id": b"anna", "name": "anna"},
    4: [{"alg": -7, "type": "public-key"}],
}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, ERR.SUCCESS),
        ({4: [{"alg": -8, "type": "public-key"}]}, ERR.UNSUPPORTED_ALGORITHM),
        ({4: "ES256"}, ERR.CBOR_UNEXPECTED_TYPE),
        ({2: {"name": "no id"}}, ERR.MISSING_PARAMETER),
        ({7: {"rk": True}}, ERR.SUCCESS),
        ({6: {"credProtect": 4}}, ERR.INVALID_OPTION),
        ({6: {"hmac-secret": 1}}, ERR.CBOR_UNEXPECTED_TYPE),
        ({7: {"uv": True}}, ERR.INVALID_OPTION),
        ({7: {"up": False}}, ERR.INVALID_OPTION),
        ({8: b"", 9: 2}, ERR.PIN_NOT_SET),
        ({8: b"proof"}, ERR.MISSING_PARAMETER),
        ({8: b"proof", 9: 3}, ERR.INVALID_PARAMETER),
        ({8: b"proof", 9: 2}, ERR.PIN_AUTH_INVALID),
    ],
)
def test_a_request_to_make_a_credential_is_checked(change: dict[int, object], code: int) -> None:
    request = bytes([Ctap2.CMD.MAKE_CREDENTIAL]) + cbor.encode({**MAKE, **change})
    assert status(SoftKey(touch=touched), request) == code


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"", ERR.INVALID_COMMAND),
        (b"\x55", ERR.INVALID_COMMAND),
        (b"\x06", ERR.INVALID_CBOR),
        (b"\x06" + cbor.encode({1: 2}), ERR.MISSING_PARAMETER),
        (b"\x06" + cbor.encode({1: 2, 2: 99}), ERR.INVALID_SUBCOMMAND),
        (b"\x06" + cbor.encode({1: 2, 2: 3}), ERR.MISSING_PARAMETER),
        (b"\x06" + cbor.encode({2: 2}), ERR.MISSING_PARAMETER),
        (b"\x06" + cbor.encode({1: 3, 2: 2}), ERR.INVALID_PARAMETER),
        (b"\x08", ERR.NOT_ALLOWED),
        (b"\x0a" + cbor.encode({1: 1}), ERR.PUAT_REQUIRED),
        (b"\x0a" + cbor.encode({1: 3}), ERR.NOT_ALLOWED),
        (b"\x0d" + cbor.encode({1: 99}), ERR.INVALID_SUBCOMMAND),
        (b"\x0d" + cbor.encode({1: 3, 2: {3: True}}), ERR.PIN_NOT_SET),
        (b"\x04" * 1201, ERR.REQUEST_TOO_LARGE),
        (b"\x01", ERR.INVALID_CBOR),
        (b"\x02\xff\xff", ERR.INVALID_CBOR),
        (b"\x02\x01", ERR.INVALID_CBOR),
        (b"\x02" + cbor.encode({1: SANDBOX_RP_ID}), ERR.MISSING_PARAMETER),
        (b"\x02" + cbor.encode({1: SANDBOX_RP_ID, 2: bytes(32)}), ERR.NO_CREDENTIALS),
        (b"\x02" + cbor.encode({1: "a", 2: b"", 5: {"rk": True}}), ERR.UNSUPPORTED_OPTION),
        (b"\x02" + cbor.encode({1: "a", 2: b"", 5: {"uv": True}}), ERR.INVALID_OPTION),
        (b"\x02" + cbor.encode({1: "a", 2: b"", 6: b""}), ERR.PIN_NOT_SET),
    ],
)
def test_a_senseless_request_gets_a_code_and_no_crash(request_: bytes, code: int) -> None:
    assert status(SoftKey(touch=touched), request_) == code


def test_two_processes_share_one_key_and_one_counter(tmp_path: Path) -> None:
    path = tmp_path / "sandbox" / "key.json"
    first, second = (SoftKey.load(path, touch=touched) for _ in range(2))
    credential = register(first)
    counters = [sign(key, credential) for key in (second, first, second)]
    assert counters == [2, 3, 4]
    assert SoftKey.load(path, touch=touched).counter == 4


def test_no_counter_is_ever_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    credential = register(SoftKey.load(path, touch=touched))
    counters: list[int] = []

    def use() -> None:
        key = SoftKey.load(path, touch=touched)
        counters.extend(sign(key, credential) for _ in range(5))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counters) == list(range(2, 22))


def test_the_key_file_is_private_and_a_writable_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    register(SoftKey.load(path, touch=touched))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o620)
    with pytest.raises(ConfigError, match="can be changed by other users"):
        SoftKey.load(path, touch=touched)


def test_a_damaged_key_file_is_refused_without_showing_it(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text('{"master": "c2VjcmV0', encoding="utf-8")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="damaged") as caught:
        SoftKey.load(path, touch=touched)
    assert "c2Vj" not in str(caught.value)


def test_a_key_file_of_before_is_read_on(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text(json.dumps({"master": "A" * 43 + "=", "counter": 41}), encoding="utf-8")
    path.chmod(0o600)
    key = SoftKey.load(path, touch=touched)
    assert sign(key, register(key)) == 43


def test_what_it_remembers_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    key = SoftKey.load(path, touch=touched)
    key.set_pin("1234")
    key.always_uv = True
    options = Ctap2(SoftKeyDevice(SoftKey.load(path, touch=touched))).info.options
    assert options["clientPin"] is True
    assert options["alwaysUv"] is True
    assert b"1234" not in path.read_bytes()


def test_a_reset_makes_it_another_key() -> None:
    key = SoftKey(touch=touched, pin="1234", always_uv=True)
    assert status(SoftKey(touch=refused), bytes([Ctap2.CMD.RESET])) == ERR.OPERATION_DENIED
    assert status(key, bytes([Ctap2.CMD.RESET])) == ERR.SUCCESS
    credential = register(key)
    assert status(key, bytes([Ctap2.CMD.RESET])) == ERR.SUCCESS
    with pytest.raises(ClientError, check=lambda error: "NO_CREDENTIALS" in repr(error)):
        sign(key, credential)


def test_its_secrets_are_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    key = SoftKey.load(path, touch=touched)
    key.set_pin("1234")
    state = InFile(path).read()
    credential = credentials.make(state.master, SANDBOX_RP_ID)
    assert state.pin_hash is not None
    for text in (repr(key), str(key), repr(state), repr(SoftKeyDevice(key)), repr(credential)):
        for hidden in (state.master, state.pin_hash, credential.scalar):
            assert repr(hidden) not in text
            assert hidden.hex() not in text
