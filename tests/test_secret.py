"""Secrets: never shown by accident, and masked in what others print."""

import base64
import copy
import json
import pickle
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.secret import MASK, Secret, redact

VALUE = 'hvs.CAES"?>~?>>IJ+zq/9\\wk=\nsecond line'


def test_a_secret_shows_nothing_of_itself() -> None:
    secret = Secret(VALUE)
    for shown in (str(secret), repr(secret), f"{secret}", f"{secret!r}", repr([secret])):
        assert MASK in shown
        assert "CAES" not in shown
    assert f"{secret:>12}" == MASK.rjust(12)
    assert secret.reveal() == VALUE


def test_secrets_are_compared_by_value_and_never_with_text() -> None:
    assert Secret(VALUE) == Secret(VALUE)
    assert Secret(VALUE) != Secret("another-value")
    assert Secret(VALUE) != VALUE
    assert len({Secret(VALUE), Secret(VALUE)}) == 1


def test_a_secret_is_never_pickled_or_copied() -> None:
    for attempt in (pickle.dumps, copy.copy):
        with pytest.raises(TypeError, match="never pickled"):
            attempt(Secret(VALUE))


def test_a_secret_has_no_place_for_more_attributes() -> None:
    with pytest.raises(AttributeError):
        Secret(VALUE).note = "x"  # type: ignore[attr-defined]  # the very mistake


@pytest.mark.parametrize(
    "form",
    [
        VALUE,
        quote(VALUE, safe=""),
        base64.b64encode(VALUE.encode()).decode(),
        base64.b64encode(VALUE.encode()).decode().rstrip("="),
        base64.urlsafe_b64encode(VALUE.encode()).decode(),
        base64.urlsafe_b64encode(VALUE.encode()).decode().rstrip("="),
        json.dumps({"token": VALUE}),
    ],
    ids=["plain", "url", "base64", "base64 bare", "base64url", "base64url bare", "json"],
)
def test_a_known_secret_is_masked_in_its_usual_encodings(form: str) -> None:
    Secret(VALUE)
    cleaned = redact(f"before {form} after")
    assert cleaned.startswith("before ")
    assert cleaned.endswith(" after")
    assert MASK in cleaned
    for piece in ("CAES", "second", quote(VALUE[-8:]), base64.b64encode(VALUE.encode()).decode()):
        assert piece not in cleaned


def test_white_space_around_a_secret_does_not_hide_it() -> None:
    Secret("  padded-secret-41\n")
    assert redact("x padded-secret-41 y") == f"x {MASK} y"


def test_the_longer_of_two_secrets_is_masked_as_a_whole() -> None:
    Secret("overlap-11")
    Secret("overlap-11-and-more")
    assert redact("<overlap-11-and-more>") == f"<{MASK}>"


@pytest.mark.parametrize("short", ["", "abc", "   ", " ab\n"])
def test_what_is_too_short_to_be_a_secret_masks_nothing(short: str) -> None:
    Secret(short)
    assert redact("abc ab   a") == "abc ab   a"


def test_a_telegram_token_is_masked_without_being_known() -> None:
    url = "https://api.telegram.org/bot8123456789:AAF-9_xYzAbCdEfGhIjKlMnOpQrStUvWxYz1/getMe"
    assert redact(url) == f"https://api.telegram.org/bot{MASK}/getMe"


def test_text_without_a_secret_is_left_as_it_is() -> None:
    text = "HTTP 403: permission denied at 12:30:45, id 123456:short"
    assert redact(text) == text


@given(st.text(min_size=4), st.text(), st.text())
def test_no_known_secret_survives_whatever_stands_around_it(
    core: str, before: str, after: str
) -> None:
    value = f"§{core}§"  # marked, so that the secrets of this test never hide other texts
    Secret(value)
    assert value not in redact(f"{before}{value}{after}")


def test_a_secret_that_is_no_text_is_masked_too() -> None:
    odd = Secret("lone-\udc80-surrogate")
    assert redact(f"<{odd.reveal()}>") == "<[secret]>"
