"""After the report: the window stays open while Vault erases."""

import io
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from killswitch.cli.staying import stay_for_unfinished
from killswitch.cli.terminal import Terminal
from killswitch.errors import UnreachableError
from killswitch.runner import Runner
from killswitch.sandbox.world import World
from killswitch.unfinished import Unfinished
from tests.worlds import killswitch, running_world

TOLD = "Vault is still erasing trading/"


def begun(unfinished: Unfinished, work: Callable[[], object]) -> None:
    def run() -> None:
        try:
            unfinished.run("trading/", TOLD, work)
        except UnreachableError:
            return

    threading.Thread(target=run, daemon=True).start()
    while not unfinished.under_way():
        time.sleep(0.01)


def said(unfinished: Unfinished, runner: Runner | None = None, longest_s: float = 10) -> str:
    heard = io.StringIO()
    terminal = Terminal(out=io.StringIO(), err=heard, colour=False, quiet=True)
    stay_for_unfinished(
        terminal, "LIVE", runner or Runner(), unfinished=unfinished, longest_s=longest_s
    )
    return heard.getvalue()


def test_with_nothing_under_way_nothing_is_said() -> None:
    assert said(Unfinished()) == ""


def test_what_is_under_way_is_waited_for_and_its_end_told() -> None:
    unfinished = Unfinished()
    begun(unfinished, lambda: time.sleep(0.4))
    assert said(unfinished).splitlines() == [
        f"LIVE  {TOLD}; leave this window open (Ctrl-C ends it half done)",
        "LIVE  ok it was answered after 0 s; running it again verifies it",
    ]
    assert unfinished.under_way() == ()


def test_what_breaks_off_is_told_with_the_way_out() -> None:
    def breaks() -> None:
        time.sleep(0.2)
        raise UnreachableError("no connection to vault, or it was cut")

    unfinished = Unfinished()
    begun(unfinished, breaks)
    assert "it broke off: no connection to vault, or it was cut; running it again" in said(
        unfinished
    )


def test_ctrl_c_ends_the_waiting_at_once() -> None:
    unfinished, runner, over = Unfinished(), Runner(), threading.Event()
    begun(unfinished, lambda: over.wait(10))
    threading.Timer(0.3, runner.interrupt).start()
    started = time.monotonic()
    told = said(unfinished, runner)
    over.set()
    assert time.monotonic() - started < 5
    assert "left behind after" in told
    assert "running it again repairs it" in told


def test_the_waiting_is_bounded() -> None:
    unfinished, over = Unfinished(), threading.Event()
    begun(unfinished, lambda: over.wait(10))
    assert "left behind" in said(unfinished, longest_s=0.2)
    over.set()


def test_a_call_that_is_asked_for_again_is_waited_for_and_not_begun_twice() -> None:
    unfinished, over = Unfinished(), threading.Event()
    count: list[int] = []

    def work() -> None:
        count.append(1)
        over.wait(10)
        raise UnreachableError("cut")

    begun(unfinished, work)
    threading.Timer(0.2, over.set).start()
    with pytest.raises(UnreachableError, match="cut"):
        unfinished.run("trading/", TOLD, work)
    assert count == [1]


def only_a_mount(world: World) -> None:
    """Leave nothing in the configuration but Vault, and let its mount go whole."""
    text = world.config_file.read_text()
    head, vault = text[: text.index("[[kubernetes]]")], text[text.index("[[vault]]") :]
    vault = vault[: vault.index("[[telegram]]")].replace("paths = [", "mounts = [")
    world.config_file.write_text(head + vault)


def test_a_halt_stays_until_vault_has_erased_and_the_next_one_verifies_it(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        only_a_mount(world)
        world.vault.erase_s = 1.2
        halt = ["--revoke", "--yes", "--deadline", "5", "--config", str(world.config_file)]
        ran = killswitch(halt, tmp_path)
        assert ran.code == 11, ran.out
        assert "live         vault vault-sandbox: trading/ (mount kv_" in ran.out
        assert "Vault is still erasing trading/; leave this window open" in ran.err
        assert "ok it was answered after" in ran.err
        assert "vault" not in world.live()
        ran = killswitch(halt, tmp_path)
        assert ran.code == 0, ran.out
        assert re.search(r"ok verified +vault +vault-sandbox: erased: DELETE", ran.err)
        ran = killswitch(halt, tmp_path)
        assert ran.code == 0, ran.out
        assert re.search(r"ok already +vault +vault-sandbox", ran.err)


def test_everything_of_vault_in_one_halt_and_then_a_dead_token(tmp_path: Path) -> None:
    role, login = "auth/approle/role/bot", "auth/approle/login"
    with running_world(tmp_path) as world:
        only_a_mount(world)
        old = world.vault.log_in(role)
        more = f'roles = ["{role}"]\nrevoke_prefixes = ["{login}"]\nrevoke_own_token = true\n'
        with world.config_file.open("a") as file:
            file.write(more)
        halt = ["--revoke", "--yes", "--config", str(world.config_file)]
        ran = killswitch(halt, tmp_path)
        assert ran.code == 0, ran.out + ran.err
        assert f"{role}, {login}, trading/ (whole mount), own token last" in ran.err
        assert "vault" not in world.live()
        assert not world.vault.tokens.by_id[old].alive(time.time())
        ran = killswitch(halt, tmp_path)
        assert ran.code == 11, ran.out
        words = " ".join(ran.out.split())
        assert "a new one is needed to look" in words
