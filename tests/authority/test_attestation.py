"""Attestation: only a chain to a configured root is worth anything."""

import datetime as dt
import threading
from dataclasses import dataclass, field

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from fido2.webauthn import AttestationObject, CollectedClientData

from killswitch.authority.attestation import AttestationPolicy, Level
from killswitch.authority.enrolment import Enrolment, enroll
from killswitch.authority.ring import KeyRing
from killswitch.errors import ConfigError, NotAuthorizedError
from killswitch.sandbox.softkey import SoftKey, SoftKeyDevice
from tests.authority.desks import CHALLENGE, NOW, RP_ID

AAGUID = bytes.fromhex("2fc0579f811347eab116bb5a8db9202a")
OTHER = "ee882879721c491397753dfcce97072a"
DAY = dt.timedelta(days=1)
AAGUID_EXTENSION = x509.ObjectIdentifier("1.3.6.1.4.1.45724.1.1.4")


@dataclass
class Maker:
    """A maker of security keys: its certificates, from the root down to the batch of keys."""

    middle: bool = False
    root_from: dt.datetime = NOW - DAY
    leaf_from: dt.datetime = NOW - DAY
    leaf_until: dt.datetime = NOW + DAY
    middle_is_ca: bool = True
    middle_signs: bool = True
    root_length: int | None = None
    certified: bytes | None = AAGUID
    keys: dict[str, ec.EllipticCurvePrivateKey] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root = self._issue("root", "root", self.root_from, NOW + 9 * DAY, self.root_length)
        above = "root"
        self.between: list[x509.Certificate] = []
        if self.middle:
            self.between = [self._issue("middle", "root", NOW - DAY, NOW + DAY, None)]
            above = "middle"
        self.leaf = self._issue("leaf", above, self.leaf_from, self.leaf_until, None)

    @property
    def pem(self) -> bytes:
        return self.root.public_bytes(Encoding.PEM)

    def chain(self) -> list[bytes]:
        return [one.public_bytes(Encoding.DER) for one in (self.leaf, *self.between)]

    def _issue(
        self, name: str, by: str, start: dt.datetime, end: dt.datetime, length: int | None
    ) -> x509.Certificate:
        self.keys[name] = ec.generate_private_key(ec.SECP256R1())
        is_ca = name == "root" or (name == "middle" and self.middle_is_ca)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(by))
            .public_key(self.keys[name].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(is_ca, length if is_ca else None), critical=True)
        )
        if name == "middle":
            builder = builder.add_extension(_usage(signs=self.middle_signs), critical=True)
        if name == "leaf" and self.certified:
            value = b"\x04\x10" + self.certified
            extension = x509.UnrecognizedExtension(AAGUID_EXTENSION, value)
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.keys[by], hashes.SHA256())


def _name(who: str) -> x509.Name:
    oid = x509.NameOID
    unit = "Authenticator Attestation" if who == "leaf" else "CA"
    return x509.Name(
        [
            x509.NameAttribute(oid.COUNTRY_NAME, "SE"),
            x509.NameAttribute(oid.ORGANIZATION_NAME, "Keys Ltd"),
            x509.NameAttribute(oid.ORGANIZATIONAL_UNIT_NAME, unit),
            x509.NameAttribute(oid.COMMON_NAME, who),
        ]
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def enrolled(policy: AttestationPolicy | None, maker: Maker | None = None) -> Enrolment:
    """Enrol a key by this maker; without one it can only vouch for itself."""
    soft = SoftKey(
        touch=lambda _cancel: True,
        rp_ids={RP_ID},
        aaguid=AAGUID,
        attestation=(maker.keys["leaf"], maker.chain()) if maker else None,
    )
    return enroll(
        SoftKeyDevice(soft),
        ring=KeyRing(),
        label="blue",
        operator="anna",
        rp_id=RP_ID,
        now=NOW,
        cancel=threading.Event(),
        on_touch=lambda _number, _of: None,
        challenge=lambda _key: CHALLENGE,
        attestation=policy,
    )


def attested(*makers: Maker) -> AttestationPolicy:
    return AttestationPolicy(Level.ATTESTED, roots=tuple(maker.pem for maker in makers))


def assert_refused(policy: AttestationPolicy, maker: Maker | None, words: str) -> None:
    with pytest.raises(NotAuthorizedError, match=words) as caught:
        enrolled(policy, maker)
    assert caught.value.effect == "the key ring is unchanged"
    assert caught.value.hint


def test_any_key_is_enrolled_under_the_open_policy_and_what_it_was_is_recorded() -> None:
    maker = Maker()
    assert enrolled(None).key.attestation == "self"
    assert enrolled(AttestationPolicy(), maker).key.attestation == "none", "an unknown root"
    known = AttestationPolicy(Level.ANY, roots=(maker.pem,))
    assert enrolled(known, maker).key.attestation == "attested"


@pytest.mark.parametrize("middle", [False, True])
def test_a_chain_to_a_configured_root_is_attested(*, middle: bool) -> None:
    maker = Maker(middle=middle)
    assert enrolled(attested(Maker(), maker), maker).key.attestation == "attested"


def test_several_roots_may_stand_in_one_file() -> None:
    first, second = Maker(), Maker(middle=True)
    policy = AttestationPolicy(Level.ATTESTED, roots=(first.pem + second.pem,))
    assert enrolled(policy, second).key.attestation == "attested"


@pytest.mark.parametrize("level", [Level.ATTESTED, Level.AAGUID_LIST])
def test_a_self_attested_key_that_claims_anothers_aaguid_is_refused(level: Level) -> None:
    policy = AttestationPolicy(level, roots=(Maker().pem,), aaguids=(AAGUID.hex(),))
    assert_refused(policy, None, f"vouches for itself only, and the policy is {level}")


def test_a_root_that_is_not_configured_vouches_for_nothing() -> None:
    assert_refused(attested(Maker()), Maker(), "leads to no configured root")


def test_a_listed_make_is_enrolled_and_another_is_not() -> None:
    maker = Maker()
    dashed = "2FC0579F-8113-47EA-B116-BB5A8DB9202A"
    listed = AttestationPolicy(Level.AAGUID_LIST, roots=(maker.pem,), aaguids=(OTHER, dashed))
    assert enrolled(listed, maker).key.attestation == "attested"
    other = AttestationPolicy(Level.AAGUID_LIST, roots=(maker.pem,), aaguids=(OTHER,))
    assert_refused(other, maker, f"AAGUID {AAGUID.hex()}, is not on the list")


def test_a_certificate_for_another_make_than_the_key_claims_is_refused() -> None:
    maker = Maker(certified=bytes.fromhex(OTHER))
    assert_refused(attested(maker), maker, "the key's attestation does not hold: AAGUID")


@pytest.mark.parametrize(
    "maker",
    [
        Maker(leaf_from=NOW + dt.timedelta(hours=1)),
        Maker(leaf_until=NOW - dt.timedelta(hours=1)),
        Maker(root_from=NOW + dt.timedelta(hours=1)),
    ],
    ids=["not yet", "no more", "root not yet"],
)
def test_a_certificate_that_is_not_valid_today_vouches_for_nothing(maker: Maker) -> None:
    assert_refused(attested(maker), maker, "a certificate of the key is not valid today")


@pytest.mark.parametrize(
    ("maker", "words"),
    [
        (Maker(middle=True, middle_is_ca=False), "chain of certificates is broken"),
        (Maker(middle=True, middle_signs=False), "chain of certificates is broken"),
        (Maker(middle=True, root_length=0), "leads to no configured root"),
    ],
    ids=["not a CA", "may not sign", "one too many"],
)
def test_a_certificate_that_may_not_sign_others_makes_no_chain(maker: Maker, words: str) -> None:
    assert_refused(attested(maker), maker, words)


def test_a_chain_with_a_strangers_leaf_is_refused() -> None:
    known, stranger = Maker(middle=True), Maker()
    stranger.between = known.between
    assert_refused(attested(known), stranger, "chain of certificates is broken")


def test_a_chain_that_loops_is_refused() -> None:
    maker = Maker(middle=True)
    maker.between = [*maker.between, maker.root, maker.root]
    assert_refused(attested(maker), maker, "chain of certificates is broken")


def test_a_chain_without_end_is_refused() -> None:
    maker = Maker(middle=True)
    made = AttestationObject(enrolled(None, maker).attestation_object)
    hashed = bytes(32)
    signature = maker.keys["leaf"].sign(made.auth_data + hashed, ec.ECDSA(hashes.SHA256()))
    statement = {"alg": -7, "sig": signature, "x5c": [maker.chain()[0], *maker.chain()[1:] * 9]}
    endless = AttestationObject.create("packed", made.auth_data, statement)
    with pytest.raises(NotAuthorizedError, match="chain of certificates is too long"):
        attested(maker).judge(endless, hashed, now=NOW)


def test_no_attestation_at_all_is_told_from_a_self_attestation() -> None:
    done = enrolled(None)
    made = AttestationObject(done.attestation_object)
    bare = AttestationObject.create("none", made.auth_data, {})
    hashed = CollectedClientData(done.attestation_client_data_json).hash
    assert AttestationPolicy().judge(bare, hashed, now=NOW) == "none"
    odd = AttestationObject.create("of-tomorrow", made.auth_data, {"x": 1})
    assert AttestationPolicy().judge(odd, hashed, now=NOW) == "none"
    with pytest.raises(NotAuthorizedError, match="shows no attestation"):
        attested(Maker()).judge(bare, hashed, now=NOW)


def test_an_attestation_of_another_registration_does_not_hold() -> None:
    maker = Maker()
    made = AttestationObject(enrolled(None, maker).attestation_object)
    with pytest.raises(NotAuthorizedError, match="does not hold: InvalidSignature"):
        attested(maker).judge(made, bytes(32), now=NOW)


def test_an_older_kind_of_attestation_vouches_for_no_aaguid() -> None:
    maker = Maker()
    done = enrolled(None, maker)
    made = AttestationObject(done.attestation_object)
    hashed = CollectedClientData(done.attestation_client_data_json).hash
    credential = made.auth_data.credential_data
    assert credential is not None
    point = b"\x04" + credential.public_key[-2] + credential.public_key[-3]
    # What a U2F key signs: everything but the AAGUID that stands beside it.
    signed = b"\0" + made.auth_data.rp_id_hash + hashed + credential.credential_id + point
    signature = maker.keys["leaf"].sign(signed, ec.ECDSA(hashes.SHA256()))
    statement = {"x5c": [maker.leaf.public_bytes(Encoding.DER)], "sig": signature}
    old = AttestationObject.create("fido-u2f", made.auth_data, statement)
    listed = AttestationPolicy(Level.AAGUID_LIST, roots=(maker.pem,), aaguids=(AAGUID.hex(),))
    with pytest.raises(NotAuthorizedError, match="shows no attestation"):
        listed.judge(old, hashed, now=NOW)
    assert AttestationPolicy().judge(old, hashed, now=NOW) == "none"


@pytest.mark.parametrize(
    "junk", [{}, {"alg": -7}, {"alg": -7, "sig": b"", "x5c": [b"\x30"]}, {"ecdaaKeyId": b""}]
)
def test_junk_in_place_of_an_attestation_is_refused_and_no_crash(junk: dict[str, object]) -> None:
    made = AttestationObject(enrolled(None).attestation_object)
    broken = AttestationObject.create("packed", made.auth_data, junk)
    with pytest.raises(NotAuthorizedError, match="the key's attestation does not hold"):
        AttestationPolicy().judge(broken, bytes(32), now=NOW)


@pytest.mark.parametrize(
    ("level", "roots", "aaguids", "words"),
    [
        (Level.ATTESTED, (), (), "needs a root certificate"),
        (Level.AAGUID_LIST, (b"x",), (), "needs the AAGUIDs"),
        (Level.AAGUID_LIST, (b"x",), ("yubikey",), "is no AAGUID"),
    ],
)
def test_a_policy_that_nothing_can_meet_is_told(
    level: Level, roots: tuple[bytes, ...], aaguids: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        AttestationPolicy(level, roots=roots, aaguids=aaguids)


def test_a_root_that_is_no_certificate_is_told_before_any_touch() -> None:
    with pytest.raises(ConfigError, match="is not PEM"):
        enrolled(AttestationPolicy(Level.ATTESTED, roots=(b"nonsense",)))
