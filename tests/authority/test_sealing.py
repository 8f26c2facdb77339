"""Sealing: only the identity opens, under the same name, and nothing is ever shown."""

import base64
import copy
import hashlib
import hmac
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from killswitch.authority.sealing import (
    LONGEST_SECRET_BYTES,
    OVERHEAD_BYTES,
    PAD_BYTES,
    PRF_SALT,
    Identity,
    Recipient,
    SealError,
    open_secret,
    seal,
    seal_secret,
)
from killswitch.secret import Secret

INFO = b"killswitch/secret/v1\nbybit\n0123456789abcdef"
OUTPUT = bytes(range(32))
VALUE = "zq-plaintext-of-bybit"


def identity(output: bytes = OUTPUT, *, uv: bool = False) -> Identity:
    return Identity.from_prf(output, credential_id=b"id-1", uv=uv)


def shown(error: BaseException) -> str:
    """Return all that an error could put on a screen, what it hides behind `from None` too."""
    parts: list[str] = []
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is not None:
            parts += [str(one), repr(one), repr(one.args), *traceback.format_exception(one)]
            left += [one.__cause__, one.__context__]
    return "\n".join(parts)


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869) for at most 32 bytes."""
    extracted = hmac.digest(salt or bytes(32), secret, hashlib.sha256)
    return hmac.digest(extracted, info + b"\x01", hashlib.sha256)[:length]


class ByTheBook:
    """RFC 9180 in base mode, written from the text: HKDF-SHA256 with labels."""

    def __init__(self, suite: bytes) -> None:
        self.suite = suite

    def extract(self, salt: bytes, label: bytes, material: bytes) -> bytes:
        labeled = b"HPKE-v1" + self.suite + label + material
        return hmac.digest(salt or bytes(32), labeled, hashlib.sha256)

    def expand(self, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
        labeled = length.to_bytes(2, "big") + b"HPKE-v1" + self.suite + label + info
        return hmac.digest(key, labeled + b"\x01", hashlib.sha256)[:length]


def opened_by_the_book(sealed: bytes, private: X25519PrivateKey, info: bytes) -> bytes:
    kem, hpke = ByTheBook(b"KEM\0\x20"), ByTheBook(b"HPKE\0\x20\0\x01\0\x02")
    enc, ciphertext = sealed[:32], sealed[32:]
    shared = private.exchange(X25519PublicKey.from_public_bytes(enc))
    context = enc + private.public_key().public_bytes_raw()
    secret = kem.expand(kem.extract(b"", b"eae_prk", shared), b"shared_secret", context, 32)
    hashes = hpke.extract(b"", b"psk_id_hash", b"") + hpke.extract(b"", b"info_hash", info)
    prk = hpke.extract(secret, b"secret", b"")
    key = hpke.expand(prk, b"key", b"\0" + hashes, 32)
    nonce = hpke.expand(prk, b"base_nonce", b"\0" + hashes, 12)
    return AESGCM(key).decrypt(nonce, ciphertext, b"")


@given(st.binary(max_size=300), st.booleans())
def test_what_is_sealed_to_an_identity_opens_with_it(plaintext: bytes, uv: bool) -> None:  # noqa: FBT001 (hypothesis gives it)
    one = identity(uv=uv)
    sealed = seal(plaintext, one.recipient, info=INFO)
    assert len(sealed) == len(plaintext) + OVERHEAD_BYTES
    assert one.open(sealed, info=INFO) == plaintext


def test_what_is_sealed_is_rfc_9180_and_the_identity_is_rfc_5869() -> None:
    seed = hkdf(OUTPUT, b"", b"killswitch/identity/v1\nid-1\x00")
    private = X25519PrivateKey.from_private_bytes(seed)
    assert identity().recipient.public_key == private.public_key().public_bytes_raw().hex()
    sealed = seal(b"plain", identity().recipient, info=INFO)
    assert opened_by_the_book(sealed, private, INFO) == b"plain"


def test_what_the_first_version_sealed_still_opens() -> None:
    assert PRF_SALT == b"killswitch/prf/v1"
    sealed = (
        "IveSbMYJdv9sBN31OVsPBpaa+tGHBH0Z65DBQiK1fADTK2qnFc0ntHpylYavtB96mSSAXGAtfTMw"
        "dPTCsSoBxYQLhNN9ZlwyI8oYj+8n2GgUmTB0priP9/epUfjPp7o22agKKjokL5R+awcoaDPx7g=="
    )
    info = b"killswitch/secret/v1\nbybit\n" + identity().recipient.id.encode()
    assert open_secret(sealed, identity(), info=info).reveal() == "the first value"


def test_the_same_touch_gives_the_same_identity_and_anything_else_another() -> None:
    assert identity().recipient == identity().recipient
    others = {
        identity().recipient.id,
        identity(uv=True).recipient.id,
        identity(bytes(32)).recipient.id,
        Identity.from_prf(OUTPUT, credential_id=b"id-2", uv=False).recipient.id,
        Identity.derived(OUTPUT, info=b"another use", uv=False).recipient.id,
    }
    assert len(others) == 5
    assert identity(uv=True).recipient.uv


def test_a_recipient_is_known_by_the_hash_of_its_key() -> None:
    one = Recipient("09" + "00" * 31, uv=False)
    assert one.id == hashlib.sha256(b"\x09" + bytes(31)).hexdigest()[:16]


@pytest.mark.parametrize("digits", ["", "09" * 31, "09" * 33, "0G" * 32, "0A" * 32, "\u0660" * 64])
def test_what_is_no_public_key_is_no_recipient(digits: str) -> None:
    with pytest.raises(ValueError, match="not 64 hex digits"):
        Recipient(digits, uv=False)


def test_a_recipient_that_everybody_could_open_is_refused() -> None:
    with pytest.raises(SealError, match="no usable public key") as caught:
        seal_secret(Secret(VALUE), Recipient("00" * 32, uv=False), info=INFO)
    assert VALUE not in shown(caught.value)


def test_another_identity_does_not_open_it_not_even_the_same_key_with_pin() -> None:
    sealed = seal(b"plain", identity().recipient, info=INFO)
    for other in (identity(uv=True), identity(bytes(32))):
        with pytest.raises(SealError, match="altered, or sealed to another key"):
            other.open(sealed, info=INFO)


def test_under_another_name_it_does_not_open() -> None:
    sealed = seal(b"plain", identity().recipient, info=INFO)
    with pytest.raises(SealError, match="another name"):
        identity().open(sealed, info=INFO.replace(b"bybit", b"vault"))


def test_no_bit_of_it_can_be_changed_and_no_byte_be_missing() -> None:
    sealed = seal(b"plain", identity().recipient, info=INFO)
    for place in range(len(sealed)):
        for broken in (
            sealed[:place],
            sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :],
        ):
            with pytest.raises(SealError):
                identity().open(broken, info=INFO)


@pytest.mark.parametrize("output", [b"", bytes(31), bytes(33), bytes(64)])
def test_a_prf_output_of_another_length_is_refused(output: bytes) -> None:
    with pytest.raises(SealError, match=f"has {len(output)} bytes, not 32"):
        identity(output)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200))
def test_a_secret_comes_back_exactly_as_it_was_given(value: str) -> None:
    sealed = seal_secret(Secret(value), identity().recipient, info=INFO)
    assert open_secret(sealed, identity(), info=INFO).reveal() == value


@pytest.mark.parametrize("value", ["x", " x\r\n", "x\n\n", "x\0\0", "x\x80", "\ufeffx", "\ufffd"])
def test_nothing_is_trimmed(value: str) -> None:
    sealed = seal_secret(Secret(value), identity().recipient, info=INFO)
    assert open_secret(sealed, identity(), info=INFO).reveal() == value


@pytest.mark.parametrize(("length", "blocks"), [(1, 1), (20, 1), (63, 1), (64, 2), (127, 2)])
def test_the_sealed_length_tells_only_multiples_of_64(length: int, blocks: int) -> None:
    sealed = seal_secret(Secret("v" * length), identity().recipient, info=INFO)
    assert len(base64.b64decode(sealed)) == OVERHEAD_BYTES + PAD_BYTES * blocks


def test_a_secret_may_be_as_long_as_64_kib_and_no_longer() -> None:
    longest = "ü" * (LONGEST_SECRET_BYTES // 2)
    sealed = seal_secret(Secret(longest), identity().recipient, info=INFO)
    assert open_secret(sealed, identity(), info=INFO).reveal() == longest
    with pytest.raises(SealError, match="longer than 65536 bytes"):
        seal_secret(Secret(longest + "x"), identity().recipient, info=INFO)


@pytest.mark.parametrize(("value", "why"), [("", "empty"), ("zqx\udc80", "not text")])
def test_what_cannot_be_a_secret_is_refused_without_being_shown(value: str, why: str) -> None:
    with pytest.raises(SealError, match=why) as caught:
        seal_secret(Secret(value), identity().recipient, info=INFO)
    assert "zqx" not in shown(caught.value)


@pytest.mark.parametrize(
    "mangle",
    [
        lambda sealed: sealed + "\n",
        lambda sealed: " " + sealed,
        lambda sealed: sealed[:8] + "\n" + sealed[8:],
        lambda sealed: sealed.rstrip("="),
        lambda sealed: sealed[:-3] + chr(ord(sealed[-3]) + 1) + "==",
        lambda sealed: sealed + sealed,
        lambda sealed: "-_" + sealed[2:],
        lambda sealed: "ü" + sealed[1:],
    ],
    ids=["line end", "space", "broken line", "bare", "loose bits", "twice", "url", "foreign"],
)
def test_base64_is_read_strictly(mangle: Callable[[str], str]) -> None:
    sealed = seal_secret(Secret(VALUE), identity().recipient, info=INFO)
    assert sealed[-3] in "AQgw"
    assert sealed.endswith("==")
    with pytest.raises(SealError, match="it is not base64"):
        open_secret(mangle(sealed), identity(), info=INFO)


@pytest.mark.parametrize("kept", [0, 4, 64, 148])
def test_what_is_cut_off_is_told_as_such(kept: int) -> None:
    sealed = seal_secret(Secret(VALUE), identity().recipient, info=INFO)
    with pytest.raises(SealError, match="it is cut off"):
        open_secret(sealed[:kept], identity(), info=INFO)


@pytest.mark.parametrize(
    "padded",
    [
        bytes(64),
        b"\x80" + bytes(63),
        VALUE.encode().ljust(64, b"\0"),
        VALUE.encode() + b"\xff" + b"\x80".ljust(64 - len(VALUE) - 1, b"\0"),
    ],
    ids=["zeros", "empty", "no mark", "not text"],
)
def test_what_others_sealed_without_the_padding_is_no_secret(padded: bytes) -> None:
    sealed = base64.b64encode(seal(padded, identity().recipient, info=INFO)).decode()
    with pytest.raises(SealError, match="not sealed by killswitch") as caught:
        open_secret(sealed, identity(), info=INFO)
    assert VALUE not in shown(caught.value)


def test_an_identity_shows_nothing_of_its_key_and_is_never_pickled_or_copied() -> None:
    one = identity()
    seed = hkdf(OUTPUT, b"", b"killswitch/identity/v1\nid-1\x00")
    for text in (repr(one), str(one), f"{one}", repr([one])):
        assert text.strip("[]") == f"Identity({one.recipient.id}, uv=False)"
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never pickled") as caught:
            attempt(one)
        for private in (seed, OUTPUT):
            assert private.hex() not in shown(caught.value)
            assert repr(private)[2:-1] not in shown(caught.value)


def test_an_error_of_opening_shows_neither_key_nor_plaintext() -> None:
    sealed = bytearray(seal(VALUE.encode(), identity().recipient, info=INFO))
    sealed[-1] ^= 1
    with pytest.raises(SealError) as caught:
        identity().open(bytes(sealed), info=INFO)
    told = shown(caught.value)
    seed = hkdf(OUTPUT, b"", b"killswitch/identity/v1\nid-1\x00")
    assert not [one for one in (VALUE, OUTPUT.hex(), seed.hex(), repr(seed)) if one in told]
    # A traceback that shows local variables shows the identity by its id only.
    with_locals = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    library = "".join(with_locals.format()).split("def test_")[-1].split("in open\n")[-1]
    assert not [one for one in (OUTPUT.hex(), seed.hex(), repr(seed)) if one in library]


def test_cryptography_is_imported_only_when_something_is_sealed() -> None:
    code = "import sys, killswitch.authority.sealing; print('cryptography' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "False\n"
