"""The Kakunin client says what happened, no more, and never the key."""

import base64
import logging
import time
import traceback
from collections.abc import Iterator

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from werkzeug.wrappers import Request, Response

from killswitch.clients.kakunin import KakuninClient
from killswitch.errors import GarbledError, RefusedError, UnreachableError, VendorError
from killswitch.sandbox.kakunin import API_KEY, BOT_1, BOT_2, KakuninServer
from killswitch.secret import Secret
from killswitch.steps.kakunin import Agent, Tried

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def server() -> Iterator[KakuninServer]:
    server = KakuninServer()
    server.start()
    yield server
    server.stop()


def client_of(
    server: KakuninServer, *, key: str = API_KEY, may_write: bool = True
) -> KakuninClient:
    client = KakuninClient(base_url=server.base_url, timeout_s=(0.5, 0.5))
    client.login(api_key=Secret(key), may_write=may_write)
    return client


def look(client: KakuninClient, agent_id: str) -> Agent:
    seen = client.agents((agent_id,))[agent_id]
    if isinstance(seen, VendorError):
        raise seen
    return seen


@pytest.mark.parametrize(
    "url",
    [
        "http://kakunin.example/api/v1",
        "ftp://127.0.0.1/",
        "//kakunin.example",
        "https://user:pass@kakunin.example/api/v1",
        "https://kakunin.example/api/v1?key=1",
        "https://[::1/api/v1",
    ],
)
def test_an_address_that_could_leak_the_key_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        KakuninClient(base_url=url)


def test_warming_up_needs_no_key_and_any_answer_will_do(server: KakuninServer) -> None:
    client = KakuninClient(base_url=server.base_url, timeout_s=(0.5, 0.5))
    assert client.warm() == "127.0.0.1 answers (200)"
    server.traps = {"down"}
    assert client.warm() == "127.0.0.1 answers (503)"
    assert {seen.path for seen in server.seen} == {"/api/health"}


def test_nothing_is_asked_before_login(server: KakuninServer) -> None:
    client = KakuninClient(base_url=server.base_url)
    with pytest.raises(RuntimeError):
        client.agents((BOT_1,))
    with pytest.raises(RuntimeError):
        client.revoke(BOT_1, NOBODY, "test")
    assert server.seen == []


def test_an_agent_is_seen_with_its_certificates(server: KakuninServer) -> None:
    agent = look(client_of(server), BOT_1)
    assert agent.status == "active"
    assert [one.status for one in agent.certificates] == ["active", "active", "expired"]


def test_several_agents_are_looked_at_side_by_side_and_fail_one_by_one(
    server: KakuninServer,
) -> None:
    seen = client_of(server).agents((BOT_1, NOBODY, BOT_2, "../../verify"))
    assert isinstance(seen[BOT_1], Agent)
    assert isinstance(seen[BOT_2], Agent)
    unknown, silly = seen[NOBODY], seen["../../verify"]
    assert isinstance(unknown, RefusedError)
    assert str(unknown) == "unknown agent: kakunin answered 404: Agent not found"
    assert isinstance(silly, RefusedError)
    assert str(silly) == "not a UUID: ../../verify"


def test_a_hanging_server_costs_one_time_out_however_many_agents(server: KakuninServer) -> None:
    server.traps = {"hang"}
    started = time.monotonic()
    seen = client_of(server).agents(tuple(f"{n:08x}{NOBODY[8:]}" for n in range(12)))
    assert time.monotonic() - started < 2.5
    assert all(isinstance(one, UnreachableError) for one in seen.values())


def test_a_404_that_is_not_the_api_asks_about_the_address(server: KakuninServer) -> None:
    client = KakuninClient(base_url=f"{server.url}/v1")
    client.login(api_key=Secret(API_KEY), may_write=False)
    with pytest.raises(RefusedError, match="is base_url right"):
        look(client, BOT_1)


def test_an_answer_about_another_agent_is_not_believed(server: KakuninServer) -> None:
    server.agents[BOT_1].id = BOT_2
    with pytest.raises(GarbledError, match="another agent"):
        look(client_of(server), BOT_1)


def test_revoking_and_revoking_again_are_both_answers(server: KakuninServer) -> None:
    client = client_of(server)
    certificate = server.agents[BOT_2].certificates[0]
    assert client.revoke(BOT_2, certificate.id, "test").summary.startswith("revoked at ")
    again = client.revoke(BOT_2, certificate.id, "test")
    assert again.summary == "kakunin answered 409: Certificate already revoked"
    expired = server.agents[BOT_1].certificates[2]
    assert client.revoke(BOT_1, expired.id, "test").evidence == {"status": "422"}
    assert client.tried(BOT_2) == Tried(frozenset({certificate.id}))


@pytest.mark.parametrize("reason", ["", "x" * 600, "\N{BOMB}" * 300, "a" + "\N{BOMB}" * 600])
def test_any_reason_is_made_to_fit(server: KakuninServer, reason: str) -> None:
    client = client_of(server)
    certificate = server.agents[BOT_2].certificates[0]
    client.revoke(BOT_2, certificate.id, reason)
    client.halt(BOT_2, reason * 2)
    assert certificate.status == "revoked"


def test_the_receipt_of_a_halt_can_be_checked_later(server: KakuninServer) -> None:
    receipt = client_of(server).halt(BOT_2, "test")
    kept = receipt.evidence
    assert kept["signed_by_ca"] == kept["audit_logged"] == "true"
    signed = ":".join(
        kept[name] for name in ("agent_id", "certificate_serial", "halted_at", "halt_event_id")
    )
    server.ca_key.public_key().verify(
        base64.b64decode(kept["signature"]), signed.encode(), padding.PKCS1v15(), hashes.SHA256()
    )


def test_a_receipt_without_signature_is_kept_and_said(server: KakuninServer) -> None:
    server.traps = {"unsigned-receipt"}
    receipt = client_of(server).halt(BOT_2, "test")
    assert receipt.summary.endswith("receipt not signed, missing from kakunin's audit log")
    assert receipt.evidence["signature"] == ""


def test_a_halt_remembers_whether_it_found_a_certificate(server: KakuninServer) -> None:
    client = client_of(server)
    client.halt(BOT_2, "test")
    assert client.tried(BOT_2) == Tried(halt=True)
    client.halt(BOT_2, "test")
    assert client.tried(BOT_2) == Tried(halt=True, none_left=True)


def test_a_retired_agent_answers_a_halt_with_409_and_that_is_no_error(
    server: KakuninServer,
) -> None:
    server.traps = {"retired"}
    client = client_of(server)
    assert client.halt(BOT_2, "test").summary == "kakunin answered 409: Agent is already retired"
    assert client.tried(BOT_2).halt


def test_after_a_halt_that_did_not_hold_the_agent_is_suspended_by_hand(
    server: KakuninServer,
) -> None:
    server.traps = {"halt-lies"}
    client = client_of(server)
    client.halt(BOT_2, "test")
    client.halt(BOT_2, "test")
    assert server.agents[BOT_2].status == "active"
    assert client.halt(BOT_2, "test").summary.startswith("suspended")
    assert server.agents[BOT_2].status == "suspended"
    client.halt(BOT_2, "test")
    assert [seen.method for seen in server.writes] == ["POST", "POST", "PATCH", "POST"]


def test_a_revocation_that_was_not_audited_is_an_error_with_its_words(
    server: KakuninServer,
) -> None:
    server.traps = {"revoke-500"}
    certificate = server.agents[BOT_2].certificates[0]
    with pytest.raises(UnreachableError, match="was revoked but the audit log write failed"):
        client_of(server).revoke(BOT_2, certificate.id, "test")
    assert certificate.status == "revoked"


def test_a_client_that_may_only_read_sends_no_write(server: KakuninServer) -> None:
    client = client_of(server, may_write=False)
    with pytest.raises(RefusedError, match="this client may only read"):
        client.revoke(BOT_2, server.agents[BOT_2].certificates[0].id, "test")
    with pytest.raises(RefusedError, match="this client may only read"):
        client.halt(BOT_2, "test")
    assert client.rehearse(BOT_2).summary.startswith("the key reads the agent (active)")
    assert client.tried(BOT_2) == Tried()
    assert server.writes == []


@pytest.mark.parametrize(
    ("trap", "kind", "words"),
    [
        ("wrong-key", RefusedError, "kakunin answered 401: Invalid or revoked API key"),
        ("redirect", RefusedError, "a redirect to https://elsewhere.example"),
        ("long-retry-after", UnreachableError, "asks to wait 2592000 s"),
        ("html-error", UnreachableError, "kakunin answered 500: no error text"),
        ("down", UnreachableError, "kakunin answered 503"),
        ("garbage", GarbledError, "not what its API promises"),
        ("drop", UnreachableError, "the connection failed"),
        ("hang", UnreachableError, "no answer in time"),
    ],
)
def test_each_fault_is_said_as_what_it_is(
    server: KakuninServer, trap: str, kind: type[VendorError], words: str
) -> None:
    server.traps = {trap}
    started = time.monotonic()
    with pytest.raises(kind, match=words):
        client_of(server).halt(BOT_1, "test")
    assert time.monotonic() - started < 2


class Flood(KakuninServer):
    """Answers more than anyone wants to read, or never quite finishes."""

    drip_s = 0.0

    def respond(self, request: Request) -> Response:
        assert request.path
        return Response(self._parts(), mimetype="application/json")

    def _parts(self) -> Iterator[bytes]:
        for _ in range(100):
            yield b" " if self.drip_s else b" " * 65536
            self.hang(self.drip_s)


@pytest.mark.parametrize(
    ("drip_s", "kind", "words"),
    [(0.0, GarbledError, "too large"), (0.2, UnreachableError, "drips too slowly")],
)
def test_an_answer_without_end_is_cut_short(
    drip_s: float, kind: type[VendorError], words: str
) -> None:
    server = Flood()
    server.drip_s = drip_s
    server.start()
    started = time.monotonic()
    with pytest.raises(kind, match=words):
        look(client_of(server), BOT_1)
    assert time.monotonic() - started < 2
    server.stop()


def test_a_refused_connection_is_unreachable(server: KakuninServer) -> None:
    client = client_of(server)
    server.stop()
    with pytest.raises(UnreachableError, match="no connection"):
        look(client, BOT_1)


def test_an_untrusted_certificate_is_never_talked_to() -> None:
    client = KakuninClient(base_url="https://kakunin.example/api/v1", ca_file="/nowhere/ca.pem")
    with pytest.raises(RefusedError, match="the ca_file cannot be used"):
        client.warm()


@pytest.mark.parametrize(
    "trap", ["wrong-key", "redirect", "html-error", "garbage", "drop", "hang", "long-retry-after"]
)
def test_no_fault_shows_the_key(
    server: KakuninServer, trap: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.traps = {trap}
    client = client_of(server)
    with pytest.raises(VendorError) as caught:
        client.halt(BOT_1, "test")
    error = caught.value
    told = "".join(traceback.format_exception(error)) + caplog.text + repr(client)
    assert API_KEY not in told + str(error) + repr(error)
    assert error.__cause__ is None
    assert not isinstance(error.__context__, httpx.HTTPError)


@pytest.mark.parametrize("key", ["kak_live_\nX-Evil: 1", "kak live", "kak_livé", " "])
def test_a_key_that_no_header_can_carry_is_refused_unseen(server: KakuninServer, key: str) -> None:
    with pytest.raises(RefusedError) as caught:
        look(client_of(server, key=key), BOT_1)
    assert str(caught.value) == "the kakunin api key holds a character that no header can carry"
    assert caught.value.__context__ is None
    assert server.seen == []


def test_the_environment_cannot_send_the_key_through_a_proxy(
    server: KakuninServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert look(client_of(server), BOT_1).status == "active"
