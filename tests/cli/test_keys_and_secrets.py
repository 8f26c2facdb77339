"""Who may halt, and what their keys open: the commands, on software keys and a sealed world."""

import json
import os
import pty
import re
import select
import shutil
import time
from pathlib import Path

import pytest

from killswitch.authority.bundle import Bundle
from killswitch.authority.ring import KeyRing
from killswitch.sandbox.softkey import SoftKey
from killswitch.sandbox.world import World
from tests.authority.test_attestation import Maker
from tests.journal.desk import Desk
from tests.worlds import KILLSWITCH, Ran, home, killswitch, running_world, secrets_of

PIN = "3141"


def config_of(world: World) -> list[str]:
    return ["--config", str(world.config_file)]


def enrol_spare(world: World, folder: Path, label: str = "black", *more: str) -> Ran:
    words = ["keys", "enroll", "--operator", "ben", "--label", label, "--yes", *more]
    return killswitch([*words, *config_of(world)], folder)


def unplug(world: World, name: str) -> None:
    (world.folder / name).rename(world.folder / f"unplugged-{name}")


def alter(world: World, old: str, new: str) -> None:
    text = world.config_file.read_text()
    assert old in text
    world.config_file.write_text(text.replace(old, new))


def typed(
    words: list[str],
    folder: Path,
    line: str,
    *,
    when: bytes = b"PIN of the key",
    timeout_s: float = 60,
) -> Ran:
    """Run killswitch at a terminal and type `line` each time that it shows `when`."""
    child, screen = pty.fork()
    if not child:
        os.chdir(folder)
        os.execve(KILLSWITCH, [str(KILLSWITCH), *words], home(folder))  # noqa: S606 (our own, in a terminal)
    shown, end = b"", time.monotonic() + timeout_s
    answered = 0
    while time.monotonic() < end:
        ready, _, _ = select.select([screen], [], [], 0.2)
        if ready:
            try:
                part = os.read(screen, 65536)
            except OSError:
                break
            shown += part
            if shown.count(when) > answered:
                answered += 1
                os.write(screen, line.encode() + b"\n")
    _, status = os.waitpid(child, 0)
    os.close(screen)
    return Ran(os.waitstatus_to_exitcode(status), shown.decode(), "")


# Sealed secrets.


def test_a_sealed_world_is_halted_by_the_touch_that_opens_its_secrets(tmp_path: Path) -> None:
    with running_world(tmp_path, sealed=True) as world:
        on_disk = b"".join(it.read_bytes() for it in tmp_path.iterdir() if it.is_file())
        for secret in secrets_of(world):
            if secret != world.vault.root_token:  # which no halt has
                assert secret.encode() not in on_disk
        ran = killswitch(["--revoke", "--yes", *config_of(world)], tmp_path)
        assert ran.code == 0, ran.err + ran.out
        assert "it opened 8 secrets" in ran.err
        assert world.live() == {}
        for secret in secrets_of(world):
            assert secret not in ran.out + ran.err
    assert killswitch(["journal", "verify", *config_of(world)], tmp_path).code == 0


def test_status_without_a_touch_says_what_it_did_not_look_at_and_with_one_it_looks(
    tmp_path: Path,
) -> None:
    with running_world(tmp_path, sealed=True) as world:
        drill = killswitch(["drill", "--yes", *config_of(world)], tmp_path)
        assert drill.code == 0, drill.err + drill.out
        bare = killswitch(["status", *config_of(world)], tmp_path)
        assert bare.code == 0, bare.out
        assert "without a touch: 7 not looked at" in bare.out
        assert "sealed, not looked at; killswitch status --touch" in bare.out
        touched = killswitch(["status", "--touch", "--yes", *config_of(world)], tmp_path)
        assert touched.code == 0, touched.out
        assert "ARMED  a halt would work" in touched.out
        assert re.search(r"bybit +ok +main-desk: \d+ live: ", touched.out), touched.out
        for server in world.servers:
            assert server.writes == []


def test_a_secret_is_set_without_a_touch_listed_without_its_value_and_removed(
    tmp_path: Path,
) -> None:
    value = "a-value-that-is-never-shown"
    with running_world(tmp_path) as world:
        config = config_of(world)
        done = killswitch(["secrets", "set", "extra", *config], tmp_path, stdin=value + "\n")
        assert done.code == 0, done.err
        assert 'opened by "software key"' in done.out
        listed = killswitch(["secrets", "list", "--json", *config], tmp_path)
        rows = json.loads(listed.out)["secrets"]
        assert [(row["name"], row["opened_by"]) for row in rows] == [("extra", ["software key"])]
        removed = killswitch(["secrets", "remove", "extra", *config], tmp_path)
        assert removed.code == 0
        assert Bundle.load(world.folder / "secrets.json").names == ()
        said = done.out + done.err + listed.out + removed.out
    assert value not in said
    assert value.encode() not in b"".join(it.read_bytes() for it in tmp_path.glob("*.*"))


@pytest.mark.parametrize(
    ("words", "stdin", "said"),
    [
        (["set", "extra"], "", "nothing was given"),
        (["set", "Not-A-Name"], "x", "this cannot name a secret"),
        (["rotate", "never-set"], "x", "there is no sealed:never-set"),
        (["remove", "never-set"], None, "no sealed secret has this name"),
        (["reseal", "--yes"], None, "there are no sealed secrets"),
        (["set", "extra", "--command", "false"], None, "exit code 1"),
    ],
)
def test_what_cannot_be_sealed_is_told_in_three_lines(
    tmp_path: Path, words: list[str], stdin: str | None, said: str
) -> None:
    with running_world(tmp_path) as world:
        ran = killswitch(["secrets", *words, *config_of(world)], tmp_path, stdin=stdin)
    assert ran.code == 2
    assert said in ran.err
    assert "the sealed secrets are unchanged" in ran.err
    assert len(ran.err.strip().splitlines()) == 3


def test_a_secret_on_the_command_line_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        words = ["secrets", "set", "extra", "typed-in-the-wrong-place", *config_of(world)]
        ran = killswitch(words, tmp_path)
    assert ran.code == 2
    assert "never stands on the command line" in ran.err
    assert "typed-in-the-wrong-place" not in ran.out + ran.err


def test_a_swapped_bundle_is_not_made_good_by_the_next_secret_that_is_set(tmp_path: Path) -> None:
    with running_world(tmp_path, sealed=True) as world:
        config, file = config_of(world), world.folder / "secrets.json"
        older = file.read_bytes()
        rotate = ["secrets", "rotate", "vault-token", *config]
        assert killswitch(rotate, tmp_path, stdin=world.vault.token).code == 0
        file.write_bytes(older)
        refused = killswitch(["secrets", "set", "extra", *config], tmp_path, stdin="value-74")
        assert refused.code == 4
        assert "not those that the journal knows" in refused.err
        assert file.read_bytes() == older
        assert killswitch(["secrets", "reseal", "--yes", *config], tmp_path).code == 0
        assert killswitch(rotate, tmp_path, stdin=world.vault.token).code == 0


def test_where_a_halt_needs_the_pin_keys_without_one_are_named_with_the_way_out(
    tmp_path: Path,
) -> None:
    with running_world(tmp_path, sealed=True) as world:
        alter(world, "require_pin = []", 'require_pin = ["halt"]')
        status = killswitch(["status", *config_of(world)], tmp_path)
        assert "not enrolled" not in status.out
        assert "its PIN was not set when it was enrolled" in " ".join(status.out.split())
        ran = killswitch(["secrets", "set", "x", *config_of(world)], tmp_path, stdin="value-75")
        assert ran.code == 4
        assert "set a PIN on each key" in ran.err


def test_a_rotated_secret_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    with running_world(tmp_path, sealed=True) as world:
        config = config_of(world)
        wrong = "token-of-nobody"
        assert (
            killswitch(["secrets", "rotate", "vault-token", *config], tmp_path, stdin=wrong).code
            == 0
        )
        drill = killswitch(["drill", "--yes", *config], tmp_path)
        assert drill.code == 8, drill.out
        done = killswitch(
            ["secrets", "rotate", "vault-token", "--command", f"echo {world.vault.token}", *config],
            tmp_path,
        )
        assert done.code == 0, done.err
        assert killswitch(["drill", "--yes", *config], tmp_path).code == 0


@pytest.mark.parametrize("change", ["older", "gone", "other"])
def test_a_bundle_that_was_swapped_is_found_before_it_is_needed(
    tmp_path: Path, change: str
) -> None:
    with running_world(tmp_path, sealed=True) as world:
        config, file = config_of(world), world.folder / "secrets.json"
        older = file.read_bytes()
        set_again = ["secrets", "set", "vault-token", *config]
        assert killswitch(set_again, tmp_path, stdin=world.vault.token).code == 0
        assert killswitch(["drill", "--yes", *config], tmp_path).code == 0
        match change:
            case "older":
                file.write_bytes(older)
            case "gone":
                file.unlink()
            case _:
                file.write_bytes(file.read_bytes().replace(b"  ", b"   "))
        status = killswitch(["status", *config], tmp_path)
        assert status.code == 8
        assert ("is gone" if change == "gone" else "not those that the journal knows") in status.out
        drill = killswitch(["drill", "--yes", *config], tmp_path)
        assert drill.code == 8, drill.out
        assert drill.out.startswith("DRILL NOT PASSED")
        assert change == "gone" or "all was rehearsed, but" in drill.out


def test_a_secret_that_does_not_open_costs_only_the_system_that_needs_it(tmp_path: Path) -> None:
    with running_world(tmp_path, sealed=True) as world:
        file = world.folder / "secrets.json"
        bundle = json.loads(file.read_text())
        (entry,) = (it for it in bundle["secrets"] if it["name"] == "vault-token")
        entry["sealed"] = {one: text[::-1] for one, text in entry["sealed"].items()}
        file.write_text(json.dumps(bundle))
        ran = killswitch(["--revoke", "--yes", *config_of(world)], tmp_path)
        live = world.live()
    assert ran.code == 11, ran.out
    assert set(live) == {"vault"}
    assert "sealed:vault-token" in ran.out


def test_a_bundle_that_cannot_be_read_is_told_before_the_touch_and_halts_nothing(
    tmp_path: Path,
) -> None:
    with running_world(tmp_path, sealed=True) as world:
        (world.folder / "secrets.json").write_text("damaged")
        ran = killswitch(["--revoke", "--yes", *config_of(world)], tmp_path)
        assert set(world.live()) >= {"kubernetes", "bybit", "vault"}
    assert ran.code == 11, ran.out
    assert ran.err.index("damaged") < ran.err.index("touched")


def test_a_halt_with_a_swapped_bundle_is_flagged(tmp_path: Path) -> None:
    with running_world(tmp_path, sealed=True) as world:
        file = world.folder / "secrets.json"
        file.write_bytes(file.read_bytes().replace(b"  ", b"   "))
        ran = killswitch(["--revoke", "--yes", *config_of(world)], tmp_path)
        assert world.live() == {}
    assert ran.code == 5, ran.out
    assert "not those that the journal knows" in ran.out


def test_a_second_laptop_adopts_the_keys_by_the_touch_of_one(tmp_path: Path) -> None:
    with running_world(tmp_path, sealed=True) as world:
        config = config_of(world)
        (tmp_path / "journal.db").unlink()
        status = killswitch(["status", *config], tmp_path)
        assert "killswitch keys adopt" in status.out
        refused = killswitch(["secrets", "set", "x", *config], tmp_path, stdin="value-73")
        assert refused.code == 4
        assert "killswitch keys adopt" in refused.err
        adopted = killswitch(["keys", "adopt", "--yes", *config], tmp_path)
        assert adopted.code == 0, adopted.err
        assert killswitch(["keys", "adopt", "--yes", *config], tmp_path).code == 2
        done = killswitch(["secrets", "set", "x", *config], tmp_path, stdin="value-73")
        assert done.code == 0, done.err
        assert enrol_spare(world, tmp_path).code == 0
        assert killswitch(["drill", "--yes", *config], tmp_path).code == 0
        assert killswitch(["journal", "verify", *config], tmp_path).code == 0


@pytest.mark.parametrize("ring", ["gone", "rogue", "empty"])
def test_a_ring_that_was_lost_or_altered_is_restored_from_the_journal(
    tmp_path: Path, ring: str
) -> None:
    with running_world(tmp_path, sealed=True) as world:
        config, keys = config_of(world), world.folder / "keys.json"
        assert enrol_spare(world, tmp_path).code == 0
        match ring:
            case "gone":
                keys.unlink()
            case "rogue":
                keys.write_text(keys.read_text().replace('"operator": "ben"', '"operator": "eve"'))
            case _:
                keys.write_text('{"schema": 1, "keys": []}')
        assert killswitch(["status", *config], tmp_path).code == 8
        restored = killswitch(["keys", "restore", "--yes", *config], tmp_path)
        assert restored.code == 0, restored.err
        assert '"black" of ben, may halt and release' in restored.err
        assert killswitch(["drill", "--yes", *config], tmp_path).code == 0


def test_nobody_is_left_without_a_key_that_may_halt(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        assert enrol_spare(world, tmp_path, "black", "--role", "release").code == 0
        words = ["keys", "remove", "software key", "--yes", *config_of(world)]
        ran = killswitch(words, tmp_path)
    assert ran.code == 2
    assert 'without "software key" nobody may halt' in ran.err


def test_a_bundle_sealed_to_a_stranger_is_found_and_sealing_to_one_is_refused(
    tmp_path: Path,
) -> None:
    with running_world(tmp_path, sealed=True) as world:
        config = config_of(world)
        killswitch(["drill", "--yes", *config], tmp_path)
        with running_world(tmp_path / "stranger") as stranger:
            recipient = KeyRing.load(stranger.folder / "keys.json").keys[0].recipients[0]
        keys = world.folder / "keys.json"
        ring = json.loads(keys.read_text())
        ring["keys"][0]["recipients"].append({"public_key": recipient.public_key, "uv": True})
        keys.write_text(json.dumps(ring))
        refused = killswitch(["secrets", "set", "extra", *config], tmp_path, stdin="value-71")
        assert refused.code == 4
        assert "is not as the journal says that it was enrolled" in refused.err
        assert "extra" not in Bundle.load(world.folder / "secrets.json").names
        status = killswitch(["status", *config], tmp_path)
        assert status.code == 8
        assert "is not as the journal says that it was enrolled" in status.out


def test_whoever_has_the_files_but_no_touch_has_no_credential(tmp_path: Path) -> None:
    with running_world(tmp_path, sealed=True) as world:
        unplug(world, "software-key.json")
        ran = killswitch(["--revoke", "--touch-timeout", "1", "--yes", *config_of(world)], tmp_path)
        assert ran.code == 3
        assert world.live()
        ring = KeyRing.load(world.folder / "keys.json")
        bundle = Bundle.load(world.folder / "secrets.json")
        stored = ring.keys[0].credential + bundle.raw
    for secret in secrets_of(world):
        assert secret.encode() not in stored


def test_a_secret_can_be_typed_and_is_not_seen(tmp_path: Path) -> None:
    value = "typed-and-never-seen"
    with running_world(tmp_path) as world:
        words = ["secrets", "set", "extra", *config_of(world)]
        ran = typed(words, tmp_path, value, when=b"value of sealed:extra")
        assert ran.code == 0, ran.out
        assert Bundle.load(world.folder / "secrets.json").names == ("extra",)
    assert value not in ran.out


# Several keys.


def test_a_second_key_is_admitted_by_the_first_opens_the_secrets_and_halts(
    tmp_path: Path,
) -> None:
    with running_world(tmp_path, sealed=True) as world:
        config = config_of(world)
        added = enrol_spare(world, tmp_path)
        assert added.code == 0, added.err
        assert "now a key that is enrolled already" in added.err
        listed = json.loads(killswitch(["keys", "list", "--json", *config], tmp_path).out)
        assert [key["label"] for key in listed["keys"]] == ["software key", "black"]
        unplug(world, "software-key.json")
        (world.folder / "software-key.json").symlink_to(world.folder / "spare-key.json")
        halted = killswitch(["--revoke", "--yes", *config], tmp_path)
        assert halted.code == 0, halted.err + halted.out
        assert 'key "black" (ben)' in halted.out
        assert world.live() == {}
        assert killswitch(["journal", "verify", *config], tmp_path).code == 0


def test_a_key_that_begins_to_insist_on_its_pin_opens_the_secrets_with_it(tmp_path: Path) -> None:
    with running_world(tmp_path, sealed=True) as world:
        config = config_of(world)
        spare = SoftKey.load(world.folder / "spare-key.json", touch=lambda _: True)
        spare.set_pin(PIN)
        enrol = ["keys", "enroll", "--operator", "ben", "--label", "black", "--yes", *config]
        added = typed(enrol, tmp_path, PIN)
        assert added.code == 0, added.out
        spare.always_uv = True
        unplug(world, "software-key.json")
        (world.folder / "software-key.json").symlink_to(world.folder / "spare-key.json")
        halted = typed(["--revoke", "--yes", *config], tmp_path, PIN)
        assert halted.code == 0, halted.out
        assert PIN not in halted.out
        assert world.live() == {}


def test_a_key_enrolled_without_a_pin_that_then_insists_on_one_says_why_nothing_opens(
    tmp_path: Path,
) -> None:
    with running_world(tmp_path, sealed=True) as world:
        soft = SoftKey.load(world.folder / "software-key.json", touch=lambda _: True)
        soft.set_pin(PIN)
        soft.always_uv = True
        ran = typed(["--revoke", "--yes", *config_of(world)], tmp_path, PIN)
        assert world.live()
    assert ran.code == 11, ran.out
    assert "sealed for use without PIN" in " ".join(ran.out.split())


def test_a_removed_key_neither_halts_nor_opens_what_was_sealed_after(tmp_path: Path) -> None:
    with running_world(tmp_path, sealed=True) as world:
        config = config_of(world)
        assert enrol_spare(world, tmp_path).code == 0
        removed = killswitch(["keys", "remove", "black", "--yes", *config], tmp_path)
        assert removed.code == 0, removed.err
        assert "in older copies of the file it still opens sealed:bybit-api-key" in removed.err
        again = killswitch(["keys", "remove", "black", "--yes", *config], tmp_path)
        assert again.code == 2
        ring = KeyRing.load(world.folder / "keys.json")
        bundle = Bundle.load(world.folder / "secrets.json")
        assert bundle.strangers(ring.recipients()) == ()
        assert bundle.not_for(ring.recipients()) == ()
        unplug(world, "software-key.json")
        refused = killswitch(["--revoke", "--yes", "--touch-timeout", "1", *config], tmp_path)
        assert refused.code == 3
        assert world.live()
        assert killswitch(["journal", "verify", *config], tmp_path).code == 0


def test_the_last_key_is_not_removed(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        words = ["keys", "remove", "software key", "--yes", *config_of(world)]
        ran = killswitch(words, tmp_path)
    assert ran.code == 2
    assert 'without "software key" nobody may halt' in ran.err


def test_a_key_that_is_enrolled_already_is_not_enrolled_again(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        assert enrol_spare(world, tmp_path).code == 0
        again = enrol_spare(world, tmp_path, "grey")
        assert again.code == 2
        assert "every software key of the sandbox is enrolled" in again.err
        twice = enrol_spare(world, tmp_path, "black")
        assert 'a key with the label "black" is already enrolled' in twice.err


def test_one_key_alone_is_enrolled_only_by_whoever_accepts_that_it_can_be_lost(
    tmp_path: Path,
) -> None:
    (tmp_path / "killswitch.toml").write_text('name = "desk"\n')
    ran = killswitch(["keys", "enroll", "--operator", "ben", "--label", "black"], tmp_path)
    assert ran.code == 2
    assert "--accept-single-key" in ran.err
    assert not (tmp_path / "keys.json").exists()


def test_a_key_that_vouches_for_itself_is_not_enrolled_where_its_maker_has_to(
    tmp_path: Path,
) -> None:
    with running_world(tmp_path) as world:
        root = tmp_path / "root.pem"
        root.write_bytes(Maker().pem)
        alter(world, "require_pin = []", 'require_pin = []\nattestation = "attested"')
        unmet = enrol_spare(world, tmp_path)
        assert unmet.code == 4
        assert "needs a root certificate" in unmet.err
        alter(world, "[journal]", f'attestation_roots = ["{root}"]\n[journal]')
        refused = enrol_spare(world, tmp_path)
        assert refused.code == 3, refused.err
        assert len(KeyRing.load(world.folder / "keys.json").keys) == 1


def test_a_pin_with_few_tries_left_is_asked_for_only_by_force(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        alter(world, "require_pin = []", 'require_pin = ["release"]')
        alter(world, "[halt]\n", "[halt]\ntouch_timeout_s = 3.0\n")
        soft = SoftKey.load(world.folder / "software-key.json", touch=lambda _: True)
        soft.set_pin(PIN)
        halt = halted(world, tmp_path)
        words = ["resolve", halt, "--note", "mended", "--yes", *config_of(world)]
        for _ in range(2):
            assert typed(words, tmp_path, "0000").code == 3
        few = typed(words, tmp_path, PIN)
        assert few.code == 3, few.out
        assert "--force-pin" in few.out
        forced = typed([*words, "--force-pin"], tmp_path, PIN)
        assert forced.code == 0, forced.out


def test_a_ring_that_is_lost_is_not_begun_anew_behind_the_journals_back(tmp_path: Path) -> None:
    Desk(tmp_path / "journal.db").enrol("blue")
    config = 'name = "desk"\n[journal]\nfile = "journal.db"\n'
    (tmp_path / "killswitch.toml").write_text(config)
    words = ["keys", "enroll", "--operator", "ben", "--label", "black", "--label", "grey"]
    ran = killswitch(words, tmp_path)
    assert ran.code == 4
    assert 'but the journal knows "blue"' in ran.err
    assert not (tmp_path / "keys.json").exists()


def test_a_key_in_the_ring_that_no_touch_admitted_is_found_everywhere(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        config = config_of(world)
        killswitch(["drill", "--yes", *config], tmp_path)
        with running_world(tmp_path / "other") as other:
            rogue = json.loads((other.folder / "keys.json").read_text())["keys"][0]
            shutil.copy(other.folder / "software-key.json", world.folder / "spare-key.json")
        keys = world.folder / "keys.json"
        ring = json.loads(keys.read_text())
        ring["keys"].append({**rogue, "label": "rogue"})
        keys.write_text(json.dumps(ring))
        status = killswitch(["status", *config], tmp_path)
        assert status.code == 8
        assert "the journal admitted no such key" in status.out


# Release is harder than halt.


def halted(world: World, folder: Path) -> str:
    ran = killswitch(["--revoke", "--json", "--yes", *config_of(world)], folder)
    assert ran.code == 0, ran.err
    return str(json.loads(ran.out)["order"]["id"])


def test_a_release_asks_for_the_pin_and_a_wrong_one_is_told_before_any_touch(
    tmp_path: Path,
) -> None:
    with running_world(tmp_path) as world:
        alter(world, "require_pin = []", 'require_pin = ["release"]')
        alter(world, "[halt]\n", "[halt]\ntouch_timeout_s = 5.0\n")
        soft = SoftKey.load(world.folder / "software-key.json", touch=lambda _: True)
        soft.set_pin(PIN)
        halt = halted(world, tmp_path)
        words = ["resolve", halt, "--note", "mended", "--yes", *config_of(world)]
        unasked = killswitch([*words, "--no-input"], tmp_path, timeout_s=90)
        assert unasked.code == 3, unasked.err
        wrong = typed(words, tmp_path, "0000")
        assert wrong.code == 3, wrong.out
        assert "wrong PIN" in wrong.out
        assert "touched" not in wrong.out
        soft.replug()
        right = typed(words, tmp_path, PIN)
        assert right.code == 0, right.out
        assert PIN not in right.out
        assert f"halt {halt} is resolved" in right.out
        assert "1. find the cause" in right.out
        assert killswitch(["journal", "verify", *config_of(world)], tmp_path).code == 0


def test_a_key_without_a_pin_releases_nothing_where_a_pin_is_asked_for(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        alter(world, "require_pin = []", 'require_pin = ["release"]')
        alter(world, "[halt]\n", "[halt]\ntouch_timeout_s = 2.0\n")
        halt = halted(world, tmp_path)
        words = ["resolve", halt, "--note", "mended", "--yes", *config_of(world)]
        ran = killswitch(words, tmp_path)
    assert ran.code == 3
    assert "has no PIN" in ran.err


def test_the_operator_who_halted_does_not_release_where_another_has_to(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        alter(world, "require_pin = []", "require_pin = []\nrelease_by_another = true")
        halt = halted(world, tmp_path)
        words = ["resolve", halt, "--note", "mended", "--yes", *config_of(world)]
        alone = killswitch(words, tmp_path)
        assert alone.code == 3
        assert "another operator has to release it" in alone.err
        assert enrol_spare(world, tmp_path, "black", "--role", "release").code == 0
        by_another = killswitch(words, tmp_path)
        assert by_another.code == 0, by_another.err
        assert killswitch(["journal", "verify", *config_of(world)], tmp_path).code == 0


def test_a_key_that_may_only_release_does_not_halt(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        assert enrol_spare(world, tmp_path, "black", "--role", "release").code == 0
        unplug(world, "software-key.json")
        (world.folder / "software-key.json").symlink_to(world.folder / "spare-key.json")
        words = ["--revoke", "--yes", "--touch-timeout", "1", *config_of(world)]
        ran = killswitch(words, tmp_path)
        assert ran.code == 3
        assert world.live()


@pytest.mark.parametrize("words", [["resolve", "HALT", "--note", "x"], ["secrets", "reseal"]])
def test_a_key_that_only_stands_in_the_ring_releases_nothing_and_opens_nothing(
    tmp_path: Path, words: list[str]
) -> None:
    with running_world(tmp_path, sealed=True) as world:
        config = config_of(world)
        halt = halted(world, tmp_path)
        with running_world(tmp_path / "other") as other:
            rogue = json.loads((other.folder / "keys.json").read_text())["keys"][0]
            shutil.copy(other.folder / "software-key.json", world.folder / "software-key.json")
        keys = world.folder / "keys.json"
        ring = json.loads(keys.read_text())
        ring["keys"].append({**rogue, "label": "rogue"})
        keys.write_text(json.dumps(ring))
        line = [halt if word == "HALT" else word for word in words]
        ran = killswitch([*line, "--yes", *config], tmp_path)
        assert ran.code == 4, ran.out + ran.err
        assert "the journal admitted no such key" in ran.err
        added = enrol_spare(world, tmp_path)
        assert added.code == 4


def test_a_removal_that_was_cut_off_before_the_ring_was_written_is_done_again(
    tmp_path: Path,
) -> None:
    with running_world(tmp_path) as world:
        config = config_of(world)
        assert enrol_spare(world, tmp_path).code == 0
        before = (world.folder / "keys.json").read_bytes()
        remove = ["keys", "remove", "black", "--yes", *config]
        assert killswitch(remove, tmp_path).code == 0
        (world.folder / "keys.json").write_bytes(before)  # as if it had died after the event
        assert killswitch(["secrets", "set", "x", *config], tmp_path, stdin="value-72").code == 4
        again = killswitch(remove, tmp_path)
        assert again.code == 0, again.err
        assert killswitch(["journal", "verify", *config], tmp_path).code == 0
        assert killswitch(["secrets", "set", "x", *config], tmp_path, stdin="value-72").code == 0


@pytest.mark.parametrize("mode", ["--revoke", "drill"])
def test_a_removed_key_does_not_act_again_with_an_old_ring(tmp_path: Path, mode: str) -> None:
    with running_world(tmp_path, sealed=True) as world:
        config = config_of(world)
        assert enrol_spare(world, tmp_path).code == 0
        ring, bundle = world.folder / "keys.json", world.folder / "secrets.json"
        old = ring.read_bytes(), bundle.read_bytes()
        assert killswitch(["keys", "remove", "black", "--yes", *config], tmp_path).code == 0
        ring.write_bytes(old[0])
        bundle.write_bytes(old[1])
        unplug(world, "software-key.json")
        (world.folder / "software-key.json").symlink_to(world.folder / "spare-key.json")
        ran = killswitch([mode, "--yes", "--touch-timeout", "1", *config], tmp_path)
        assert ran.code == 3, ran.out
        assert "the journal admitted no such key" in ran.err
        assert world.live()
        assert killswitch(["journal", "verify", *config], tmp_path).code == 0
        status = killswitch(["status", *config], tmp_path)
        assert "mend: killswitch secrets reseal" not in status.out


def test_a_role_or_an_operator_changed_in_the_file_releases_nothing(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        alter(world, "require_pin = []", "require_pin = []\nrelease_by_another = true")
        halt = halted(world, tmp_path)
        keys = world.folder / "keys.json"
        keys.write_text(keys.read_text().replace('"operator": "you"', '"operator": "somebody"'))
        words = ["resolve", halt, "--note", "mended", "--yes", *config_of(world)]
        ran = killswitch(words, tmp_path)
        assert ran.code == 4, ran.out
        assert "is not as the journal says that it was enrolled" in ran.err


def test_an_enrolment_that_was_cut_off_before_the_ring_was_written_names_the_way_out(
    tmp_path: Path,
) -> None:
    with running_world(tmp_path) as world:
        config, keys = config_of(world), world.folder / "keys.json"
        before = keys.read_bytes()
        assert enrol_spare(world, tmp_path).code == 0
        keys.write_bytes(before)  # as if it had died after the event
        again = enrol_spare(world, tmp_path)
        assert again.code == 4
        assert "touch the key" not in again.err, "no touch is asked for in vain"
        assert "killswitch keys restore" in again.err
        assert killswitch(["keys", "restore", "--yes", *config], tmp_path).code == 0
        assert killswitch(["drill", "--yes", *config], tmp_path).code == 0
        assert killswitch(["journal", "verify", *config], tmp_path).code == 0


def test_a_key_of_another_role_is_not_asked_to_remove_one(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        assert enrol_spare(world, tmp_path, "black", "--role", "halt").code == 0
        words = ["keys", "remove", "software key", "--yes", *config_of(world)]
        ran = killswitch(words, tmp_path)
    assert ran.code == 3
    assert "it takes the touch of a key with the role both" in ran.err
    assert "the key ring is unchanged" in ran.err


def test_a_phrase_on_the_command_line_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        ran = enrol_spare(world, tmp_path, "black", "--recovery", "ABCD-EFGH-JKMN")
    assert ran.code == 2
    assert "never stands on the command line" in ran.err
    assert "ABCD" not in ran.out + ran.err
