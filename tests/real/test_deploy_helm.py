"""The chart of deploy/helm/ renders what stands in deploy/kubernetes/: the real Helm says so."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.real.manifests import DEPLOY, KUBERNETES, Object, apply, documents, placed, remove, split
from tests.servers.binaries import binary
from tests.servers.control_plane import ControlPlane

CHART = DEPLOY / "helm" / "killswitch"
EVERYTHING: Object = {
    "traderNamespaces": ["trading"],
    "serviceAccount": {"token": True},
    "clusterUid": True,
    "synced": {
        "enabled": True,
        "clusterWide": True,
        "secrets": [{"namespace": "trading", "names": ["freqtrade-bybit"]}],
    },
    "reconcilers": {
        "keda": True,
        "argocd": [{"namespace": "argocd", "names": ["trader"]}],
        "flux": [{"namespace": "flux-system", "names": ["trader"]}],
    },
    "latchPolicy": True,
    "networkPolicy": True,
}
# Where the plain files without a namespace are applied to.
PLACES = {"pause-argocd.yaml": "argocd", "pause-flux.yaml": "flux-system"}


def helm(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Helm, with nothing of this user's own and no network to speak of."""
    folders = {f"HELM_{kind}_HOME": str(folder / kind) for kind in ("CACHE", "CONFIG", "DATA")}
    return subprocess.run(
        [binary("helm"), *arguments],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **folders},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def render(folder: Path, values: Object, *, release: str = "killswitch") -> list[Object]:
    """Return the objects of the chart with these values."""
    file = folder / "values.json"
    file.write_text(json.dumps(values))
    done = helm(
        "template", release, CHART, "--namespace", "killswitch", "--values", file, folder=folder
    )
    assert done.returncode == 0, done.stderr
    return split(done.stdout)


def named(objects: list[Object]) -> dict[tuple[str, str, str], Object]:
    found = {}
    for one in objects:
        meta = one["metadata"]
        key = one["kind"], meta.get("namespace", ""), meta["name"]
        assert key not in found, f"{key} is there twice"
        found[key] = one
    return found


def plain() -> list[Object]:
    found: list[Object] = []
    for path in sorted(KUBERNETES.glob("*.yaml")):
        found += placed(documents(path.name), PLACES.get(path.name, "trading"))
    return found


def test_with_every_value_on_the_chart_is_the_plain_files(tmp_path: Path) -> None:
    rendered, files = named(render(tmp_path, EVERYTHING)), named(plain())
    del files["Namespace", "", "killswitch"]  # helm makes it: --create-namespace
    assert rendered.keys() == files.keys()
    for key, one in files.items():
        assert rendered[key] == one


def test_with_no_value_set_it_is_the_account_the_trader_and_the_policies(tmp_path: Path) -> None:
    files = ("trader.yaml", "policy-only-halt.yaml", "policy-no-secret-reading.yaml")
    expected = [documents("account.yaml")[1]]
    for name in files:
        expected += placed(documents(name), "trading")
    assert named(render(tmp_path, {})) == named(expected)


def test_each_trader_namespace_gets_the_same_rights(tmp_path: Path) -> None:
    values = {"traderNamespaces": ["one", "2"], "policies": {"enabled": False}}
    objects = named(render(tmp_path, values))
    for namespace in ("one", "2"):
        for one in placed(documents("trader.yaml"), namespace):
            assert objects[one["kind"], namespace, "killswitch"] == one
    assert len(objects) == 1 + 2 * 2


def test_another_account_is_the_one_of_the_bindings_and_of_the_policies(tmp_path: Path) -> None:
    text = json.dumps(render(tmp_path, {**EVERYTHING, "serviceAccount": {"name": "stopper"}}))
    assert "system:serviceaccount:killswitch:killswitch" not in text
    assert "system:serviceaccount:killswitch:stopper" in text
    objects = render(tmp_path, {**EVERYTHING, "serviceAccount": {"name": "stopper"}})
    subjects = [subject for one in objects for subject in one.get("subjects", [])]
    assert {subject["name"] for subject in subjects} == {"stopper"}


@pytest.mark.parametrize(
    "values",
    [
        {"traderNamespaces": []},
        {"traderNamspaces": ["trading"]},
        {"synced": {"enabled": True, "secrets": [{"namespace": "trading"}]}},
        {"synced": {"enabled": True, "secrets": [{"namespace": "trading", "names": []}]}},
        {"synced": {"enabled": True, "secrets": [{"namespace": "trading", "names": [""]}]}},
        {"reconcilers": {"argocd": [{"namespace": "argocd", "names": []}]}},
        {"reconcilers": {"flux": [{"namespace": "flux-system"}]}},
    ],
)
def test_a_value_that_would_give_a_right_to_all_or_to_none_is_refused(
    tmp_path: Path, values: dict[str, Any]
) -> None:
    file = tmp_path / "values.json"
    file.write_text(json.dumps(values))
    done = helm("template", "killswitch", CHART, "--values", file, folder=tmp_path)
    assert done.returncode != 0
    assert "don't meet the specifications of the schema" in done.stderr


def test_helms_own_linter_has_no_complaint(tmp_path: Path) -> None:
    done = helm("lint", "--strict", CHART, folder=tmp_path)
    assert done.returncode == 0, done.stdout


def test_the_server_takes_what_the_chart_renders(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    for namespace in ("killswitch", "trading", "argocd", "flux-system"):
        body = {"metadata": {"name": namespace}}
        assert control_plane.send("POST", "/api/v1/namespaces", body)[0] in {201, 409}
    objects = render(tmp_path, EVERYTHING)
    apply(control_plane, objects)
    remove(control_plane, [one for one in objects if one["kind"] != "ServiceAccount"])


def test_helm_installs_it_as_the_readme_says_and_takes_it_away(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    release = ("killswitch", "--namespace", f"{namespace}-account")
    server = ("--kubeconfig", control_plane.admin_kubeconfig)
    done = helm(
        "install",
        *release,
        "--create-namespace",
        CHART,
        "--set",
        f"traderNamespaces={{{namespace}}}",
        *server,
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles"
    assert len(control_plane.send("GET", roles)[1]["items"]) == 1
    done = helm("uninstall", *release, *server, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert control_plane.send("GET", roles)[1]["items"] == []
