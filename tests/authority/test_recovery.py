"""The recovery phrase: it comes back from paper, and a wrong copy is told before it is used."""

import hashlib
import hmac
import pickle
import traceback
from itertools import pairwise
from random import Random

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from killswitch.authority.recovery import (
    GROUP_LENGTH,
    GROUPS,
    PhraseError,
    admitted,
    new_recovery,
    recovery_from_phrase,
)
from killswitch.authority.sealing import Identity, seal
from killswitch.secret import redact

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH = GROUPS * GROUP_LENGTH
PHRASE = "3XT7-AGGK-H6CB-HMMB-4C40-1JZA-GNNQ-HAKM-AFXQ-96HZ-572Z-P9GP-3NZC-N024-BCCM"
PUBLIC_KEY = "167a211bb665d17d67f136226dc4f11f2d138a7f3d3874a33e3e969f20dee513"

places = st.integers(0, LENGTH - 1)
letters = st.sampled_from(ALPHABET)


def identity_from_phrase(text: str) -> Identity:
    return recovery_from_phrase(text).identity


def bare(phrase: str) -> str:
    return phrase.replace("-", "")


def changed(phrase: str, *changes: tuple[int, str]) -> str:
    characters = list(bare(phrase))
    for place, letter in changes:
        characters[place] = letter
    return "".join(characters)


def test_a_new_phrase_opens_what_is_sealed_to_its_recipient() -> None:
    phrase, recovery = new_recovery()
    sealed = seal(b"plain", recovery.record.recipient, info=b"x")
    assert identity_from_phrase(phrase.reveal()).open(sealed, info=b"x") == b"plain"
    assert not recovery.record.recipient.uv
    assert recovery_from_phrase(phrase.reveal()).record == recovery.record


def test_a_phrase_is_15_groups_of_four_and_never_the_same() -> None:
    phrases = {new_recovery()[0].reveal() for _ in range(20)}
    assert len(phrases) == 20
    for phrase in phrases:
        groups = phrase.split("-")
        assert [len(group) for group in groups] == [GROUP_LENGTH] * GROUPS
        assert set(bare(phrase)) <= set(ALPHABET)
        assert identity_from_phrase(phrase).recipient.id


def test_a_phrase_of_the_first_version_still_gives_its_identity() -> None:
    assert identity_from_phrase(PHRASE).recipient.public_key == PUBLIC_KEY


def test_the_identity_can_be_had_from_the_phrase_without_our_code() -> None:
    number = 0
    for letter in bare(PHRASE)[:52]:
        number = number * 32 + ALPHABET.index(letter)
    material = (number % 2**256).to_bytes(32, "big")
    extracted = hmac.digest(bytes(32), material, hashlib.sha256)
    seed = hmac.digest(extracted, b"killswitch/recovery/v1\n\x01", hashlib.sha256)
    public = X25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    assert public.hex() == PUBLIC_KEY


def test_the_verifying_key_can_be_had_from_the_phrase_without_our_code() -> None:
    number = 0
    for letter in bare(PHRASE)[:52]:
        number = number * 32 + ALPHABET.index(letter)
    material = (number % 2**256).to_bytes(32, "big")
    extracted = hmac.digest(bytes(32), material, hashlib.sha256)
    seed = hmac.digest(extracted, b"killswitch/recovery-signing/v1\n\x01", hashlib.sha256)
    key = Ed25519PrivateKey.from_private_bytes(seed)
    recovery = recovery_from_phrase(PHRASE)
    assert key.public_key().public_bytes_raw().hex() == recovery.record.verifying_key
    assert recovery.admit(b"{}") == key.sign(b"killswitch/admission/v1\n{}")


def test_a_phrase_admits_exactly_the_order_that_it_signed() -> None:
    _, recovery = new_recovery()
    _, other = new_recovery()
    signature, verifying_key = recovery.admit(b"order"), recovery.record.verifying_key
    assert admitted(b"order", signature, verifying_key)
    assert not admitted(b"order ", signature, verifying_key)
    assert not admitted(b"order", signature, other.record.verifying_key)
    assert not admitted(b"order", other.admit(b"order"), verifying_key)


@pytest.mark.parametrize("verifying_key", ["", "zz", "00" * 31, "ff" * 33, "02" + "00" * 31])
def test_a_verifying_key_that_is_none_admits_nothing(verifying_key: str) -> None:
    assert not admitted(b"order", bytes(64), verifying_key)
    assert not admitted(b"order", b"", verifying_key)


def test_a_recovery_is_never_pickled() -> None:
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(new_recovery()[1])


@given(st.randoms(use_true_random=False))
def test_case_spaces_hyphens_and_look_alikes_are_forgiven(chance: Random) -> None:
    alike = {"0": "0Oo", "1": "1IiLl"}
    written = "".join(
        chance.choice(["", "", " ", "-", " - ", "\n", "\t"])
        + chance.choice(alike.get(letter, letter + letter.lower()))
        for letter in bare(PHRASE)
    )
    assert identity_from_phrase(written).recipient.public_key == PUBLIC_KEY


@given(places, letters)
def test_any_one_wrong_character_is_detected_and_its_group_is_named(
    place: int, letter: str
) -> None:
    wrong = changed(PHRASE, (place, letter))
    if wrong == bare(PHRASE):
        assert identity_from_phrase(wrong).recipient.public_key == PUBLIC_KEY
        return
    with pytest.raises(PhraseError) as caught:
        identity_from_phrase(wrong)
    group = place // GROUP_LENGTH + 1
    assert caught.value.problem == f"the check does not fit: probably group {group} is wrong"


@given(st.integers(0, GROUPS - 1), st.text(ALPHABET, min_size=4, max_size=4))
def test_a_wrong_group_is_named(group: int, written: str) -> None:
    groups = PHRASE.split("-")
    if groups[group] == written:
        return
    groups[group] = written
    with pytest.raises(PhraseError, match=f"probably group {group + 1} is wrong"):
        identity_from_phrase(" ".join(groups))


@given(places, letters, places, letters)
def test_any_two_wrong_characters_are_detected(
    first: int, letter: str, second: int, other: str
) -> None:
    wrong = changed(PHRASE, (first, letter), (second, other))
    if wrong != bare(PHRASE):
        with pytest.raises(PhraseError, match="the check does not fit"):
            identity_from_phrase(wrong)


@pytest.mark.parametrize("place", range(LENGTH - 1))
def test_two_neighbours_in_the_wrong_order_are_detected(place: int) -> None:
    letters = bare(PHRASE)
    wrong = changed(PHRASE, (place, letters[place + 1]), (place + 1, letters[place]))
    if wrong != letters:
        with pytest.raises(PhraseError, match="the check does not fit"):
            identity_from_phrase(wrong)


@pytest.mark.parametrize("group", range(GROUPS - 1))
def test_two_groups_in_the_wrong_order_are_detected(group: int) -> None:
    groups = PHRASE.split("-")
    groups[group : group + 2] = groups[group + 1], groups[group]
    with pytest.raises(PhraseError, match="the check does not fit"):
        identity_from_phrase(" ".join(groups))


def test_two_wrong_groups_are_named_where_each_place_tells_one() -> None:
    letters = bare(PHRASE)
    other = {place: next(one for one in "23" if one != letters[place]) for place in (4, 21)}
    with pytest.raises(PhraseError, match="probably groups 2 and 6 are wrong"):
        identity_from_phrase(changed(PHRASE, *other.items()))


@given(st.text(ALPHABET, min_size=LENGTH, max_size=LENGTH))
def test_what_is_no_phrase_at_all_is_refused(text: str) -> None:
    with pytest.raises(PhraseError):
        identity_from_phrase(text)


def test_a_phrase_of_zeros_is_none() -> None:
    with pytest.raises(PhraseError, match="no recovery phrase that this killswitch knows"):
        identity_from_phrase("0" * LENGTH)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the phrase has 0 characters, not 60"),
        (PHRASE + "-ABCD", "the phrase has 64 characters, not 60"),
        (PHRASE[:-1], "the phrase has 59 characters, not 60: see group 15"),
        (PHRASE[:3] + PHRASE[4:], "the phrase has 59 characters, not 60: see group 1"),
        (PHRASE[:9] + "A" + PHRASE[9:], "the phrase has 61 characters, not 60: see group 2"),
        (bare(PHRASE)[1:], "the phrase has 59 characters, not 60"),
        ("U" + PHRASE[1:], 'group 1 has a character that no phrase has: "U"'),
        (PHRASE[:5] + "!" + PHRASE[6:], 'group 2 has a character that no phrase has: "!"'),
        (PHRASE[:5] + "\x1b" + PHRASE[6:], 'group 2 has a character that no phrase has: "?"'),
        # A letter that only looks or sounds like one of ours: dotless i, long s, a wide digit.
        *(
            (one + PHRASE[1:], 'group 1 has a character that no phrase has: "?"')
            for one in "ı\u017f\uff11٠"  # noqa: RUF001 (that is the point)
        ),
    ],
)
def test_a_wrong_copy_is_told_in_words(text: str, problem: str) -> None:
    with pytest.raises(PhraseError) as caught:
        identity_from_phrase(text)
    assert caught.value.problem == problem
    assert caught.value.effect == "nothing was opened or changed"
    assert caught.value.exit_code == 2


def test_no_error_and_no_repr_shows_the_phrase() -> None:
    phrase, recovery = new_recovery()
    value = phrase.reveal()
    told = [repr(new_recovery()), repr(phrase), repr(recovery), repr(recovery.record)]
    told += [repr(recovery_from_phrase(value)), repr(identity_from_phrase(value))]
    for wrong in (value[:-1], "U" + value[1:], changed(value, (0, "Z"), (9, "7"), (30, "W"))):
        with pytest.raises(PhraseError) as caught:
            identity_from_phrase(wrong)
        told += [repr(caught.value), *traceback.format_exception(caught.value)]
    groups = value.split("-")[1:]
    # A group of four may stand in a hex number by chance, two neighbours hardly.
    pairs = [joint.join(pair) for pair in pairwise(groups) for joint in "- "]
    assert not [pair for pair in (*pairs, bare(value)) if pair in "".join(told)]


def test_a_phrase_is_masked_as_it_was_shown_and_as_it_was_typed() -> None:
    value = new_recovery()[0].reveal()
    typed = value.lower().replace("-", " ")
    identity_from_phrase(typed + "\n")
    assert redact(f"<{value}> <{typed}>") == "<[secret]> <[secret]>"
