"""What can be said of deploy/ without a server: who is meant, and what is never given."""

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

DEPLOY = Path(__file__).parents[1] / "deploy"
ACCOUNT = "system:serviceaccount:killswitch:killswitch"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
READS_A_SECRET = {"get", "list", "watch", "deletecollection", "patch", "update", "*"}


def objects(path: Path) -> list[Any]:
    return [msgspec.yaml.decode(part) for part in path.read_text().split("\n---")]


def rules() -> list[Any]:
    found = [one for path in MANIFESTS for one in objects(path)]
    return [rule for one in found for rule in one.get("rules", [])]


def test_no_rule_is_for_everything() -> None:
    assert len(rules()) > 10
    for rule in rules():
        assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])


def test_no_rule_reads_secrets_or_deletes_a_quota() -> None:
    for rule in rules():
        if "secrets" in rule["resources"]:
            assert rule["resourceNames"]
            assert not READS_A_SECRET.intersection(rule["verbs"])
        if "resourcequotas" in rule["resources"]:
            assert not {"delete", "deletecollection", "update"}.intersection(rule["verbs"])


def test_no_rule_lets_it_act_as_others_or_inside_pods() -> None:
    for rule in rules():
        assert not {"impersonate", "bind", "escalate"}.intersection(rule["verbs"])
        for resource in rule["resources"]:
            assert resource.partition("/")[2] in {"", "scale"}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_rights_and_limits_are_those_of_the_one_account(path: Path) -> None:
    for one in objects(path):
        for subject in one.get("subjects", []):
            kind, namespace, name = (subject[key] for key in ("kind", "namespace", "name"))
            assert (kind, namespace, name) == ("ServiceAccount", "killswitch", "killswitch")
        for condition in one.get("spec", {}).get("matchConditions", []):
            assert condition["expression"] == f"request.userInfo.username == '{ACCOUNT}'"


def test_every_policy_is_bound_and_denies() -> None:
    found = [one for path in MANIFESTS for one in objects(path)]
    policies = {it["metadata"]["name"] for it in found if it["kind"].endswith("AdmissionPolicy")}
    bindings = [it["spec"] for it in found if it["kind"].endswith("AdmissionPolicyBinding")]
    assert {spec["policyName"] for spec in bindings} == policies
    assert all(spec["validationActions"] == ["Deny"] for spec in bindings)


def test_no_vault_policy_reads_a_secret() -> None:
    policies = sorted((DEPLOY / "vault").glob("*.hcl"))
    assert len(policies) > 2
    for path in policies:
        text = re.sub(r"#.*", "", path.read_text())
        blocks = re.findall(r'path "([^"]+)" \{\s*capabilities = \[([^\]]+)\]\s*\}', text)
        assert len(blocks) == text.count("path ")
        for place, capabilities in blocks:
            given = set(re.findall(r'"(\w+)"', capabilities))
            assert place.startswith(("auth/", "sys/")) or given <= {"list", "delete"}


def test_the_chart_is_of_this_version() -> None:
    chart = msgspec.yaml.decode((DEPLOY / "helm/killswitch/Chart.yaml").read_text())
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    assert chart["version"] == chart["appVersion"] == project["version"]


@pytest.mark.parametrize("folder", ["kubernetes", "vault"])
def test_the_readme_names_every_file_beside_it(folder: str) -> None:
    text = (DEPLOY / folder / "README.md").read_text()
    for path in (DEPLOY / folder).iterdir():
        assert f"`{path.name}`" in text or path.name == "README.md"
