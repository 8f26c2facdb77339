"""What deploy/vault/ gives to killswitch on a real Vault: enough to wipe, and nothing to read."""

import itertools
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from killswitch.model import Outcome, StepResult
from killswitch.verdict import Intent
from tests.real.accounts import carry_out_one, told
from tests.real.manifests import DEPLOY
from tests.servers.vault_server import DevVault

FILES = sorted(path.name for path in (DEPLOY / "vault").glob("*.hcl"))
BASE, PATHS, MOUNT = "killswitch.hcl", "killswitch-paths.hcl", "killswitch-mount.hcl"
CUT, OWN = "killswitch-cut.hcl", "killswitch-own-token.hcl"
VALUE = "the-secret-value"
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Bench:
    """A mount with two secrets, and an operator that syncs them through a login of its own."""

    vault: DevVault
    mount: str
    folder: Path
    version: int = 2

    def texts(self, *files: str) -> dict[str, str]:
        """Return policies as their user has changed them: the names of this bench."""
        found = {}
        for name in files:
            text = (DEPLOY / "vault" / name).read_text()
            text = text.replace("kubernetes/", f"{self.mount}-login/")
            text = text.replace("trading", self.mount)
            found[name] = text.replace("/metadata/*", "/*") if self.version == 1 else text
        return found

    def token(self, texts: Mapping[str, str]) -> str:
        """Make a token with just these policies, as the README says."""
        names = []
        for name, text in texts.items():
            names.append(f"{self.mount}-{name}")
            self.ok("PUT", f"sys/policies/acl/{names[-1]}", {"policy": text})
        made = {"policies": names, "no_default_policy": True, "no_parent": True, "period": "72h"}
        made_token: str = self.ok("POST", "auth/token/create", made)["auth"]["client_token"]
        return made_token

    def run(self, texts: Mapping[str, str], settings: str, intent: Intent) -> StepResult:
        """Drill or halt with a token of just these policies."""
        (self.folder / "token").write_text(self.token(texts))
        config = self.folder / "killswitch.toml"
        address = f'[[vault]]\nname = "real"\naddress = "{self.vault.address}"\n'
        config.write_text(f'{address}token = "file:token"\n{settings}\n')
        return carry_out_one(config, intent)

    def keys(self) -> list[str]:
        """Return what is left in the mount."""
        place = f"{self.mount}/metadata/" if self.version == 2 else f"{self.mount}/"
        status, answer = self.vault.send("LIST", place)
        return list(answer["data"]["keys"]) if status == 200 else []

    def log_in(self) -> int:
        """Log in as the operator, and return the status."""
        place = f"auth/{self.mount}-login"
        role = self.vault.send("GET", f"{place}/role/eso/role-id")
        if role[0] != 200:
            return role[0]
        secret_id = self.ok("POST", f"{place}/role/eso/secret-id", {})["data"]["secret_id"]
        login = {"role_id": role[1]["data"]["role_id"], "secret_id": secret_id}
        return self.vault.send("POST", f"{place}/login", login, token="")[0]

    def ok(self, method: str, path: str, body: object = None) -> Any:
        """Send as root."""
        status, answer = self.vault.send(method, path, body)
        assert status < 300, answer
        return answer


def make_bench(vault: DevVault, folder: Path, version: int = 2) -> Bench:
    bench = Bench(vault, f"trader{next(_numbers)}", folder, version)
    options = {"type": "kv", "options": {"version": str(version)}}
    bench.ok("POST", f"sys/mounts/{bench.mount}", options)
    for name in ("bybit", "bots/hedger"):
        data = {"data": {"key": VALUE}} if version == 2 else {"key": VALUE}
        place = "data/" if version == 2 else ""
        end = time.monotonic() + 10  # a new mount of version 2 refuses writes while it is made
        while vault.send("POST", f"{bench.mount}/{place}{name}", data)[0] >= 300:
            assert time.monotonic() < end
            time.sleep(0.05)
    bench.ok("POST", f"sys/auth/{bench.mount}-login", {"type": "approle"})
    bench.ok("POST", f"auth/{bench.mount}-login/role/eso", {"token_policies": "default"})
    assert bench.log_in() == 200
    return bench


@pytest.fixture
def bench(dev_vault: DevVault, tmp_path: Path) -> Bench:
    return make_bench(dev_vault, tmp_path)


def by_path(bench: Bench) -> str:
    return f'paths = ["{bench.mount}/"]'


def by_mount(bench: Bench) -> str:
    return f'mounts = ["{bench.mount}/"]'


def cutting(bench: Bench) -> str:
    login = f"auth/{bench.mount}-login"
    return f'{by_path(bench)}\nroles = ["{login}/role/eso"]\nrevoke_prefixes = ["{login}/login"]'


@pytest.mark.parametrize("version", [1, 2])
def test_with_exactly_these_rights_the_paths_are_wiped(
    dev_vault: DevVault, tmp_path: Path, version: int
) -> None:
    bench = make_bench(dev_vault, tmp_path, version)
    rights = bench.texts(BASE, PATHS)
    drill = bench.run(rights, by_path(bench), Intent.REHEARSE)
    assert drill.outcome is Outcome.REHEARSED, told(drill)
    assert bench.keys()
    halt = bench.run(rights, by_path(bench), Intent.PERFORM)
    assert halt.outcome is Outcome.VERIFIED, told(halt)
    assert bench.keys() == []


def test_with_exactly_these_rights_the_mount_goes(bench: Bench) -> None:
    rights = bench.texts(BASE, MOUNT)
    drill = bench.run(rights, by_mount(bench), Intent.REHEARSE)
    assert drill.outcome is Outcome.REHEARSED, told(drill)
    halt = bench.run(rights, by_mount(bench), Intent.PERFORM)
    assert halt.outcome is Outcome.VERIFIED, told(halt)
    assert f"{bench.mount}/" not in bench.ok("GET", "sys/mounts")


def test_with_exactly_these_rights_the_syncing_operator_is_cut_off(bench: Bench) -> None:
    rights = bench.texts(BASE, PATHS, CUT)
    drill = bench.run(rights, cutting(bench), Intent.REHEARSE)
    assert drill.outcome is Outcome.REHEARSED, told(drill)
    assert bench.log_in() == 200
    halt = bench.run(rights, cutting(bench), Intent.PERFORM)
    assert halt.outcome is Outcome.VERIFIED, told(halt)
    assert bench.log_in() == 404
    assert bench.keys() == []


def test_with_exactly_these_rights_the_own_token_ends(bench: Bench) -> None:
    rights = bench.texts(BASE, PATHS, OWN)
    settings = f"{by_path(bench)}\nrevoke_own_token = true"
    halt = bench.run(rights, settings, Intent.PERFORM)
    assert halt.outcome is Outcome.VERIFIED, told(halt)
    token = (bench.folder / "token").read_text()
    assert bench.vault.send("GET", "auth/token/lookup-self", token=token)[0] == 403


READS = [
    ("GET", "data/bybit", None),
    ("GET", "data/bybit?version=1", None),
    ("GET", "metadata/bybit", None),
    ("GET", "subkeys/bybit", None),
    ("POST", "data/bybit", {"data": {"key": "another"}}),
    ("PATCH", "data/bybit", {"data": {"key": "another"}}),
    ("POST", "undelete/bybit", {"versions": [1]}),
    ("GET", "config", None),
]


@pytest.mark.parametrize(("method", "path", "body"), READS)
def test_with_every_file_applied_it_still_may_not(
    bench: Bench, method: str, path: str, body: object
) -> None:
    token = bench.token(bench.texts(*FILES))
    status, answer = bench.vault.send(method, f"{bench.mount}/{path}", body, token=token)
    assert status == 403, answer
    assert VALUE not in str(answer)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("LIST", "secret/metadata/"),
        ("GET", "sys/mounts"),
        ("DELETE", "sys/mounts/secret"),
        ("DELETE", "sys/auth/{mount}-login"),
        ("POST", "auth/{mount}-login/role/eso"),
        ("POST", "auth/{mount}-login/role/eso/secret-id"),
        ("PUT", "sys/leases/revoke-prefix/auth/token"),
        ("PUT", "sys/seal"),
        ("GET", "sys/policies/acl/root"),
        ("POST", "auth/token/create"),
    ],
)
def test_nor_anything_beyond_the_trader(bench: Bench, method: str, path: str) -> None:
    token = bench.token(bench.texts(*FILES))
    body: object = {} if method in {"POST", "PUT"} else None
    answer = bench.vault.send(method, path.format(mount=bench.mount), body, token=token)
    assert answer[0] == 403, answer


def without_one(file: str) -> Iterator[tuple[str, str, str]]:
    """Yield the path, the capability, and the text of a policy without it, for each there is."""
    text = (DEPLOY / "vault" / file).read_text()
    for block in re.finditer(r'path "([^"]+)" \{\n  capabilities = \[([^\]]+)\]', text):
        given = re.findall(r'"(\w+)"', block[2])
        for capability in given:
            rest = ", ".join(f'"{it}"' for it in given if it != capability) or '"deny"'
            yield block[1], capability, text[: block.start(2)] + rest + text[block.end(2) :]


MUTANTS = [
    pytest.param(file, capability, path, text, id=f"{file} {capability} {path}")
    for file in FILES
    for path, capability, text in without_one(file)
]
SETTINGS = {BASE: by_path, PATHS: by_path, MOUNT: by_mount, CUT: cutting, OWN: by_path}


@pytest.mark.parametrize(("file", "capability", "path", "text"), MUTANTS)
def test_a_right_that_is_missing_is_named_by_the_drill(
    bench: Bench, file: str, capability: str, path: str, text: str
) -> None:
    files = {BASE: [BASE, PATHS], PATHS: [BASE, PATHS], MOUNT: [BASE, MOUNT]}
    rights = bench.texts(*files.get(file, [BASE, PATHS, file]))
    changed = text.replace("kubernetes/", f"{bench.mount}-login/").replace("trading", bench.mount)
    settings = SETTINGS[file](bench) + ("\nrevoke_own_token = true" if file == OWN else "")
    drill = bench.run({**rights, file: changed}, settings, Intent.REHEARSE)
    assert drill.outcome is not Outcome.REHEARSED, told(drill)
    place = path.replace("kubernetes/", f"{bench.mount}-login/").replace("trading", bench.mount)
    named = f"{capability} {place.removesuffix('*')}"
    assert any(words in told(drill) for words in (named, "403", "no right under it"))


def test_a_periodic_orphan_is_renewed_by_its_accessor_and_needs_no_parent(bench: Bench) -> None:
    token = bench.token(bench.texts(BASE))
    seen = bench.vault.send("GET", "auth/token/lookup-self", token=token)[1]["data"]
    assert seen["orphan"]
    assert seen["period"] == 72 * 3600
    assert seen["policies"] == [f"{bench.mount}-{BASE}"]
    renewed = bench.ok("POST", "auth/token/renew-accessor", {"accessor": seen["accessor"]})
    assert renewed["auth"]["lease_duration"] == 72 * 3600


def test_a_long_period_is_cut_unless_the_longest_life_of_tokens_is_raised(bench: Bench) -> None:
    long = {"period": "2160h", "no_parent": True}
    assert bench.ok("POST", "auth/token/create", long)["auth"]["lease_duration"] == 768 * 3600
    bench.ok("POST", "sys/auth/token/tune", {"max_lease_ttl": "2160h"})
    try:
        made = bench.ok("POST", "auth/token/create", long)
        assert made["auth"]["lease_duration"] == 2160 * 3600
    finally:
        bench.ok("POST", "sys/auth/token/tune", {"max_lease_ttl": "768h"})
