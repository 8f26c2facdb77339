"""The small Kakunin answers what the real one answers, its odd sides included."""

import json
from collections.abc import Iterator

import httpx
import pytest

from killswitch.sandbox.kakunin import BOT_1, BOT_2, KakuninServer


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock) -> Iterator[KakuninServer]:
    server = KakuninServer(clock=clock)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bot(server: KakuninServer) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {server.api_key}"}
    with httpx.Client(base_url=server.base_url, headers=headers, trust_env=False) as client:
        yield client


def revoke(bot: httpx.Client, certificate_id: str) -> httpx.Response:
    return bot.post(f"/certificates/{certificate_id}/revoke", json={"reason": "test"})


def halt(bot: httpx.Client, agent_id: str) -> httpx.Response:
    return bot.post(f"/agents/{agent_id}/halt", json={"reason": "kill_switch_activated"})


def status(bot: httpx.Client, agent_id: str) -> str:
    return str(bot.get(f"/agents/{agent_id}").json()["data"]["status"])


def test_the_seed_is_two_agents_with_two_and_one_active_certificates(
    server: KakuninServer, bot: httpx.Client
) -> None:
    listed = bot.get(f"/agents/{BOT_1}").json()["data"]
    assert [one["status"] for one in listed["certificates"]] == ["active", "active", "expired"]
    assert len(server.live()) == 5
    assert "certificates" not in bot.get("/agents").json()["data"][0]


def test_a_key_is_asked_for_before_anything_else(server: KakuninServer) -> None:
    bare = httpx.get(f"{server.base_url}/agents/{BOT_1}", trust_env=False)
    assert bare.status_code == 401
    assert bare.json() == {"error": "Missing or invalid Authorization header"}
    wrong = {"Authorization": "Bearer kak_live_wrong"}
    answer = httpx.get(f"{server.base_url}/agents/{BOT_1}", headers=wrong, trust_env=False)
    assert (answer.status_code, answer.json()) == (401, {"error": "Invalid or revoked API key"})
    assert httpx.get(f"{server.url}/api/health", trust_env=False).json()["status"] == "ok"


def test_a_sandbox_key_is_refused_on_any_other_host() -> None:
    server = KakuninServer(api_key="kak_test_0123456789")
    server.start()
    headers = {"Authorization": "Bearer kak_test_0123456789"}
    answer = httpx.get(f"{server.base_url}/agents", headers=headers, trust_env=False)
    server.stop()
    assert answer.json() == {"error": "Sandbox API key is not valid on this host"}


def test_revoking_suspends_the_agent_and_tells_the_webhook(
    server: KakuninServer, bot: httpx.Client
) -> None:
    certificate = server.agents[BOT_2].certificates[0]
    answer = revoke(bot, certificate.id)
    assert answer.json()["data"]["status"] == "revoked"
    assert server.live() == [
        name for name in server.live() if BOT_2 not in name and certificate.id not in name
    ]
    assert status(bot, BOT_2) == "suspended"
    assert server.told == [("certificate.revoked", certificate.id)]
    assert revoke(bot, certificate.id).status_code == 409


def test_an_expired_or_unknown_certificate_cannot_be_revoked(
    server: KakuninServer, bot: httpx.Client
) -> None:
    expired = server.agents[BOT_1].certificates[2]
    assert revoke(bot, expired.id).status_code == 422
    assert revoke(bot, "not-there").status_code == 404


@pytest.mark.parametrize("reason", [None, "", 7, "x" * 501, "\N{BOMB}" * 251])
def test_a_reason_of_a_wrong_form_is_a_400_of_issues(
    server: KakuninServer, bot: httpx.Client, reason: object
) -> None:
    certificate = server.agents[BOT_2].certificates[0]
    answer = bot.post(f"/certificates/{certificate.id}/revoke", json={"reason": reason})
    assert answer.status_code == 400
    assert json.loads(answer.json()["error"])[0]["path"] == ["reason"]


def test_a_halt_revokes_only_the_newest_certificate(
    server: KakuninServer, bot: httpx.Client
) -> None:
    newest, older = server.agents[BOT_1].active
    receipt = halt(bot, BOT_1).json()["data"]["halt_receipt"]
    assert receipt["certificate_serial"] == newest.serial_number
    assert (newest.status, older.status) == ("revoked", "active")
    assert server.told == []
    assert halt(bot, BOT_1).json()["data"]["halt_receipt"]["signed_by_ca"] is True


def test_a_halt_takes_only_its_own_reasons_and_only_json(bot: httpx.Client) -> None:
    answer = bot.post(f"/agents/{BOT_1}/halt", json={"reason": "because"})
    assert answer.status_code == 400
    assert bot.post(f"/agents/{BOT_1}/halt", content=b"").status_code == 500
    long_note = {"reason": "operator_initiated", "operator_note": "x" * 1001}
    assert bot.post(f"/agents/{BOT_1}/halt", json=long_note).status_code == 400


def test_a_retired_agent_cannot_be_halted_but_revoking_brings_it_out_of_retirement(
    server: KakuninServer, bot: httpx.Client
) -> None:
    server.traps.add("retired")
    assert status(bot, BOT_2) == "retired"
    assert halt(bot, BOT_2).status_code == 409
    assert bot.post(f"/agents/{BOT_2}/certify").status_code == 422
    revoke(bot, server.agents[BOT_2].certificates[0].id)
    assert status(bot, BOT_2) == "suspended"


def test_a_suspended_agent_gets_a_new_certificate_from_anyone_with_the_key(
    server: KakuninServer, bot: httpx.Client
) -> None:
    assert bot.post(f"/agents/{BOT_2}/certify").status_code == 409
    halt(bot, BOT_2)
    assert bot.post(f"/agents/{BOT_2}/certify").status_code == 201
    assert status(bot, BOT_2) == "suspended"
    assert len(server.agents[BOT_2].active) == 1


def test_patching_the_status_has_no_rules(bot: httpx.Client) -> None:
    for word in ("retired", "active", "suspended"):
        answer = bot.patch(f"/agents/{BOT_1}", json={"status": word})
        assert answer.json()["data"]["status"] == word
    assert bot.patch(f"/agents/{BOT_1}", json={"status": "gone"}).status_code == 400


def test_the_hundred_and_first_call_in_ten_seconds_is_too_many(
    clock: Clock, bot: httpx.Client
) -> None:
    assert {bot.get("/agents").status_code for _ in range(100)} == {200}
    answer = bot.get("/agents")
    assert (answer.status_code, answer.json()) == (429, {"error": "Rate limit exceeded"})
    assert answer.headers["Retry-After"] == "10"
    clock.now += 10
    assert bot.get("/agents").status_code == 200


def test_the_public_page_needs_no_key_and_may_be_stale(
    server: KakuninServer, bot: httpx.Client
) -> None:
    certificate = server.agents[BOT_2].certificates[0]
    revoke(bot, certificate.id)
    page = f"{server.base_url}/verify/{certificate.serial_number.lower()}"
    fresh = httpx.get(page, trust_env=False)
    assert (fresh.json()["data"]["status"], fresh.json()["data"]["valid"]) == ("revoked", False)
    assert "stale-while-revalidate=3600" in fresh.headers["Cache-Control"]
    server.traps.add("stale-verify")
    assert httpx.get(page, trust_env=False).json()["data"]["status"] == "active"
    assert httpx.get(f"{server.base_url}/verify/short", trust_env=False).status_code == 400


@pytest.mark.parametrize("trap", ["recertified", "reactivated"])
def test_what_comes_back_comes_back_once_and_by_itself(
    server: KakuninServer, bot: httpx.Client, clock: Clock, trap: str
) -> None:
    server.traps.add(trap)
    server.scope = {BOT_2}
    halt(bot, BOT_2)
    assert server.live() == []
    clock.now += 0.5
    assert len(server.live()) == 1
    halt(bot, BOT_2)
    clock.now += 0.5
    assert server.live() == []


def test_a_failed_look_up_of_certificates_is_a_200_without_any(
    server: KakuninServer, bot: httpx.Client
) -> None:
    server.traps.add("empty-list")
    assert bot.get(f"/agents/{BOT_1}").json()["data"]["certificates"] == []
    assert len(server.live()) == 5


def test_the_traps_in_front_of_every_route(server: KakuninServer, bot: httpx.Client) -> None:
    codes = {"html-error": 500, "redirect": 308, "wrong-key": 401, "long-retry-after": 429}
    for trap, code in codes.items():
        server.traps = {trap}
        assert bot.get(f"/agents/{BOT_1}").status_code == code
    assert bot.get(f"/agents/{BOT_1}").status_code == 200
