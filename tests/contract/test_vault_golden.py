"""The recorded answers of a real Vault 1.21.0, replayed on the sandbox and on a real one.

The last calls seal the server, so each replay has a fresh one.
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from killswitch.sandbox.vault import VaultServer
from killswitch.sandbox.vault_sys import UPGRADE_S
from tests.servers.vault_server import DevVault

RECORD = Path(__file__).with_name("vault_golden.json")
VOLATILE = {
    "request_id",
    "created_time",
    "updated_time",
    "issue_time",
    "expire_time",
    "creation_time",
    "server_time_utc",
    "accessor",
    "uuid",
    "id",
    "cluster_id",
    "cluster_name",
    "build_date",  # of the program, not of its version
}
TTL_SLACK_S = 5


class Call(msgspec.Struct):
    label: str
    method: str
    path: str
    body: dict[str, Any] | None
    token: str
    status: int
    content_type: str
    response: Any


def recorded() -> list[Call]:
    return msgspec.convert(json.loads(RECORD.read_text())["calls"], type=list[Call])


def replay(base_url: str, root_token: str, *, settle_s: float = 1.0) -> Iterator[tuple[Call, str]]:
    """Send every recorded call in order; yield each with what differs, or an empty text."""
    session = requests.Session()
    session.trust_env = False
    limited = "s.bad"
    for call in recorded():
        if call.label == "over quota":  # it is the sixth of six; the first five are not recorded
            for _ in range(5):
                _send(session, base_url, call, root_token)
        token = {"root": root_token, "none": None}.get(call.token, limited)
        answer = _send(session, base_url, call, token)
        yield call, _difference(call, answer)
        if call.label == "mount kv1":
            time.sleep(settle_s)  # a fresh KV v2 mount first upgrades itself
        if call.label == "policy":
            limited = _limited_token(session, base_url, root_token)


def _limited_token(session: requests.Session, base_url: str, root_token: str) -> str:
    answer = session.post(
        f"{base_url}/v1/auth/token/create",
        headers={"X-Vault-Token": root_token},
        json={"policies": ["ks"], "ttl": "10m"},
        timeout=5,
    )
    return str(answer.json()["auth"]["client_token"])


def _send(
    session: requests.Session, base_url: str, call: Call, token: str | None
) -> requests.Response:
    headers = {"X-Vault-Request": "true", **({"X-Vault-Token": token} if token else {})}
    return session.request(
        call.method,
        base_url + call.path,
        headers=headers,
        json=call.body,
        timeout=5,
        allow_redirects=False,
    )


def _difference(call: Call, answer: requests.Response) -> str:
    body = answer.json() if answer.content else ""
    got = (answer.status_code, answer.headers.get("Content-Type"), _steady(body))
    want = (call.status, call.content_type, _steady(call.response))
    return (
        "" if got == want and _ttl_near(call.response, body) else f"{call.label}: {got} != {want}"
    )


def _steady(value: object, key: str = "") -> object:
    """Return `value` with what differs from server to server replaced by its kind."""
    server_version = key == "version" and isinstance(value, str) and "." in value
    if key in VOLATILE or server_version or (key == "ttl" and isinstance(value, int)):
        return type(value).__name__
    if key == "deletion_time":
        return bool(value)
    if isinstance(value, dict):
        return {name: _steady(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_steady(inner) for inner in value]
    return value


def _ttl_near(recorded_body: object, body: object) -> bool:
    pair = [_ttl(recorded_body), _ttl(body)]
    return abs(pair[0] - pair[1]) <= TTL_SLACK_S


def _ttl(body: object) -> int:
    data = body.get("data") if isinstance(body, dict) else None
    return int(data.get("ttl", 0)) if isinstance(data, dict) else 0


@dataclass(frozen=True, slots=True)
class Fresh:
    """A Vault on which nothing was done yet."""

    address: str
    root_token: str
    settle_s: float


@pytest.fixture(params=["sandbox", pytest.param("real", marks=pytest.mark.real)])
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fresh]:
    if request.param == "real":
        with DevVault(tmp_path / "vault") as vault:
            yield Fresh(vault.address, vault.root_token, 1.0)
        return
    server = VaultServer(mounts={})
    server.start()
    yield Fresh(server.url, server.root_token, UPGRADE_S + 0.1)
    server.stop()


def test_all_59_recorded_answers_of_a_real_vault_are_given_again(fresh: Fresh) -> None:
    results = list(replay(fresh.address, fresh.root_token, settle_s=fresh.settle_s))
    assert [difference for _, difference in results if difference] == []
    assert len(results) == 59


def test_the_comparison_sees_a_status_and_a_body_that_differ() -> None:
    server = VaultServer(mounts={}, traps=["wipe-lies"])
    server.start()
    results = replay(server.url, server.root_token, settle_s=UPGRADE_S + 0.1)
    differing = {call.label for call, difference in results if difference}
    server.stop()
    assert {"read gone", "list emptied folder", "limited list root (needs metadata/)"} <= differing
    assert "write kv2" not in differing


def test_the_record_is_whole() -> None:
    assert len(recorded()) == 59
