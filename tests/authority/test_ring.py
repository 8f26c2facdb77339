"""The key ring and its file."""

import json
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from killswitch.authority.ring import (
    SANDBOX_AAGUID,
    EnrolledKey,
    KeyRing,
    locked,
    read_guarded,
    write_private,
)
from killswitch.authority.sealing import Recipient
from killswitch.errors import ConfigError, UsageError

# AAGUID, the length of the id, the id, and where the COSE key would be.
CREDENTIAL = bytes(16) + (4).to_bytes(2, "big") + b"id-1" + b"\xa0"


def key(label: str = "blue", credential_id: bytes = b"id-1") -> EnrolledKey:
    return EnrolledKey(
        label=label,
        operator="anna",
        rp_id="killswitch.example",
        credential=bytes(16) + len(credential_id).to_bytes(2, "big") + credential_id + b"\xa0",
        aaguid=bytes(16).hex(),
        counter=7,
        enrolled_at="2026-11-21T03:14:00Z",
    )


def recipient(number: int, *, uv: bool = False) -> Recipient:
    return Recipient(bytes([number] * 32).hex(), uv=uv)


def sealed(one: EnrolledKey, *numbers: int) -> EnrolledKey:
    """Return the key with recipients: the first without its user verified, the next with."""
    found = tuple(recipient(number, uv=bool(at)) for at, number in enumerate(numbers))
    return replace(one, recipients=found)


def damage(path: Path, **change: object) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    content["keys"][0].update(change)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "keys.json"


def test_a_ring_comes_back_from_its_file_as_it_was(path: Path) -> None:
    ring = KeyRing().add(key()).add(key("black", b"id-2"))
    ring.save(path)
    assert KeyRing.load(path) == ring
    assert ring.keys[0].role == "halt"


def test_the_file_is_for_its_owner_only_and_nothing_else_is_left(path: Path) -> None:
    KeyRing().add(key()).save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["keys.json"]


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_ring_that_others_may_change_is_refused(path: Path, mode: int) -> None:
    KeyRing().add(key()).save(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="can be changed by other users") as caught:
        KeyRing.load(path)
    assert caught.value.effect == "nothing was revoked; trading is still live"
    assert caught.value.hint.endswith(f"chmod go-w {path}")


def test_a_missing_ring_says_how_to_make_one(path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no key ring") as caught:
        KeyRing.load(path)
    assert "killswitch keys enroll" in caught.value.hint


def test_a_ring_of_a_newer_version_is_not_guessed_at(path: Path) -> None:
    write_private(path, b'{"schema": 2, "keys": "who knows"}')
    with pytest.raises(ConfigError, match="schema 2, this killswitch reads 1"):
        KeyRing.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"label": ""},
        {"label": "blue\x1b[2J"},
        {"operator": "anna\n"},
        {"credential": "AAAA"},
        {"credential": "not base64!"},
        {"aaguid": "ff" * 16},
        {"counter": "seven"},
        {"label": "black"},
        {"credential": None},
        {"role": "root"},
        {"attestation": "surely"},
        {"recipients": [{"public_key": "ab", "uv": False}]},
        {"recipients": [{"public_key": "AB" * 32, "uv": False}]},
        {"recipients": [{"public_key": "ab" * 32}]},
        {"colour": "blue"},
        {"recipients": [{"public_key": "ab" * 32, "uv": False, "secret": "x"}]},
    ],
)
def test_a_damaged_ring_is_refused(path: Path, change: dict[str, object]) -> None:
    KeyRing().add(key()).add(key("black", b"id-2")).save(path)
    damage(path, **change)
    with pytest.raises(ConfigError, match="damaged"):
        KeyRing.load(path)


@pytest.mark.parametrize("raw", [b"", b"[]", b"\xff", b'{"schema": 1}', b'{"schema": 1, "ke'])
def test_what_is_no_ring_is_refused(path: Path, raw: bytes) -> None:
    write_private(path, raw)
    with pytest.raises(ConfigError, match="damaged"):
        KeyRing.load(path)


def test_two_keys_with_one_credential_are_refused(path: Path) -> None:
    KeyRing((key("blue"), key("black"))).save(path)
    with pytest.raises(ConfigError, match="the same credential"):
        KeyRing.load(path)


def test_two_keys_with_one_recipient_are_refused(path: Path) -> None:
    ring = KeyRing((sealed(key("blue"), 1), sealed(key("black", b"id-2"), 1)))
    ring.save(path)
    with pytest.raises(ConfigError, match="the same recipient"):
        KeyRing.load(path)
    with pytest.raises(UsageError, match="with the same recipient"):
        KeyRing(ring.keys[:1]).add(ring.keys[1])
    with pytest.raises(UsageError, match="with the same recipient"):
        KeyRing(recovery=recipient(1)).add(ring.keys[0])


def test_a_field_that_this_version_does_not_know_is_not_dropped_in_silence(path: Path) -> None:
    write_private(path, b'{"schema": 1, "keys": [], "quorum": 2}')
    with pytest.raises(ConfigError, match='damaged: it has an unknown field "quorum"'):
        KeyRing.load(path)


def test_a_ring_from_before_there_were_recipients_is_read(path: Path) -> None:
    KeyRing().add(key()).save(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["recovery"], content["keys"][0]["recipients"], content["keys"][0]["attestation"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert KeyRing.load(path) == KeyRing((key(),))


def test_recipients_and_the_one_on_paper_come_back_from_the_file(path: Path) -> None:
    blue = replace(sealed(key(), 1, 2), attestation="attested", role="both")
    ring = KeyRing((blue,), recovery=recipient(9))
    ring.save(path)
    assert KeyRing.load(path) == ring
    assert ring.recipients() == (*blue.recipients, recipient(9))
    assert ring.recipients(uv_only=True) == (blue.recipients[1], recipient(9))
    assert KeyRing((blue,)).recipients() == blue.recipients


def test_the_recipient_on_paper_survives_every_change_of_the_ring() -> None:
    ring = KeyRing(recovery=recipient(9)).add(key()).with_counter(b"id-1", 99).remove("blue")
    assert ring == KeyRing(recovery=recipient(9))


@pytest.mark.parametrize(
    ("role", "allowed"),
    [
        ("halt", {"live", "drill", "keys"}),
        ("release", {"release", "keys"}),
        ("both", {"live", "drill", "release", "keys"}),
    ],
)
def test_a_role_allows_what_it_says_and_nothing_unheard_of(role: str, allowed: set[str]) -> None:
    modes = ("live", "drill", "release", "keys", "", "root")
    assert {mode for mode in modes if replace(key(), role=role).may(mode)} == allowed


def test_a_role_that_there_is_not_is_told() -> None:
    with pytest.raises(UsageError, match='there is no role "root"') as caught:
        KeyRing().add(replace(key(), role="root"))
    assert caught.value.hint == "choose one of halt, release, both"


def test_an_endless_file_is_not_read(path: Path) -> None:
    write_private(path, b" " * (1 << 20) + b"{")
    with pytest.raises(ConfigError, match="too large"):
        KeyRing.load(path)


def test_a_folder_in_the_rings_place_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_guarded(tmp_path, what="key ring")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_private(tmp_path, b"")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("other", [key("blue", b"id-2"), key("black", b"id-1")])
def test_no_label_and_no_credential_is_enrolled_twice(other: EnrolledKey) -> None:
    with pytest.raises(UsageError, match="already enrolled") as caught:
        KeyRing().add(key()).add(other)
    assert caught.value.effect == "the key ring is unchanged"


@pytest.mark.parametrize("label", ["", " blue", "blue\x1b[2J", "x" * 41])
def test_a_label_is_something_that_can_be_read_on_a_screen(label: str) -> None:
    with pytest.raises(UsageError, match="cannot name a key"):
        KeyRing().add(key(label))


def test_a_removed_key_is_gone_and_an_unknown_one_is_told() -> None:
    ring = KeyRing().add(key()).add(key("black", b"id-2"))
    assert [left.label for left in ring.remove("blue").keys] == ["black"]
    with pytest.raises(UsageError, match='no key has the label "green"'):
        ring.remove("green")


def test_a_key_is_found_by_its_credential_id() -> None:
    ring = KeyRing().add(key()).add(key("black", b"id-2"))
    found = ring.find(b"id-2")
    assert found is not None
    assert found.label == "black"
    assert ring.find(b"id-3") is None


def test_a_counter_is_raised_and_never_lowered() -> None:
    ring = KeyRing().add(key()).add(key("black", b"id-2")).with_counter(b"id-1", 9)
    assert [one.counter for one in ring.keys] == [9, 7]
    assert ring.with_counter(b"id-1", 3) == ring


def test_a_key_of_the_sandbox_is_told_by_its_relying_party_or_its_make() -> None:
    assert not key().sandbox
    assert replace(key(), rp_id="sandbox.killswitch.localhost").sandbox
    assert replace(key(), credential=SANDBOX_AAGUID + CREDENTIAL[16:]).sandbox


def test_a_credential_that_is_not_es256_has_no_pem() -> None:
    with pytest.raises((ValueError, KeyError)):
        _ = key().public_key


ENROL_FIVE = """
import sys
from pathlib import Path
from killswitch.authority.ring import EnrolledKey, update
path, worker = Path(sys.argv[1]), sys.argv[2]
for name in (f"{worker}{number}" for number in range(5)):
    credential = bytes(16) + b"\\0\\2" + name.encode()
    key = EnrolledKey(name, "anna", "killswitch.example", credential, "00" * 16, 0, "now")
    update(path, lambda ring: ring.add(key))
"""


def test_processes_that_enrol_at_the_same_time_lose_nothing(path: Path) -> None:
    workers = [
        subprocess.Popen([sys.executable, "-c", ENROL_FIVE, path, worker]) for worker in "abc"
    ]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    assert {one.label for one in KeyRing.load(path).keys} == {
        f"{worker}{number}" for worker in "abc" for number in range(5)
    }


def test_a_reader_sees_the_old_ring_or_the_new_one_never_half(path: Path) -> None:
    rings = [KeyRing().add(key()), KeyRing().add(key()).add(key("black", b"id-2" * 999))]
    rings[0].save(path)
    done = threading.Event()

    def write() -> None:
        for turn in range(60):
            rings[turn % 2].save(path)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert KeyRing.load(path) in rings
    writer.join()


def test_a_lock_that_is_never_released_is_not_waited_for(path: Path) -> None:
    with (
        locked(path),
        pytest.raises(ConfigError, match="another process holds"),
        locked(path, wait_s=0.05),
    ):
        pass
