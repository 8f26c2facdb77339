"""The synced-secrets step against the real operator, API server and Vault, with least rights."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from killswitch.model import Outcome, StepResult
from killswitch.steps.synced_secrets_port import LOCK
from killswitch.verdict import Intent
from tests.real.synced import GROUP, VALUES, SyncedBot, wait_until
from tests.servers.control_plane import ControlPlane
from tests.servers.external_secrets import ExternalSecrets
from tests.servers.vault_server import DevVault

STAYS_AWAY_S = 20.0


@pytest.fixture
def bot(
    control_plane: ControlPlane, dev_vault: DevVault, external_secrets: ExternalSecrets
) -> Iterator[SyncedBot]:
    del external_secrets  # it runs
    name = f"synced-{time.monotonic_ns() % 10**9}"
    control_plane.send("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    bot = SyncedBot(control_plane, dev_vault, name)
    bot.set_up()
    yield bot
    bot.clean_up()


def outcomes(result: StepResult) -> dict[str, Outcome]:
    return {target.target: target.outcome for target in result.targets}


def test_a_bot_whose_keys_come_from_vault_ends_with_no_secret_and_none_comes_back(
    bot: SyncedBot, record_property: Callable[[str, object], None]
) -> None:
    report = bot.halt(bot.steps())
    assert report.halted, report
    assert (bot.secrets(), bot.makers(), bot.in_vault()) == ({"store-token"}, [], set())
    record_property("told", f"synced secrets: verified in {report.verified_s:.2f} s")
    deadline = time.monotonic() + STAYS_AWAY_S
    while time.monotonic() < deadline:
        assert (bot.secrets(), bot.in_vault()) == ({"store-token"}, set())
        time.sleep(0.5)
    shown = repr(report)
    assert not [value for value in VALUES.values() if value in shown]


def test_a_rehearsal_passes_with_the_same_rights_and_changes_nothing(bot: SyncedBot) -> None:
    before = (bot.secrets(), bot.makers(), bot.in_vault())
    result = bot.halt(bot.steps(may_write=False)[:1], Intent.REHEARSE).results[0]
    assert result.outcome is Outcome.REHEARSED
    assert (bot.secrets(), bot.makers(), bot.in_vault()) == before
    path = f"/api/v1/namespaces/{bot.namespace}/secrets/owned"
    assert bot.control_plane.send("GET", path, user="killswitch")[0] == 403


def test_a_second_run_finds_what_a_killed_one_left_although_nothing_names_it_any_more(
    bot: SyncedBot,
) -> None:
    killed = bot.steps()[0]
    for phase in (1, 2, 3, 4):
        for action in killed.plan().live:
            if action.phase == phase:
                action.perform()
    wait_until(lambda: not bot.makers(), "the makers are gone")
    assert "kept" in bot.secrets()

    result = bot.halt(bot.steps()[:1]).results[0]

    assert outcomes(result)[f"{bot.namespace}/secrets/kept"] is Outcome.VERIFIED
    assert bot.secrets() == {"store-token"}


def test_a_pushsecret_that_hangs_on_its_finalizer_is_a_line_and_not_a_failure(
    bot: SyncedBot,
) -> None:
    here = f"/apis/{GROUP}/v1alpha1/namespaces/{bot.namespace}/pushsecrets/pushed"
    bot.control_plane.send("PATCH", here, {"spec": {"deletionPolicy": "Delete"}})
    wait_until(
        lambda: bool(bot.control_plane.send("GET", here)[1]["metadata"].get("finalizers")),
        "the operator put its finalizer there",
    )
    token = f"/api/v1/namespaces/{bot.namespace}/secrets/store-token"
    assert bot.control_plane.send("DELETE", token)[0] == 200

    report = bot.halt(bot.steps()[:1])

    assert report.halted, report
    assert bot.makers() == ["PushSecret pushed"]
    assert bot.secrets() == set()
    said = [note.text for note in report.results[0].notes if note.kind == "finalizer"]
    words = "deletion asked, it hangs on its finalizer; it never pushes again"
    assert said == [f"{bot.namespace}/pushsecrets/pushed: {words}"]


def test_a_name_with_a_typo_is_not_taken_for_a_secret_that_is_gone(bot: SyncedBot) -> None:
    result = replace(bot, listed=("owend",)).halt(replace(bot, listed=("owend",)).steps()[:1])
    found = outcomes(result.results[0])
    assert found[f"{bot.namespace}/secrets/owend"] is Outcome.UNKNOWN
    assert found[f"{bot.namespace}/secrets/owned"] is Outcome.VERIFIED
    assert not result.halted


def test_nothing_can_put_a_secret_there_until_the_quota_is_deleted(bot: SyncedBot) -> None:
    assert bot.halt(bot.steps()).halted
    secrets = f"/api/v1/namespaces/{bot.namespace}/secrets"
    body = {"metadata": {"name": "owned"}, "stringData": VALUES}
    assert bot.control_plane.send("POST", secrets, body)[0] == 403
    quota = f"/api/v1/namespaces/{bot.namespace}/resourcequotas/{LOCK}"
    assert bot.control_plane.send("DELETE", quota)[0] == 200
    assert bot.control_plane.send("POST", secrets, body)[0] == 201
