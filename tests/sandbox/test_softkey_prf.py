"""PRF, attestation and discoverable credentials of the software key, through the real client."""

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fido2.attestation.packed import PackedAttestation
from fido2.client import ClientError
from fido2.ctap import CtapError
from fido2.ctap2.base import Ctap2
from fido2.ctap2.credman import CredentialManagement
from fido2.ctap2.pin import ClientPin, PinProtocolV1, PinProtocolV2
from fido2.webauthn import AttestedCredentialData, UserVerificationRequirement

from killswitch.authority.ring import SANDBOX_AAGUID, SANDBOX_RP_ID
from killswitch.sandbox.softkey import SoftKey, SoftKeyDevice
from tests.device.clients import (
    DISCOURAGED,
    REQUIRED,
    Person,
    client,
    listed,
    registered,
    server,
    signed,
    touched,
)

ERR = CtapError.ERR
PRF: Final[dict[str, object]] = {"prf": {}}


def prf(
    key: SoftKey,
    credential: AttestedCredentialData,
    first: bytes,
    second: bytes | None = None,
    *,
    uv: UserVerificationRequirement = DISCOURAGED,
) -> tuple[bytes, bytes | None, bool]:
    """Return the outputs for the salts, and whether the user was verified."""
    salts = {"first": first} if second is None else {"first": first, "second": second}
    answer = signed(
        SoftKeyDevice(key), [credential], Person("1234"), uv=uv, extensions={"prf": {"eval": salts}}
    )
    results = answer.client_extension_results.prf.results
    verified = answer.response.authenticator_data.is_user_verified()
    return results.first, results.second or None, verified


@pytest.mark.parametrize("protocol", [PinProtocolV1, PinProtocolV2])
def test_an_output_is_stable_per_salt_and_credential(
    protocol: type[PinProtocolV1], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClientPin, "PROTOCOLS", [protocol])
    key = SoftKey(touch=touched)
    credential, made = registered(SoftKeyDevice(key), extensions=PRF)
    other, _ = registered(SoftKeyDevice(key), user="ben", extensions=PRF)
    assert made.client_extension_results.prf.enabled is True
    one, two, _ = prf(key, credential, b"one", b"two")
    assert len(one) == 32
    assert two is not None
    assert one != two
    assert prf(key, credential, b"two", b"one")[:2] == (two, one)
    assert prf(key, credential, b"one")[:2] == (one, None)
    assert prf(key, other, b"one")[0] != one


def test_the_output_with_the_pin_is_another_and_follows_the_switch_on_the_key() -> None:
    key = SoftKey(touch=touched)
    credential, _ = registered(SoftKeyDevice(key), extensions=PRF)
    without, _, _ = prf(key, credential, b"salt")
    key.set_pin("1234")
    assert prf(key, credential, b"salt") == (without, None, False)
    with_pin, _, verified = prf(key, credential, b"salt", uv=REQUIRED)
    assert verified
    assert with_pin != without
    key.always_uv = True
    assert prf(key, credential, b"salt") == (with_pin, None, True)


def test_a_key_that_may_gives_the_output_when_the_credential_is_made() -> None:
    plain, newest = (SoftKey(touch=touched, hmac_secret_mc=mc) for mc in (False, True))
    wanted = {"prf": {"eval": {"first": b"salt"}}}
    _, made = registered(SoftKeyDevice(plain), extensions=wanted)
    assert made.client_extension_results.prf.results is None
    credential, made = registered(SoftKeyDevice(newest), extensions=wanted)
    assert made.client_extension_results.prf.results.first == prf(newest, credential, b"salt")[0]


def test_no_secret_is_given_without_a_touch_or_for_forged_salts() -> None:
    key = SoftKey(touch=touched)
    credential, _ = registered(SoftKeyDevice(key), extensions=PRF)
    ctap = Ctap2(SoftKeyDevice(key))
    pin = ClientPin(ctap)
    agreement, secret = pin._get_shared_secret()  # type: ignore[no-untyped-call]  # upstream's
    allowed = listed(credential)

    def ask(salts: bytes, proof: bytes | None = None, *, up: bool = True) -> int:
        encrypted = pin.protocol.encrypt(secret, salts)
        proof = proof or pin.protocol.authenticate(secret, encrypted)
        wanted = {"hmac-secret": {1: agreement, 2: encrypted, 3: proof, 4: 2}}
        with pytest.raises(CtapError) as caught:
            ctap.get_assertion(
                SANDBOX_RP_ID, bytes(32), allowed, wanted, None if up else {"up": False}
            )
        return caught.value.code

    assert ask(bytes(32), up=False) == ERR.UNSUPPORTED_OPTION
    assert ask(bytes(32), bytes(32)) == ERR.PIN_AUTH_INVALID
    assert ask(bytes(16)) == ERR.INVALID_PARAMETER


def certified() -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    """Return an attestation key and its certificate, as WebAuthn section 8.2.1 wants it."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "CH"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Authenticator Attestation"),
            x509.NameAttribute(NameOID.COMMON_NAME, "Example key"),
        ]
    )
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, private.public_key(), 1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    return private, certificate.public_bytes(serialization.Encoding.DER)


def test_a_certificate_attests_new_credentials() -> None:
    private, certificate = certified()
    key = SoftKey(touch=touched, attestation=(private, [certificate]))
    _, made = registered(SoftKeyDevice(key))
    response = made.response
    statement = response.attestation_object.att_stmt
    assert statement["x5c"] == [certificate]
    result = PackedAttestation().verify(
        statement, response.attestation_object.auth_data, response.client_data.hash
    )
    assert result.trust_path == [certificate]
    assert response.attestation_object.auth_data.credential_data is not None
    assert response.attestation_object.auth_data.credential_data.aaguid == SANDBOX_AAGUID


def test_discoverable_credentials_are_found_without_a_list_newest_first() -> None:
    key = SoftKey(touch=touched)
    device = SoftKeyDevice(key)
    made = [registered(device, user=user, resident=True)[0] for user in ("anna", "ben", "anna")]
    options, state = server().authenticate_begin(user_verification=DISCOURAGED)
    found = client(device).get_assertion(options.public_key)
    answers = [found.get_response(number) for number in range(len(found.get_assertions()))]
    assert [one.response.user_handle for one in answers] == [b"anna", b"ben"]
    for answer, credential in zip(answers, [made[2], made[1]], strict=True):
        server().authenticate_complete(state, [credential], answer)
    with pytest.raises(ClientError, check=lambda error: "NO_CREDENTIALS" in repr(error)):
        signed(device, [made[0]])  # one account has one


def test_discoverable_credentials_need_the_pin_and_end_when_they_are_deleted() -> None:
    key = SoftKey(touch=touched, pin="1234")
    device = SoftKeyDevice(key)
    with pytest.raises(CtapError) as caught:
        Ctap2(device).make_credential(
            bytes(32),
            {"id": SANDBOX_RP_ID},
            {"id": b"anna"},
            [{"alg": -7, "type": "public-key"}],
            options={"rk": True},
        )
    assert caught.value.code == ERR.PUAT_REQUIRED
    credential, _ = registered(device, Person("1234"), uv=REQUIRED, resident=True)
    pin = ClientPin(Ctap2(device))
    token = pin.get_pin_token("1234", ClientPin.PERMISSION.CREDENTIAL_MGMT)
    manager = CredentialManagement(Ctap2(device), pin.protocol, token)
    [rp] = manager.enumerate_rps()
    assert rp[CredentialManagement.RESULT.RP] == {"id": SANDBOX_RP_ID}
    [kept] = manager.enumerate_creds(rp[CredentialManagement.RESULT.RP_ID_HASH])
    assert kept[CredentialManagement.RESULT.CREDENTIAL_ID]["id"] == credential.credential_id
    manager.delete_cred(kept[CredentialManagement.RESULT.CREDENTIAL_ID])
    assert manager.enumerate_rps() == []
    with pytest.raises(ClientError, check=lambda error: "NO_CREDENTIALS" in repr(error)):
        signed(device, [credential])


def test_a_key_has_room_for_so_many_and_no_more() -> None:
    device = SoftKeyDevice(SoftKey(touch=touched))
    room = Ctap2(device).info.remaining_disc_creds
    assert room == 25
    for number in range(room):
        registered(device, user=f"user {number}", resident=True)
    with pytest.raises(ClientError, check=lambda error: "KEY_STORE_FULL" in repr(error)):
        registered(device, user="one more", resident=True)
    registered(device, user="user 3", resident=True)  # in the place of the old one


def test_a_credential_that_demands_the_pin_is_not_found_without_it() -> None:
    device = SoftKeyDevice(SoftKey(touch=touched, pin="1234"))
    wanted = {
        "credentialProtectionPolicy": "userVerificationRequired",
        "enforceCredentialProtectionPolicy": True,
    }
    credential, _ = registered(device, Person("1234"), uv=REQUIRED, extensions=wanted)
    assert signed(device, [credential], Person("1234"), uv=REQUIRED)
    with pytest.raises(ClientError, check=lambda error: "NO_CREDENTIALS" in repr(error)):
        signed(device, [credential], uv=DISCOURAGED)
