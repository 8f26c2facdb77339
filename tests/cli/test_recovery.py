"""The recovery phrase: it admits a key when the others are lost, and can do nothing else."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from killswitch.authority.bundle import Bundle
from killswitch.authority.recovery import new_recovery
from killswitch.authority.ring import KeyRing
from killswitch.journal.store import Journal
from killswitch.sandbox.world import World
from tests.cli.test_keys_and_secrets import config_of, enrol_spare, unplug
from tests.journal.desk import Desk
from tests.worlds import KILLSWITCH, Ran, home, killswitch, running_world

GROUP = r"[0-9A-HJKMNP-TV-Z]{4}"
ROW = re.compile(rf"^ +[0-9]+-[0-9]+ +({GROUP}(?:  {GROUP}){{4}})", re.MULTILINE)
WRITTEN, BACK, UNSEEN = "when it is written down: ", "shows it again):", "(not shown): "
CTRL_C, CTRL_D = "\x03", "\x04"

Answer = Callable[[str], str]


def phrase_in(shown: str) -> str:
    """Return the phrase that stands on the newest page."""
    return "-".join(group for row in ROW.findall(shown)[-3:] for group in row.split())


def answered(shown: str, asked: dict[str, int], answers: dict[str, list[Answer]]) -> str | None:
    """Return what a person types now: the next answer to a prompt that was not answered yet."""
    for prompt, lines in answers.items():
        if shown.count(prompt) > asked.get(prompt, 0) and asked.get(prompt, 0) < len(lines):
            asked[prompt] = asked.get(prompt, 0) + 1
            return lines[asked[prompt] - 1](shown)
    return None


def at_terminal(
    words: list[str],
    folder: Path,
    answers: dict[str, list[Answer]],
    *,
    term: str = "",
    timeout_s: float = 60,
) -> Ran:
    """Run killswitch at a terminal, and answer each prompt with its next answer."""
    child, screen = pty.fork()
    if not child:
        os.chdir(folder)
        environment = home(folder) | ({"TERM": term} if term else {})
        os.execve(KILLSWITCH, [str(KILLSWITCH), *words], environment)  # noqa: S606 (our own, in a terminal)
    shown, end, asked = "", time.monotonic() + timeout_s, dict[str, int]()
    while time.monotonic() < end:
        ready, _, _ = select.select([screen], [], [], 0.2)
        if not ready:
            continue
        try:
            shown += os.read(screen, 65536).decode().replace("\r\n", "\n")
        except OSError:
            break
        line = answered(shown, asked, answers)
        if line is not None:
            os.write(screen, line.encode() + (b"" if line in {CTRL_C, CTRL_D} else b"\n"))
    else:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(screen)
    return Ran(os.waitstatus_to_exitcode(status), shown, "")


def without_a_terminal(words: list[str], folder: Path) -> Ran:
    done = subprocess.run(
        [KILLSWITCH, *words],
        cwd=folder,
        env=home(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        start_new_session=True,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def make_phrase(world: World, folder: Path, *more: str) -> str:
    """Make a phrase as a person does, and return it."""
    words = ["keys", "recovery", "--yes", *more, *config_of(world)]
    ran = at_terminal(words, folder, {WRITTEN: [lambda _: ""], BACK: [phrase_in]})
    assert ran.code == 0, ran.out
    assert "the recovery phrase is set" in ran.out
    return phrase_in(ran.out)


def enrol_with(world: World, folder: Path, phrase: str, *more: str) -> Ran:
    words = ["keys", "enroll", "--recovery", "--operator", "ben", "--label", "black", "--yes"]
    return killswitch([*words, *more, *config_of(world)], folder, stdin=phrase)


def lose_the_first_key(world: World) -> None:
    """Take the enrolled key away; the spare is plugged in where it was."""
    unplug(world, "software-key.json")
    (world.folder / "spare-key.json").rename(world.folder / "software-key.json")


def enrolled(world: World) -> list[str]:
    return [key.label for key in KeyRing.load(world.folder / "keys.json").keys]


def kept_in(folder: Path) -> str:
    """Return all that lies in the files of a folder, and in those that a bug would write."""
    files = [it for it in folder.rglob("*") if it.is_file() and not it.is_symlink()]
    return "".join(it.read_bytes().decode("latin-1") for it in files)


def assert_nowhere(phrase: str, *texts: str) -> None:
    groups = phrase.split("-")
    # A group of four may stand in a hex number by chance, two neighbours hardly.
    pairs = [joint.join(pair) for pair in pairwise(groups) for joint in ("-", " ", "  ", "")]
    for text in texts:
        assert not [pair for pair in pairs if pair.lower() in text.lower()]


# What it is for.


def test_with_every_key_lost_the_phrase_admits_a_spare_whose_touch_halts(tmp_path: Path) -> None:
    with running_world(tmp_path, sealed=True) as world:
        config = config_of(world)
        phrase = make_phrase(world, tmp_path)
        bundle = Bundle.load(world.folder / "secrets.json")
        assert bundle.not_for(KeyRing.load(world.folder / "keys.json").recipients()) == ()
        lose_the_first_key(world)
        lost = killswitch(["--revoke", "--yes", "--touch-timeout", "1", *config], tmp_path)
        assert lost.code == 3
        assert world.live()

        added = enrol_with(world, tmp_path, phrase)
        assert added.code == 0, added.err
        assert "make a new one:         killswitch keys recovery --replace" in added.err
        assert "killswitch keys remove LABEL" in added.err
        assert enrolled(world) == ["software key", "black"]
        listed = killswitch(["secrets", "list", *config], tmp_path)
        assert 'opened by "black", "recovery phrase", "software key"' in listed.out

        halted = killswitch(["--revoke", "--yes", *config], tmp_path)
        assert halted.code == 0, halted.err + halted.out
        assert 'key "black" (ben)' in halted.out
        assert world.live() == {}
        verified = killswitch(["journal", "verify", *config], tmp_path)
        assert verified.code == 0, verified.out
        told = [added, listed, halted, verified, lost]
        assert_nowhere(phrase, *(ran.out + ran.err for ran in told), kept_in(tmp_path))


def test_a_key_that_the_phrase_admitted_removes_the_lost_one_and_makes_a_new_phrase(
    tmp_path: Path,
) -> None:
    with running_world(tmp_path, sealed=True) as world:
        config = config_of(world)
        old = make_phrase(world, tmp_path)
        lose_the_first_key(world)
        assert enrol_with(world, tmp_path, old).code == 0
        new = make_phrase(world, tmp_path, "--replace")
        assert new != old
        removed = killswitch(["keys", "remove", "software key", "--yes", *config], tmp_path)
        assert removed.code == 0, removed.err
        ring = KeyRing.load(world.folder / "keys.json")
        bundle = Bundle.load(world.folder / "secrets.json")
        assert [key.label for key in ring.keys] == ["black"]
        assert bundle.strangers(ring.recipients()) == ()
        assert bundle.not_for(ring.recipients()) == ()
        assert killswitch(["journal", "verify", *config], tmp_path).code == 0


def test_a_ring_that_is_lost_begins_anew_with_the_key_that_the_phrase_admits(
    tmp_path: Path,
) -> None:
    with running_world(tmp_path, sealed=True) as world:
        config = config_of(world)
        phrase = make_phrase(world, tmp_path)
        lose_the_first_key(world)
        (world.folder / "keys.json").unlink()
        added = enrol_with(world, tmp_path, phrase)
        assert added.code == 0, added.err
        assert enrolled(world) == ["black"]
        assert killswitch(["--revoke", "--yes", *config], tmp_path).code == 0
        assert world.live() == {}
        assert killswitch(["journal", "verify", *config], tmp_path).code == 0


def test_whoever_lost_a_real_ring_is_told_of_the_phrase(tmp_path: Path) -> None:
    Desk(tmp_path / "journal.db").enrol("blue")
    config = 'name = "desk"\n[journal]\nfile = "journal.db"\n'
    (tmp_path / "killswitch.toml").write_text(config)
    words = ["keys", "enroll", "--operator", "ben", "--label", "black", "--label", "grey"]
    assert "killswitch keys enroll --recovery" in killswitch(words, tmp_path).err
    never = killswitch([*words, "--recovery"], tmp_path, stdin="")
    assert never.code == 4
    assert "the journal tells of no recovery phrase" in never.err


def test_status_and_keys_list_say_whether_there_is_a_phrase(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        config = config_of(world)
        assert "1 enrolled, no recovery phrase" in killswitch(["status", *config], tmp_path).out
        listed = killswitch(["keys", "list", *config], tmp_path).out
        assert "recovery phrase: none; killswitch keys recovery makes one" in listed
        make_phrase(world, tmp_path)
        assert "1 enrolled, a recovery phrase" in killswitch(["status", *config], tmp_path).out
        listed = killswitch(["keys", "list", *config], tmp_path).out
        assert "recovery phrase: on paper or steel" in listed
        assert json.loads(killswitch(["keys", "list", "--json", *config], tmp_path).out)["recovery"]


# On its way to paper and back.


def test_a_phrase_counts_only_after_it_was_typed_back_as_it_was_shown(tmp_path: Path) -> None:
    other = new_recovery()[0].reveal()
    with running_world(tmp_path) as world:
        words = ["keys", "recovery", "--yes", *config_of(world)]
        answers: dict[str, list[Answer]] = {
            WRITTEN: [lambda _: "", lambda _: ""],
            BACK: [
                lambda shown: phrase_in(shown)[:-1],
                lambda _: other,
                lambda _: "",
                lambda shown: phrase_in(shown).lower().replace("-", " "),
            ],
        }
        ran = at_terminal(words, tmp_path, answers)
    assert ran.code == 0, ran.out
    assert "the phrase has 59 characters, not 60: see group 15" in ran.out
    assert "that is another phrase" in ran.out
    assert len(ROW.findall(ran.out)) == 6, "shown again where that was asked for"
    assert ran.out.index("touched: ") > ran.out.rindex(BACK)


def test_whoever_stops_while_writing_has_changed_nothing(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        before = (world.folder / "keys.json").read_bytes(), Journal(tmp_path / "journal.db").head()
        words = ["keys", "recovery", "--yes", *config_of(world)]
        for pressed, code in ((CTRL_C, 130), (CTRL_D, 2)):
            stop: list[Answer] = [lambda _, it=pressed: it]  # type: ignore[misc]  # (a default)
            ran = at_terminal(words, tmp_path, {WRITTEN: stop})
            assert ran.code == code, ran.out
            assert "touched: " not in ran.out
        after = (world.folder / "keys.json").read_bytes(), Journal(tmp_path / "journal.db").head()
    assert after == before


def test_the_phrase_stands_on_a_page_of_its_own_which_is_taken_away(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        words = ["keys", "recovery", "--yes", *config_of(world)]
        answers: dict[str, list[Answer]] = {WRITTEN: [lambda _: ""], BACK: [phrase_in]}
        ran = at_terminal(words, tmp_path, answers, term="xterm-256color")
    assert ran.code == 0, ran.out
    before, _, rest = ran.out.partition("\x1b[?1049h")
    page, _, after = rest.partition("\x1b[?1049l")
    phrase = phrase_in(page)
    assert len(phrase) == 74
    assert_nowhere(phrase, before, after)
    assert "\x1b[2J" in page[page.index(WRITTEN) : page.index(BACK)], "it is typed from the paper"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--json"], "never part of a document"),
        (["--no-input"], "which --no-input forbids"),
        ([], "there is no terminal for the recovery phrase"),
    ],
    ids=["json", "no input", "no terminal"],
)
def test_where_nobody_can_read_and_type_no_phrase_is_made(
    tmp_path: Path, more: list[str], said: str
) -> None:
    with running_world(tmp_path) as world:
        ran = without_a_terminal(["keys", "recovery", "--yes", *more, *config_of(world)], tmp_path)
        assert KeyRing.load(world.folder / "keys.json").recovery is None
    assert ran.code == 2, ran.err
    assert said in ran.err
    assert "the recovery phrase is unchanged" in ran.err
    assert ran.out == ""


def test_a_second_phrase_is_made_only_where_it_is_said_that_it_replaces_the_first(
    tmp_path: Path,
) -> None:
    with running_world(tmp_path) as world:
        make_phrase(world, tmp_path)
        ran = killswitch(["keys", "recovery", "--yes", *config_of(world)], tmp_path)
    assert ran.code == 2
    assert "there is a recovery phrase already" in ran.err
    assert "killswitch keys recovery --replace" in ran.err


def test_a_phrase_is_typed_unseen_and_a_slip_is_told_before_the_key_is_asked_for(
    tmp_path: Path,
) -> None:
    with running_world(tmp_path, sealed=True) as world:
        phrase = make_phrase(world, tmp_path)
        lose_the_first_key(world)
        words = ["keys", "enroll", "--recovery", "--operator", "ben", "--label", "black", "--yes"]
        slip = phrase.replace(phrase[:4], "2222", 1)
        answers: dict[str, list[Answer]] = {UNSEEN: [lambda _: slip, lambda _: phrase]}
        ran = at_terminal([*words, *config_of(world)], tmp_path, answers)
        assert ran.code == 0, ran.out
        assert enrolled(world) == ["software key", "black"]
    assert "probably group 1 is wrong" in ran.out
    assert_nowhere(phrase, ran.out)


# What it is not for.


@pytest.mark.parametrize("given", ["another", "replaced", "miscopied", "nothing"])
def test_a_phrase_that_does_not_count_admits_nobody(tmp_path: Path, given: str) -> None:
    with running_world(tmp_path, sealed=True) as world:
        phrase = make_phrase(world, tmp_path)
        match given:
            case "another":
                wrong, code = new_recovery()[0].reveal(), 3
            case "replaced":
                wrong, code = phrase, 3
                make_phrase(world, tmp_path, "--replace")
            case "miscopied":
                wrong, code = phrase[:-4] + "ZZZZ", 2
            case _:
                wrong, code = "", 2
        lose_the_first_key(world)
        head = Journal(tmp_path / "journal.db").head()
        ran = enrol_with(world, tmp_path, wrong)
        assert ran.code == code, ran.err
        assert enrolled(world) == ["software key"]
        assert Journal(tmp_path / "journal.db").head() == head
        assert len(ran.err.strip().splitlines()) == 3
    if wrong:
        assert_nowhere(wrong, ran.out + ran.err, kept_in(tmp_path))


def test_the_phrase_neither_halts_nor_opens_a_secret_for_reading(tmp_path: Path) -> None:
    with running_world(tmp_path, sealed=True) as world:
        config = config_of(world)
        phrase = make_phrase(world, tmp_path)
        unplug(world, "software-key.json")
        for words in (["--revoke"], ["drill"], ["status", "--touch"], ["secrets", "reseal"]):
            ran = killswitch([*words, "--yes", *config], tmp_path, stdin=phrase)
            assert ran.code != 0
            with_option = killswitch([*words, "--recovery", "--yes", *config], tmp_path)
            assert with_option.code == 2
        assert world.live()


def test_a_recipient_that_somebody_put_in_the_place_of_the_phrase_gets_no_secret(
    tmp_path: Path,
) -> None:
    with running_world(tmp_path, sealed=True) as world:
        config = config_of(world)
        rogue = new_recovery()[1].record.recipient
        keys = world.folder / "keys.json"
        replace(KeyRing.load(keys), recovery=rogue).save(keys)
        for words, stdin in (
            (["secrets", "set", "extra"], "value-71"),
            (["secrets", "reseal", "--yes"], None),
        ):
            ran = killswitch([*words, *config], tmp_path, stdin=stdin)
            assert ran.code == 4, ran.err
            assert "is not the one that the journal knows" in ran.err
        added = enrol_spare(world, tmp_path)
        assert added.code == 4
        assert "the recovery phrase in the key ring is not the one" in added.err
        assert rogue.id not in (world.folder / "secrets.json").read_text()
        status = killswitch(["status", *config], tmp_path)
        assert status.code == 8
        assert "is not the one that the journal knows" in status.out
        assert "mend: killswitch keys restore" in status.out


def test_a_ring_that_lacks_the_phrase_which_the_journal_tells_of_is_found(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        make_phrase(world, tmp_path)
        keys = world.folder / "keys.json"
        replace(KeyRing.load(keys), recovery=None).save(keys)
        status = killswitch(["status", *config_of(world)], tmp_path)
        assert "lacks the recovery phrase that the journal tells of" in status.out
        assert killswitch(["keys", "restore", "--yes", *config_of(world)], tmp_path).code == 0
        status = killswitch(["status", *config_of(world)], tmp_path)
        assert "1 enrolled, a recovery phrase" in status.out


def test_a_journal_that_does_not_hold_admits_nobody_by_phrase(tmp_path: Path) -> None:
    with running_world(tmp_path, sealed=True) as world:
        phrase = make_phrase(world, tmp_path)
        Desk(tmp_path / "journal.db").write("x.set", "recovery.set", {})
        lose_the_first_key(world)
        ran = enrol_with(world, tmp_path, phrase)
        assert ran.code == 4
        assert "the journal was changed at event" in ran.err
        assert enrolled(world) == ["software key"]
