"""The proof: what counts as an authorised order, and what does not."""

import hashlib
import subprocess
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fido2.ctap2.base import Ctap2
from fido2.webauthn import CollectedClientData

from killswitch.authority.enrolment import enroll
from killswitch.authority.pin import PinPolicy
from killswitch.authority.proof import Assertion, mismatch, regressed, verify, verify_stored
from killswitch.authority.ring import SANDBOX_AAGUID, SANDBOX_RP_ID, EnrolledKey, KeyRing
from killswitch.authority.touch import ask_for_touch
from killswitch.errors import NotAuthorizedError
from killswitch.model import Mode, Order
from killswitch.sandbox.softkey import SoftKey, SoftKeyDevice

RP_ID = "killswitch.example"
ORDER = Order(
    id="20261121-0314-k7q2",
    mode=Mode.LIVE,
    issued_at="2026-11-21T03:14:00Z",
    reason="drawdown",
    trigger_value="-12 %",
    incident="",
    scope=("bybit main-desk", "kubernetes k3s-fra"),
    config_sha256="4f" * 32,
    journal_size=117,
    journal_head="9d" * 32,
    bundle_sha256="5e" * 32,
    nonce="00" * 16,
)


@dataclass(slots=True)
class Desk:
    """An enrolled software key that touches itself."""

    soft: SoftKey
    key: EnrolledKey

    def sign(self, order: Order = ORDER, pin: PinPolicy | None = None) -> Assertion:
        """Touch the key on `order`."""
        device = SoftKeyDevice(self.soft)
        touched = ask_for_touch(
            challenge=order.challenge(),
            keys=[self.key],
            rp_id=self.key.rp_id,
            devices=lambda: [device],
            timeout_s=5,
            cancel=threading.Event(),
            on_state=lambda _state: None,
            pin=pin,
        )
        return touched.assertion


def desk(rp_id: str = RP_ID, label: str = "blue", role: str = "halt") -> Desk:
    aaguid = SANDBOX_AAGUID if rp_id == SANDBOX_RP_ID else bytes(16)
    soft = SoftKey(touch=lambda _cancel: True, rp_ids={rp_id}, aaguid=aaguid)
    key = enroll(
        SoftKeyDevice(soft),
        ring=KeyRing(),
        label=label,
        operator="anna",
        rp_id=rp_id,
        now=datetime(2026, 11, 21, tzinfo=UTC),
        cancel=threading.Event(),
        on_touch=lambda _number, _of: None,
        challenge=lambda _key: bytes(32),
        role=role,
    ).key
    return Desk(soft, key)


@pytest.fixture
def blue() -> Desk:
    return desk()


def signed_by_hand(
    blue: Desk,
    *,
    rp_id: str = RP_ID,
    origin: str = f"https://{RP_ID}",
    up: bool = True,
    cross_origin: bool = False,
) -> Assertion:
    """Sign as a client could that does not keep python-fido2's rules."""
    client_data = CollectedClientData.create(
        type=CollectedClientData.TYPE.GET,
        origin=origin,
        challenge=ORDER.challenge(),
        cross_origin=cross_origin,
    )
    answer = Ctap2(SoftKeyDevice(blue.soft)).get_assertion(
        rp_id,
        client_data.hash,
        [{"type": "public-key", "id": blue.key.credential_id}],
        options={"up": up},
    )
    return Assertion(
        credential_id=blue.key.credential_id,
        client_data_json=bytes(client_data),
        authenticator_data=bytes(answer.auth_data),
        signature=answer.signature,
    )


def assert_refused(assertion: Assertion, blue: Desk, words: str, order: Order = ORDER) -> None:
    with pytest.raises(NotAuthorizedError, match=words) as caught:
        verify(order, assertion, [blue.key])
    assert caught.value.exit_code == 3
    assert caught.value.effect == "nothing was revoked; trading is still live"
    assert caught.value.hint


def test_a_touch_on_this_order_is_a_proof(blue: Desk) -> None:
    assertion = blue.sign()
    proof = verify(ORDER, assertion, [desk(label="black").key, blue.key])
    assert (proof.key_label, proof.operator) == ("blue", "anna")
    assert proof.credential_id == blue.key.credential_id
    assert proof.flags == 0x01
    assert not proof.user_verified
    assert proof.counter == blue.soft.counter
    assert not proof.counter_regressed


@pytest.mark.parametrize(
    "altered",
    [
        replace(ORDER, scope=("bybit main-desk",)),
        replace(ORDER, reason="drill"),
        replace(ORDER, issued_at="2026-11-21T03:14:01Z"),
        replace(ORDER, journal_head="9e" * 32),
        replace(ORDER, bundle_sha256="5f" * 32),
        replace(ORDER, nonce="01" * 16),
    ],
)
def test_an_order_altered_after_the_touch_is_refused(blue: Desk, altered: Order) -> None:
    assert_refused(blue.sign(), blue, "does not fit this order: wrong challenge", altered)


def test_a_drills_touch_never_authorises_a_halt(blue: Desk) -> None:
    drill = blue.sign(replace(ORDER, mode=Mode.DRILL))
    assert_refused(drill, blue, "does not fit this order: wrong challenge")


def test_an_assertion_replayed_over_another_challenge_is_refused(blue: Desk) -> None:
    used = blue.sign()
    verify(ORDER, used, [blue.key])
    again = replace(ORDER, id="20261121-0315-m2pa", nonce="02" * 16)
    assert_refused(used, blue, "does not fit this order: wrong challenge", again)


def test_a_touch_without_the_pin_is_refused_where_the_pin_is_required(blue: Desk) -> None:
    assertion = blue.sign()
    with pytest.raises(NotAuthorizedError, match="the key did not verify its user") as caught:
        verify(ORDER, assertion, [blue.key], user_verification=True)
    assert caught.value.exit_code == 3


def test_a_touch_with_the_pin_is_accepted_where_the_pin_is_required(blue: Desk) -> None:
    blue.soft.set_pin("2468")
    policy = PinPolicy(lambda _label, _left, _note: "2468", required=True)
    proof = verify(ORDER, blue.sign(pin=policy), [blue.key], user_verification=True)
    assert proof.user_verified
    assert proof.flags == 0x05


@pytest.mark.parametrize(
    ("role", "mode"),
    [
        ("halt", Mode.RELEASE),
        ("release", Mode.LIVE),
        ("release", Mode.DRILL),
    ],
)
def test_a_key_authorises_only_what_its_role_allows(role: str, mode: Mode) -> None:
    black = desk(label="black", role=role)
    order = replace(ORDER, mode=mode)
    with pytest.raises(NotAuthorizedError, match=f"its role is {role}"):
        verify(order, black.sign(order), [black.key])


@pytest.mark.parametrize("mode", list(Mode))
def test_a_key_with_both_roles_authorises_every_mode(mode: Mode) -> None:
    both = desk(role="both")
    order = replace(ORDER, mode=mode)
    assert verify(order, both.sign(order), [both.key]).operator == "anna"


def test_a_signature_made_inside_another_page_is_refused(blue: Desk) -> None:
    assert_refused(signed_by_hand(blue, cross_origin=True), blue, "signed inside another page")


def test_a_removed_key_authorises_nothing(blue: Desk) -> None:
    ring = KeyRing((blue.key, desk(label="black").key)).remove("blue")
    with pytest.raises(NotAuthorizedError, match="is not enrolled"):
        verify(ORDER, blue.sign(), ring.keys)


def test_another_keys_signature_under_this_keys_name_is_refused(blue: Desk) -> None:
    other = desk(label="black").sign()
    assert_refused(replace(other, credential_id=blue.key.credential_id), blue, "invalid signature")


def test_a_signature_for_a_foreign_relying_party_is_refused() -> None:
    foreign = desk("elsewhere.example")
    disguised = replace(foreign, key=replace(foreign.key, rp_id=RP_ID))
    assertion = signed_by_hand(foreign, rp_id="elsewhere.example")
    assert_refused(assertion, disguised, "wrong rp id hash")


@pytest.mark.parametrize(
    "origin",
    [
        "https://elsewhere.example",
        f"https://sub.{RP_ID}",
        f"http://{RP_ID}",
        f"https://{RP_ID}:444",
    ],
)
def test_a_signature_from_another_origin_is_refused(blue: Desk, origin: str) -> None:
    assert_refused(signed_by_hand(blue, origin=origin), blue, "invalid origin")


def test_a_signature_without_a_touch_is_refused(blue: Desk) -> None:
    assert mismatch(ORDER.challenge(), signed_by_hand(blue), [blue.key], RP_ID) == ""
    assert_refused(signed_by_hand(blue, up=False), blue, "user present flag not set")


def test_a_registration_is_no_authorisation(blue: Desk) -> None:
    assertion = signed_by_hand(blue)
    created = assertion.client_data_json.replace(b"webauthn.get", b"webauthn.create")
    assert_refused(replace(assertion, client_data_json=created), blue, "incorrect type")


@pytest.mark.parametrize("part", ["client_data_json", "authenticator_data", "signature"])
def test_one_changed_bit_anywhere_is_refused(blue: Desk, part: str) -> None:
    assertion = blue.sign()
    whole: bytes = getattr(assertion, part)
    for at in range(len(whole)):
        changed = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        forged = replace(assertion, **{part: changed})
        assert mismatch(ORDER.challenge(), forged, [blue.key], RP_ID) != ""


@pytest.mark.parametrize("part", ["client_data_json", "authenticator_data", "signature"])
@pytest.mark.parametrize("junk", [b"", b"{}", b"null", b"\xff" * 40, b"[" * 9999])
def test_junk_is_refused_and_not_a_crash(blue: Desk, part: str, junk: bytes) -> None:
    assert_refused(replace(blue.sign(), **{part: junk}), blue, "does not fit this order")


@pytest.mark.parametrize(
    ("old", "new", "back"),
    [(7, 8, False), (7, 99, False), (7, 7, True), (7, 6, True), (0, 0, False), (7, 0, True)],
)
def test_a_counter_that_does_not_grow_tells_of_a_clone(old: int, new: int, back: bool) -> None:  # noqa: FBT001 (a table)
    assert regressed(old, new) is back


def test_a_rolled_back_counter_is_flagged_and_does_not_stop_a_halt(blue: Desk) -> None:
    ring = KeyRing((blue.key,)).with_counter(blue.key.credential_id, 1000)
    proof = verify(ORDER, blue.sign(), ring.keys)
    assert proof.counter_regressed
    assert proof.counter < 1000


def test_a_sandbox_key_never_authorises_a_real_order() -> None:
    soft = desk(SANDBOX_RP_ID)
    assert_refused(soft.sign(), soft, 'the key "blue" belongs to the sandbox')
    assert verify(ORDER, soft.sign(), [soft.key], sandbox=True).operator == "anna"


def test_a_real_key_authorises_nothing_in_the_sandbox(blue: Desk) -> None:
    with pytest.raises(NotAuthorizedError, match="is a real one, and this is the sandbox"):
        verify(ORDER, blue.sign(), [blue.key], sandbox=True)


def test_a_stored_proof_is_verified_from_the_orders_exact_bytes(blue: Desk) -> None:
    proof = verify(ORDER, blue.sign(), [blue.key])
    stored = ORDER.to_bytes()
    verify_stored(stored, proof, blue.key)
    with pytest.raises(NotAuthorizedError, match="wrong challenge") as caught:
        verify_stored(stored.replace(b"drawdown", b"download"), proof, blue.key)
    assert caught.value.effect == "the evidence does not hold"
    with pytest.raises(NotAuthorizedError, match="wrong challenge"):
        verify_stored(stored + b"\n", proof, blue.key)


def test_what_a_stored_proof_says_of_itself_must_be_what_was_signed(blue: Desk) -> None:
    proof = verify(ORDER, blue.sign(), [blue.key])
    for lie in (
        replace(proof, counter=proof.counter + 1),
        replace(proof, user_verified=True),
        replace(proof, flags=5),
        replace(proof, operator="ben"),
        replace(proof, key_label="black"),
    ):
        with pytest.raises(NotAuthorizedError, match="does not fit this order: it"):
            verify_stored(ORDER.to_bytes(), lie, blue.key)


def test_openssl_accepts_the_signature_and_refuses_a_changed_one(
    blue: Desk, tmp_path: Path
) -> None:
    proof = verify(ORDER, blue.sign(), [blue.key])
    digest = hashlib.sha256(proof.client_data_json).digest()
    (tmp_path / "key.pem").write_text(blue.key.public_key, encoding="ascii")
    (tmp_path / "signature").write_bytes(proof.signature)
    (tmp_path / "signed").write_bytes(proof.authenticator_data + digest)
    command = ["openssl", "dgst", "-sha256", "-verify", "key.pem"]
    command += ["-signature", "signature", "signed"]
    good = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert good.stdout.strip() == "Verified OK"
    (tmp_path / "signed").write_bytes(proof.authenticator_data + bytes(32))
    bad = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert bad.returncode == 1
