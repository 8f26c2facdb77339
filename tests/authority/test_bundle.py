"""The bundle of sealed secrets and its file, and those who would like to tamper with it."""

import copy
import hashlib
import json
import stat
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from killswitch.authority.bundle import LARGEST_FILE_BYTES, Bundle, update
from killswitch.authority.files import locked, write_private
from killswitch.authority.sealing import Identity, Recipient, open_secret
from killswitch.errors import ConfigError, UsageError
from killswitch.secret import Secret

NOW = datetime(2026, 11, 21, 3, 14, tzinfo=UTC)
BYBIT = "zq-plaintext-of-bybit"
VAULT = "zq-plaintext-of-vault\n"


def identity(credential_id: bytes, *, uv: bool = False) -> Identity:
    output = hashlib.sha256(credential_id + bytes([uv])).digest()
    return Identity.from_prf(output, credential_id=credential_id, uv=uv)


BLUE, BLUE_PIN = identity(b"blue"), identity(b"blue", uv=True)
BLACK = identity(b"black")
BOTH = (BLUE.recipient, BLACK.recipient)


def bundle(recipients: Iterable[Recipient] = BOTH) -> Bundle:
    to = tuple(recipients)
    empty = Bundle().with_secret("vault-token", Secret(VAULT), to, NOW)
    return empty.with_secret("bybit-main", Secret(BYBIT), to, NOW)


def values(one: Bundle, who: Identity) -> dict[str, str]:
    return {name: secret.reveal() for name, secret in one.open(who).secrets.items()}


def tampered(path: Path, change: Callable[[Any], object]) -> Bundle:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content["secrets"])
    path.write_text(json.dumps(content), encoding="utf-8")
    return Bundle.load(path)


def shown(error: BaseException) -> str:
    parts: list[str] = []
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is not None:
            parts += [str(one), repr(one), repr(vars(one)), *traceback.format_exception(one)]
            left += [one.__cause__, one.__context__]
    return "\n".join(parts)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "secrets.json"


def test_each_key_opens_every_secret_exactly_as_it_was_set(path: Path) -> None:
    bundle().save(path)
    loaded = Bundle.load(path)
    assert loaded.names == ("bybit-main", "vault-token")
    for who in (BLUE, BLACK):
        assert values(loaded, who) == {"bybit-main": BYBIT, "vault-token": VAULT}
        assert loaded.open(who).missing == ()
        assert loaded.open(who).damaged == {}


def test_each_entry_is_sealed_under_its_name_and_its_recipient() -> None:
    slot = BLUE.recipient.id
    info = b"killswitch/secret/v1\nbybit-main\n" + slot.encode()
    sealed = bundle().entries[0].sealed[slot]
    assert open_secret(sealed, BLUE, info=info).reveal() == BYBIT


def test_setting_a_secret_needs_no_identity_and_leaves_the_others_as_they_were() -> None:
    before = bundle()
    later = NOW + timedelta(days=1)
    after = before.with_secret("bybit-main", Secret("another"), [BLUE.recipient], later)
    assert after.entries[1] == before.entries[1]
    assert after.entries[0].set_at == "2026-11-22T03:14:00Z"
    assert values(after, BLUE)["bybit-main"] == "another"
    assert values(before, BLUE)["bybit-main"] == BYBIT
    assert after.open(BLACK).missing == ("bybit-main",)


def test_the_time_is_told_in_utc() -> None:
    now = datetime(2026, 11, 21, 4, 14, tzinfo=timezone(timedelta(hours=1)))
    assert Bundle().with_secret("a", Secret("x"), BOTH, now).entries[0].set_at == (
        "2026-11-21T03:14:00Z"
    )


def test_a_secret_that_is_removed_is_gone_and_an_unknown_one_is_told() -> None:
    assert bundle().without("bybit-main").names == ("vault-token",)
    with pytest.raises(UsageError, match="no sealed secret has this name") as caught:
        bundle().without("telegram")
    assert caught.value.effect == "the sealed secrets are unchanged"


def test_the_file_is_for_its_owner_only_and_holds_no_plaintext(path: Path) -> None:
    bundle().save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["secrets.json"]
    assert b"zq-plaintext" not in path.read_bytes()


def test_the_hash_is_that_of_the_files_bytes(path: Path) -> None:
    one = bundle()
    one.save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert one.sha256 == digest
    assert Bundle.load(path).sha256 == digest
    Bundle.load(path).save(path)
    assert Bundle.load(path) == one
    path.write_bytes(path.read_bytes() + b" ")
    assert Bundle.load(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest() != digest


def test_without_a_file_there_is_no_secret_and_no_hash(path: Path) -> None:
    assert Bundle.load(path) == Bundle()
    assert Bundle().sha256 == ""
    assert Bundle().names == ()
    Bundle().save(path)
    assert not path.exists()


def test_the_last_secret_leaves_an_empty_file_with_a_hash(path: Path) -> None:
    bundle().without("bybit-main").without("vault-token").save(path)
    assert Bundle.load(path).names == ()
    assert Bundle.load(path).sha256


@pytest.mark.parametrize(
    "name", ["", "Bybit", "-bybit", "by bit", "bybit\n", "a" * 41, "büro", "../x", BYBIT + "!"]
)
def test_a_name_that_is_none_is_refused_and_not_shown(name: str) -> None:
    with pytest.raises(UsageError, match="this cannot name a secret") as caught:
        Bundle().with_secret(name, Secret("x"), BOTH, NOW)
    assert BYBIT not in shown(caught.value)


def test_a_secret_is_not_set_when_nobody_could_open_it() -> None:
    with pytest.raises(UsageError, match="no key to seal a secret to"):
        Bundle().with_secret("a", Secret("x"), [], NOW)


@pytest.mark.parametrize(
    ("value", "why"),
    [("", "it is empty"), (BYBIT * 4000, "longer than 65536"), ("zq-\udc80", "not text")],
    ids=["empty", "too long", "not text"],
)
def test_a_value_that_cannot_be_sealed_is_refused_and_not_shown(value: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        Bundle().with_secret("a", Secret(value), BOTH, NOW)
    assert "zq-" not in shown(caught.value)


def test_a_recipient_that_everybody_could_open_is_not_sealed_to() -> None:
    with pytest.raises(UsageError, match="no usable public key"):
        Bundle().with_secret("a", Secret(BYBIT), [*BOTH, Recipient("00" * 32, uv=False)], NOW)


def test_no_file_is_written_that_could_not_be_read_again(path: Path) -> None:
    one, value = Bundle(), Secret("v" * (1 << 16))
    for number in range(5):
        one = one.with_secret(f"s{number}", value, BOTH, NOW)
    with pytest.raises(UsageError, match="more than 1048576 bytes"):
        one.with_secret("s5", value, BOTH, NOW)
    assert len(one.raw) <= LARGEST_FILE_BYTES
    one.save(path)
    assert Bundle.load(path) == one


# What an attacker, or a bad disk, may do to the file.


def test_an_entry_that_is_swapped_to_another_name_does_not_open(path: Path) -> None:
    def swap(secrets: Any) -> None:
        secrets[0]["sealed"], secrets[1]["sealed"] = secrets[1]["sealed"], secrets[0]["sealed"]

    bundle().save(path)
    opened = tampered(path, swap).open(BLUE)
    assert opened.secrets == {}
    why = "it was altered, or sealed to another key or under another name"
    assert opened.damaged == {"bybit-main": why, "vault-token": why}


def test_what_is_sealed_to_one_key_does_not_open_in_the_place_of_another(path: Path) -> None:
    def move(secrets: Any) -> None:
        secrets[0]["sealed"][BLACK.recipient.id] = secrets[0]["sealed"][BLUE.recipient.id]

    bundle().save(path)
    one = tampered(path, move)
    assert list(one.open(BLACK).damaged) == ["bybit-main"]
    assert values(one, BLUE)["bybit-main"] == BYBIT


def test_an_entry_that_is_sealed_to_a_stranger_shows_as_a_stranger(path: Path) -> None:
    stranger = identity(b"mallory").recipient
    one = bundle().with_secret("bybit-main", Secret(BYBIT), [*BOTH, stranger], NOW)
    one.save(path)
    loaded = Bundle.load(path)
    assert loaded.strangers(BOTH) == (stranger.id,)
    assert loaded.strangers([*BOTH, stranger]) == ()
    assert loaded.not_for(BOTH) == ()
    assert loaded.not_for([*BOTH, stranger]) == ("vault-token",)


def test_a_secret_that_somebody_substituted_opens_and_only_the_hash_tells(path: Path) -> None:
    bundle().save(path)
    ordered = Bundle.load(path).sha256
    bundle().with_secret("bybit-main", Secret("bogus"), BOTH, NOW).save(path)
    assert values(Bundle.load(path), BLUE)["bybit-main"] == "bogus"
    assert Bundle.load(path).sha256 != ordered


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda text: text[:-8], "it is cut off"),
        (lambda _: "", "it is cut off"),
        (lambda text: text[:-3] + "=", "it is not base64"),
        (lambda _: "not base64!", "it is not base64"),
        (lambda text: text[:70] + ("A" if text[70] != "A" else "B") + text[71:], "it was altered"),
        (lambda text: ("A" if text[0] != "A" else "B") + text[1:], "it was altered"),
    ],
    ids=["cut", "empty", "odd", "no base64", "bit in the text", "bit in the key"],
)
def test_a_damaged_secret_costs_only_itself(
    path: Path, damage: Callable[[str], str], why: str
) -> None:
    def change(secrets: Any) -> None:
        slots = secrets[0]["sealed"]
        slots[BLUE.recipient.id] = damage(slots[BLUE.recipient.id])

    bundle().save(path)
    one = tampered(path, change)
    opened = one.open(BLUE)
    assert values(one, BLUE) == {"vault-token": VAULT}
    assert opened.missing == ()
    assert list(opened.damaged) == ["bybit-main"]
    assert opened.damaged["bybit-main"].startswith(why)
    # The other key's copy is whole, and from it the damage is mended.
    mended = one.resealed(one.open(BLACK).secrets, BOTH)
    assert values(mended, BLUE) == {"bybit-main": BYBIT, "vault-token": VAULT}


def test_every_bit_of_a_sealed_secret_counts(path: Path) -> None:
    bundle([BLUE.recipient]).save(path)
    before = path.read_text(encoding="utf-8")
    text = json.loads(before)["secrets"][0]["sealed"][BLUE.recipient.id]
    for place in range(len(text)):
        flipped = text[:place] + chr(ord(text[place]) ^ 1) + text[place + 1 :]
        path.write_text(before.replace(text, flipped), encoding="utf-8")
        assert list(Bundle.load(path).open(BLUE).damaged) == ["bybit-main"]


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Bybit"},
        {"name": BYBIT + "\x1b[2J"},
        {"name": "vault-token"},
        {"name": None},
        {"set_at": "yesterday\x1b[2J"},
        {"set_at": "2026-11-21T03:14:00Z\n"},
        {"sealed": {"blue": "AAAA"}},
        {"sealed": {"0123456789ABCDEF": "AAAA"}},
        {"sealed": {"0123456789abcdef": 7}},
        {"sealed": ["AAAA"]},
    ],
    ids=repr,
)
def test_a_bundle_of_another_shape_is_refused(path: Path, change: dict[str, object]) -> None:
    bundle().save(path)
    with pytest.raises(ConfigError, match="damaged") as caught:
        tampered(path, lambda secrets: secrets[0].update(change))
    assert caught.value.effect == "nothing was revoked; trading is still live"
    assert "killswitch secrets set" in caught.value.hint
    assert "\x1b" not in str(caught.value)
    assert BYBIT not in str(caught.value)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"schema": 1}',
        b'{"schema": 1, "sec',
        b'{"schema": 1, "x": ' + b"[" * 9999,
    ],
    ids=["empty", "list", "not text", "no secrets", "cut", "deep"],
)
def test_what_is_no_bundle_is_refused(path: Path, raw: bytes) -> None:
    write_private(path, raw)
    with pytest.raises(ConfigError, match="damaged"):
        Bundle.load(path)


def test_a_bundle_of_a_newer_version_is_not_guessed_at(path: Path) -> None:
    write_private(path, b'{"schema": 2, "secrets": "who knows"}')
    with pytest.raises(ConfigError, match="schema 2, this killswitch reads 1"):
        Bundle.load(path)


def test_a_bundle_that_others_may_change_is_refused(path: Path) -> None:
    bundle().save(path)
    path.chmod(0o620)
    with pytest.raises(ConfigError, match="can be changed by other users"):
        Bundle.load(path)


def test_an_endless_file_is_not_read(path: Path) -> None:
    write_private(path, b" " * LARGEST_FILE_BYTES + b"{")
    with pytest.raises(ConfigError, match="too large"):
        Bundle.load(path)


# Keys come and go.


def test_a_removed_key_opens_nothing_new_but_an_old_copy_still() -> None:
    old = bundle()
    new = old.resealed(old.open(BLUE).secrets, [BLUE.recipient])
    assert new.open(BLACK).secrets == {}
    assert new.open(BLACK).missing == ("bybit-main", "vault-token")
    assert values(new, BLUE) == {"bybit-main": BYBIT, "vault-token": VAULT}
    assert values(old, BLACK) == {"bybit-main": BYBIT, "vault-token": VAULT}


def test_sealing_anew_keeps_the_time_of_the_value_and_what_was_not_opened() -> None:
    black = Secret("of black only")
    old = bundle().with_secret("only-black", black, [BLACK.recipient], NOW)
    new = old.resealed(old.open(BLUE).secrets, [BLUE.recipient])
    assert [entry.set_at for entry in new.entries] == [entry.set_at for entry in old.entries]
    assert new.open(BLUE).missing == ("only-black",)
    assert values(new, BLACK) == {"only-black": "of black only"}
    assert new.not_for([BLUE.recipient]) == ("only-black",)
    assert new.strangers([BLUE.recipient]) == (BLACK.recipient.id,)


def test_a_secret_that_was_removed_meanwhile_does_not_come_back() -> None:
    opened = bundle().open(BLUE).secrets
    assert bundle().without("bybit-main").resealed(opened, BOTH).names == ("vault-token",)


def test_a_key_that_began_to_verify_its_user_is_told_in_words() -> None:
    one, key = bundle([BLUE.recipient]), [BLUE.recipient]
    assert one.open(BLUE_PIN).missing == ("bybit-main", "vault-token")
    assert one.open(BLUE_PIN).damaged == {}
    told = "sealed for use without PIN; the key now verifies the user (alwaysUv?)"
    assert one.why_closed("bybit-main", BLUE_PIN.recipient, key) == told
    both = [BLUE.recipient, BLUE_PIN.recipient]
    assert one.why_closed("bybit-main", BLUE_PIN.recipient, both) == told


def test_a_key_that_no_longer_verifies_its_user_is_told_in_words() -> None:
    one = bundle([BLUE_PIN.recipient])
    told = "sealed for use with PIN; the key did not verify the user this time"
    assert one.why_closed("bybit-main", BLUE.recipient, [BLUE_PIN.recipient]) == told


def test_a_secret_that_is_sealed_for_both_opens_with_and_without_pin() -> None:
    key = (BLUE.recipient, BLUE_PIN.recipient)
    one = bundle(key)
    for who in (BLUE, BLUE_PIN):
        assert values(one, who) == {"bybit-main": BYBIT, "vault-token": VAULT}
        assert one.why_closed("bybit-main", who.recipient, key) == ""


@pytest.mark.parametrize(
    ("asked", "key", "told"),
    [
        (BLACK, [BLACK], "not sealed to this key"),
        (BLACK, [], "this key was enrolled without any recipient"),
        (
            BLACK,
            [BLUE],
            "the key gives another PRF output than at its enrolment, or keys.json was altered",
        ),
    ],
    ids=["not sealed to it", "enrolled without", "another output"],
)
def test_why_a_secret_is_closed_is_told_exactly(
    asked: Identity, key: list[Identity], told: str
) -> None:
    one = bundle([BLUE.recipient])
    enrolled = [who.recipient for who in key]
    assert one.why_closed("bybit-main", asked.recipient, enrolled) == told
    assert one.why_closed("x", asked.recipient, enrolled) == "no sealed secret has this name"


def test_nothing_that_is_shown_holds_a_plaintext_or_a_private_key() -> None:
    one = bundle()
    opened = one.open(BLUE)
    output = hashlib.sha256(b"blue\0").digest()
    told = " ".join(map(repr, (one, one.entries, opened, opened.secrets, BLUE, Secret(BYBIT))))
    assert "zq-plaintext" not in told
    assert output.hex() not in told
    assert repr(output) not in told
    assert "[secret]" in told
    with pytest.raises(TypeError, match="never pickled"):
        copy.deepcopy(opened)


# Several at once.

SET_SOME = """
import sys, threading
from datetime import UTC, datetime
from pathlib import Path
from killswitch.authority.bundle import update
from killswitch.authority.sealing import Recipient
from killswitch.secret import Secret

path, process, key = Path(sys.argv[1]), sys.argv[2], Recipient(sys.argv[3], uv=False)

def work(thread):
    for number in range(10):
        name = f"{process}-{thread}-{number}"
        set_one = lambda one: one.with_secret(name, Secret(name * 3), [key], datetime.now(UTC))
        update(path, set_one, wait_s=60)

threads = [threading.Thread(target=work, args=[number]) for number in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def test_processes_and_threads_that_set_secrets_at_the_same_time_lose_nothing(path: Path) -> None:
    key = BLUE.recipient.public_key
    workers = [
        subprocess.Popen([sys.executable, "-c", SET_SOME, path, process, key]) for process in "abc"
    ]
    assert [worker.wait(timeout=100) for worker in workers] == [0, 0, 0]
    expected = {f"{p}-{t}-{n}" for p in "abc" for t in range(2) for n in range(10)}
    assert values(Bundle.load(path), BLUE) == {name: name * 3 for name in expected}
    assert {entry.name for entry in path.parent.iterdir()} == {"secrets.json", "secrets.json.lock"}


def test_a_value_that_is_set_while_another_process_seals_anew_is_not_lost(path: Path) -> None:
    update(path, lambda _: bundle([BLUE.recipient]))
    started = threading.Event()

    def set_one() -> None:
        started.set()
        update(path, lambda one: one.with_secret("bybit-main", Secret("newer"), BOTH, NOW))

    def seal_anew(one: Bundle) -> Bundle:
        setter.start()
        started.wait(5)
        return one.resealed(one.open(BLUE).secrets, BOTH)

    setter = threading.Thread(target=set_one)
    update(path, seal_anew)
    setter.join(10)
    assert values(Bundle.load(path), BLACK) == {"bybit-main": "newer", "vault-token": VAULT}


def test_an_update_that_changes_nothing_writes_nothing(path: Path) -> None:
    assert update(path, lambda one: one) == Bundle()
    assert not path.exists()


def test_an_update_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    bundle().save(path)
    before = path.read_bytes()
    with pytest.raises(UsageError):
        update(path, lambda one: one.without("telegram"))
    assert path.read_bytes() == before


def test_a_lock_that_is_never_released_is_not_waited_for(path: Path) -> None:
    with locked(path), pytest.raises(ConfigError, match="another process holds"):
        update(path, lambda one: one, wait_s=0.05)
