"""The recovery phrase: one more recipient, whose identity lies on paper or steel.

It opens the sealed secrets, and its signature admits a security key. There is nothing else that it
is asked for: a halt and a release take a touch.

60 characters in 15 groups of four, in Crockford's base32. 13 groups hold 4 bits of version and 256
random bits. The last 2 are the check symbols of a Reed-Solomon code over GF(32), one code for each
of the four places in a group: it detects any change of up to two groups, and one wrong group is
named. Nothing is ever corrected by itself.
"""

import re
import secrets
from dataclasses import dataclass
from functools import reduce
from operator import xor
from typing import TYPE_CHECKING, Final

from killswitch.authority.sealing import Identity, Recipient
from killswitch.errors import UsageError
from killswitch.secret import Secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ADMISSION_DOMAIN: Final = b"killswitch/admission/v1\n"
"""What stands before an order's bytes when a phrase signs that its key is admitted."""

GROUPS: Final = 15
GROUP_LENGTH: Final = 4

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_READ_AS: Final = {"O": "0", "I": "1", "L": "1"}
_VALUE: Final = {
    form: _ALPHABET.index(_READ_AS.get(letter, letter))
    for letter in (*_ALPHABET, *_READ_AS)
    for form in (letter, letter.lower())
}
_INFO: Final = b"killswitch/recovery/v1\n"
_SIGNING_INFO: Final = b"killswitch/recovery-signing/v1\n"
_SECRET_BYTES: Final = 32
_VERSION: Final = 1  # not 0, so that a phrase of zeros is none
_DATA_GROUPS: Final = GROUPS - 2
_CHARACTER_BITS: Final = 5
# Powers of the element x of GF(32) = GF(2)[x] / (x^5 + x^2 + 1), and their logarithms.
_ORDER: Final = 31
_POWERS: Final = tuple(
    reduce(lambda value, _: value << 1 ^ (0b100101 if value & 16 else 0), range(exponent), 1)
    for exponent in range(_ORDER)
)
_LOG: Final = {value: exponent for exponent, value in enumerate(_POWERS)}


class PhraseError(UsageError):
    """A recovery phrase was not copied as it was shown."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            problem, effect="nothing was opened or changed", hint="compare it with your copy"
        )


@dataclass(frozen=True, slots=True)
class RecoveryRecord:
    """What everybody may know of a phrase; two of the same phrase are equal.

    `verifying_key` is Ed25519's 32 bytes as hex: it checks what the phrase signed.
    """

    recipient: Recipient
    verifying_key: str


class Recovery:
    """What a phrase can do; it lives in memory only and shows nothing of itself."""

    __slots__ = ("_signing", "identity", "record")

    identity: Identity
    record: RecoveryRecord
    _signing: "Ed25519PrivateKey"

    def __init__(self, material: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 (slow)
            Ed25519PrivateKey,
        )
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 (slow)
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415 (slow)

        seed = HKDF(SHA256(), _SECRET_BYTES, salt=None, info=_SIGNING_INFO).derive(material)
        self._signing = Ed25519PrivateKey.from_private_bytes(seed)
        self.identity = Identity.derived(material, info=_INFO, uv=False)
        verifying_key = self._signing.public_key().public_bytes_raw().hex()
        self.record = RecoveryRecord(self.identity.recipient, verifying_key)

    def admit(self, order: bytes) -> bytes:
        """Return the signature that admits the key which `order`, in its exact bytes, enrols."""
        return self._signing.sign(ADMISSION_DOMAIN + order)

    def __repr__(self) -> str:
        return f"Recovery({self.record.recipient.id})"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a recovery is never pickled")


def new_recovery() -> tuple[Secret, Recovery]:
    """Return a new phrase, to be shown once and kept nowhere, and what it can do."""
    material = secrets.token_bytes(_SECRET_BYTES)
    number = _VERSION << 8 * _SECRET_BYTES | int.from_bytes(material, "big")
    length = _DATA_GROUPS * GROUP_LENGTH
    data = [number >> _CHARACTER_BITS * place & 31 for place in reversed(range(length))]
    columns = [_checked(data[place::GROUP_LENGTH]) for place in range(GROUP_LENGTH)]
    groups = ("".join(_ALPHABET[value] for value in group) for group in zip(*columns, strict=True))
    return Secret("-".join(groups)), Recovery(material)


def recovery_from_phrase(text: str) -> Recovery:
    """Return what a phrase can do; raises PhraseError that says what is wrong, and where.

    Case, spaces and hyphens do not matter; O is read as 0, I and L as 1.
    """
    values = _values(text)
    wrong = _wrong_groups(values)
    if wrong is not None:
        where = " and ".join(str(number) for number in wrong)
        names = {0: "some character is", 1: f"probably group {where} is"}
        told = names.get(len(wrong), f"probably groups {where} are")
        raise PhraseError(f"the check does not fit: {told} wrong")
    number = 0
    for value in values[: _DATA_GROUPS * GROUP_LENGTH]:
        number = number << _CHARACTER_BITS | value
    if number >> 8 * _SECRET_BYTES != _VERSION:
        raise PhraseError("this is no recovery phrase that this killswitch knows")
    Secret(text.strip())  # so that it is masked from now on, as it was typed
    return Recovery((number & (1 << 8 * _SECRET_BYTES) - 1).to_bytes(_SECRET_BYTES, "big"))


def admitted(order: bytes, signature: bytes, verifying_key: str) -> bool:
    """Whether the phrase with this verifying key signed that the key of `order` is admitted."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 (slow)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 (slow)
        Ed25519PublicKey,
    )

    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(verifying_key))
        public.verify(signature, ADMISSION_DOMAIN + order)
    except (InvalidSignature, ValueError):
        return False
    return True


def _values(text: str) -> list[int]:
    characters = [one for one in text if not one.isspace() and one != "-"]
    for place, one in enumerate(characters):
        if one not in _VALUE:
            group, shown = place // GROUP_LENGTH + 1, one if "!" <= one <= "~" else "?"
            raise PhraseError(f'group {group} has a character that no phrase has: "{shown}"')
    if len(characters) != GROUPS * GROUP_LENGTH:
        told = f"{len(characters)} characters, not {GROUPS * GROUP_LENGTH}"
        raise PhraseError(f"the phrase has {told}{_odd_group(text)}")
    return [_VALUE[one] for one in characters]


def _odd_group(text: str) -> str:
    written = re.split(r"[\s-]+", text.strip(" \t\r\n-"))
    if len(written) != GROUPS:
        return ""
    odd = next(number for number, one in enumerate(written, 1) if len(one) != GROUP_LENGTH)
    return f": see group {odd}"


def _checked(data: list[int]) -> list[int]:
    # The two symbols that make both sums of `_sums` zero.
    plain, weighted = _sums(data)
    first, second = _POWERS[_DATA_GROUPS], _POWERS[_DATA_GROUPS + 1]
    check = _divided(weighted ^ _times(second, plain), first ^ second)
    return [*data, check, check ^ plain]


def _wrong_groups(values: list[int]) -> tuple[int, ...] | None:
    """Return None when the check fits, else the groups that are probably wrong, if it tells."""
    sums = [_sums(values[place::GROUP_LENGTH]) for place in range(GROUP_LENGTH)]
    wrong = [(plain, weighted) for plain, weighted in sums if plain or weighted]
    if not wrong:
        return None
    if not all(plain and weighted for plain, weighted in wrong):
        return ()
    groups = sorted({_LOG[_divided(weighted, plain)] + 1 for plain, weighted in wrong})
    # One group explains much; that every place were wrong in another group explains nothing.
    return tuple(groups) if len(groups) < GROUP_LENGTH - 1 and groups[-1] <= GROUPS else ()


def _sums(column: list[int]) -> tuple[int, int]:
    weighted = (_times(value, _POWERS[place]) for place, value in enumerate(column))
    return reduce(xor, column), reduce(xor, weighted)


def _times(left: int, right: int) -> int:
    return _POWERS[(_LOG[left] + _LOG[right]) % _ORDER] if left and right else 0


def _divided(left: int, right: int) -> int:
    return _POWERS[(_LOG[left] - _LOG[right]) % _ORDER] if left else 0
