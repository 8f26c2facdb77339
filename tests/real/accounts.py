"""killswitch as a ServiceAccount of a real cluster, with the rights that deploy/ gives it."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from killswitch.config import load_config
from killswitch.converge import Limits
from killswitch.halt import Assignment, carry_out
from killswitch.model import Mode, StepResult
from killswitch.runner import Runner
from killswitch.sources import Sources
from killswitch.steps.telegram import Message
from killswitch.verdict import Intent
from killswitch.wiring import units
from tests.engine.simulator import make_order
from tests.real.manifests import Object, apply, documents
from tests.servers.control_plane import ControlPlane
from tests.servers.https import Http

LIMITS: Final = Limits(deadline_s=60, wrap_up_s=1, patience_s=40, stay_down_s=0.4)
_TOKEN: Final = "/api/v1/namespaces/killswitch/serviceaccounts/killswitch/token"
_MESSAGE: Final = Message(title="test", lines=("a line",))


@dataclass(frozen=True, slots=True)
class Account:
    """The ServiceAccount killswitch, with a token of its own."""

    cluster: ControlPlane
    token: str

    def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, object] | None = None,
        accept: str = "application/json",
    ) -> tuple[int, Any]:
        """Send one request as this account."""
        line = Http(self.cluster.url, ca_file=self.cluster.ca_file)
        headers = {"Authorization": f"Bearer {self.token}", "Accept": accept}
        return line.send(method, path, body, query=query, headers=headers)

    def kubeconfig(self, folder: Path) -> Path:
        """Write a kubeconfig with the context "real"."""
        cluster = {"server": self.cluster.url, "certificate-authority": str(self.cluster.ca_file)}
        path = folder / "kubeconfig.json"
        path.touch(mode=0o600)
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "real", "cluster": cluster}],
            "users": [{"name": "killswitch", "user": {"token": self.token}}],
            "contexts": [{"name": "real", "context": {"cluster": "real", "user": "killswitch"}}],
        }
        path.write_text(json.dumps(content))
        return path

    def carry_out(self, folder: Path, section: str, intent: Intent) -> StepResult:
        """Halt or rehearse, as configured by the one TOML table `section`, without its login."""
        config_file = folder / "killswitch.toml"
        login = f'kubeconfig = "{self.kubeconfig(folder)}"\ncontext = "real"'
        config_file.write_text(f'{section}\nname = "real"\n{login}\n')
        return carry_out_one(config_file, intent)


def carry_out_one(config_file: Path, intent: Intent) -> StepResult:
    """Carry out the only step of a configuration, through the engine."""
    config = load_config(config_file)
    live = intent is Intent.PERFORM
    (unit,) = units(config, Sources(config.resolve, {}))
    assignment = Assignment(
        order=make_order(Mode.LIVE if live else Mode.DRILL),
        proof=None,
        intent=intent,
        steps=(unit.step(lambda: _MESSAGE, may_write=live),),
        started_at=datetime.now(UTC),
    )
    return Runner().run(lambda now: carry_out(assignment, LIMITS, now)).results[0]


def section(namespace: str) -> str:
    """Return the table of one cluster with one namespace of the trader, but for its login."""
    return f'[[kubernetes]]\nnamespaces = ["{namespace}"]'


def told(result: StepResult) -> str:
    """Return every word of a result, for a test to look for one."""
    return repr(result)


def open_account(cluster: ControlPlane) -> Account:
    """Apply account.yaml and ask for a token, as `kubectl create token` does."""
    apply(cluster, documents("account.yaml"))
    status, answer = cluster.send("POST", _TOKEN, {"spec": {"expirationSeconds": 3600}})
    assert status == 201, answer
    return Account(cluster, answer["status"]["token"])


def until(happens: Callable[[], bool], limit_s: float = 10) -> None:
    """Wait until it is so; the server takes a new Role or policy in after some milliseconds."""
    end = time.monotonic() + limit_s
    while not happens():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def may(account: Account, namespace: str, rule: Object, verb: str, resource: str) -> bool:
    """Ask the server whether the account may do this, by the name that its rule gives."""
    resource, _, subresource = resource.partition("/")
    attributes = {
        "namespace": namespace,
        "verb": verb,
        "group": rule["apiGroups"][0],
        "resource": resource,
        "subresource": subresource,
        "name": next(iter(rule.get("resourceNames", ())), ""),
    }
    status, answer = account.send(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        {"spec": {"resourceAttributes": attributes}},
    )
    assert status == 201, answer
    return bool(answer["status"]["allowed"])


def grant(account: Account, objects: Sequence[Object], namespace: str) -> None:
    """Apply a Role with its binding, and wait until all that it gives is in force."""
    apply(account.cluster, objects, namespace)
    for role in (one for one in objects if one["kind"] in {"Role", "ClusterRole"}):
        place = role["metadata"].get("namespace", namespace)
        for rule in role["rules"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    until(partial(may, account, place, rule, verb, resource))
