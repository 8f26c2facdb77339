"""Plays a scheduler and a kubelet for a control plane without a node.

Runs as a program of its own, with arguments KUBECONFIG (as JSON) and OUT. Binds every
pod to "node1", marks it Running, and on deletion does what was measured on kubelet 1.36:

* the grace of the FIRST delete counts: a later one, a force delete too, changes nothing of it;
* no process gets less than 2 s, also with grace 1, 0 and force;
* a force delete removes the object at once, and the process runs on for as long as it would;
* SIGTERM comes up to a second late to a pod that was just synced (started or changed);
* a process without a handler, as PID 1, does not end on SIGTERM;
* the API learns of the end after 0.3 s, the object goes with the kubelet's next look.

What the processes do is read from the environment in the pod's own spec; every change of one is a
JSON line in OUT. A pod annotated `test/stuck` is on a node that died: nothing ends, nothing is
confirmed.
"""

import http.client
import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from tests.servers.https import Http

NODE = "node1"
MINIMUM_GRACE_S = 2.0
START_S = 0.4
NEVER_STARTS_S = 0.2
SYNC_S = 1.0
TOLD_S = 0.3
HEARTBEAT_S = 8.0

Json = dict[str, Any]


class Api:
    """The API server, as the node's own user."""

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        token = config["users"][0]["user"]["token"]
        headers = {"Authorization": f"Bearer {token}"}
        self._http = Http(
            cluster["server"], ca_file=Path(cluster["certificate-authority"]), headers=headers
        )

    def send(self, method: str, path: str, body: Json | None = None) -> Json:
        """Send one request; again for ten seconds while nobody answers."""
        deadline = time.monotonic() + 10
        while True:
            try:
                answer: Json = self._http.send(method, path, body)[1]
                return answer
            except (OSError, http.client.HTTPException):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def watch(self, path: str, version: str) -> Iterator[Json]:
        """Yield the changes of a list after `version`, until the server ends the watch."""
        query = {"watch": 1, "timeoutSeconds": 60, "resourceVersion": version}
        for line in self._http.lines(path, query=query, timeout_s=70):
            yield json.loads(line)


@dataclass
class Pod:
    """One pod as its node knows it."""

    namespace: str
    name: str
    uid: str
    spec: Json
    annotations: dict[str, str]
    synced_at: float = 0.0
    started: threading.Event = field(default_factory=threading.Event)
    ending: threading.Event = field(default_factory=threading.Event)
    ended: bool = False
    never: bool = False

    @property
    def path(self) -> str:
        """Its path in the API."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    @property
    def stuck(self) -> bool:
        """Whether its node is gone."""
        return self.annotations.get("test/stuck") == "true"

    def setting(self, name: str) -> str:
        """Return what the first container's environment says, or ""."""
        for variable in self.spec["containers"][0].get("env", ()):
            if variable["name"] == name:
                return str(variable.get("value", ""))
        return ""

    def prestop_s(self) -> float:
        """Return how long its preStop hook takes, or 0."""
        hook = (self.spec["containers"][0].get("lifecycle") or {}).get("preStop")
        return float(hook["exec"]["command"][-1]) if hook else 0.0

    def needs_s(self) -> float:
        """Return for how long it runs on after SIGTERM when nobody kills it."""
        if self.setting("ON_SIGTERM") == "ends":
            return 0.03 + float(self.setting("ENDS_AFTER_CS") or 0) / 100
        if self.spec["containers"][0]["image"].endswith(":abrupt"):
            return 0.05
        return float("inf")


class Kubelet:
    """Follows the pods of all namespaces."""

    def __init__(self, api: Api, out: TextIO) -> None:
        self._api, self._out = api, out
        self._pods: dict[str, Pod] = {}
        self._lock = threading.Lock()

    def run(self) -> None:
        """Play for ever."""
        self._join()
        _spawn(self._beat)
        while True:
            try:
                pods = self._api.send("GET", "/api/v1/pods")
                for pod in pods["items"]:
                    self._see("ADDED", pod)
                version = pods["metadata"]["resourceVersion"]
                for change in self._api.watch("/api/v1/pods", version):
                    if change["type"] == "ERROR":
                        break
                    self._see(change["type"], change["object"])
            except (OSError, http.client.HTTPException, KeyError, ValueError) as error:
                sys.stderr.write(f"again, because of {error!r}\n")
                time.sleep(0.2)

    def _join(self) -> None:
        labels = {"kubernetes.io/hostname": NODE}
        self._api.send("POST", "/api/v1/nodes", {"metadata": {"name": NODE, "labels": labels}})
        room = {"cpu": "64", "memory": "256Gi", "pods": "1000"}
        ready = {"type": "Ready", "status": "True", "reason": "Played", "message": ""}
        times = {"lastHeartbeatTime": _now(), "lastTransitionTime": _now()}
        status = {"capacity": room, "allocatable": room, "conditions": [ready | times]}
        self._api.send("PATCH", f"/api/v1/nodes/{NODE}/status", {"status": status})

    def _beat(self) -> None:
        beaten = time.monotonic()
        while True:
            time.sleep(0.2)
            if time.monotonic() - beaten > HEARTBEAT_S:
                beaten = time.monotonic()
                self._join()

    def _see(self, kind: str, found: Json) -> None:
        about = found["metadata"]
        pod = self._pods.get(about["uid"])
        if kind == "DELETED":
            if pod and not pod.ending.is_set():
                self._end(pod, 0, object_left=False)
        elif pod is None:
            if found["status"].get("phase", "Pending") == "Pending":
                self._begin(found)
        elif about.get("deletionTimestamp"):
            if not pod.ending.is_set():
                self._end(pod, float(about.get("deletionGracePeriodSeconds") or 0))
        else:
            pod.synced_at = time.monotonic()

    def _begin(self, found: Json) -> None:
        about = found["metadata"]
        pod = Pod(
            about["namespace"],
            about["name"],
            about["uid"],
            found["spec"],
            about.get("annotations") or {},
        )
        self._pods[pod.uid] = pod
        if about.get("deletionTimestamp"):
            pod.never = True
            self._end(pod, 0)
        else:
            _spawn(self._start, pod)

    def _end(self, pod: Pod, grace_s: float, *, object_left: bool = True) -> None:
        pod.ending.set()
        if not pod.stuck:
            _spawn(self._terminate, pod, grace_s, object_left)

    def _start(self, pod: Pod) -> None:
        if not pod.spec.get("nodeName"):
            binding = {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"name": pod.name},
                "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
            }
            self._api.send("POST", f"{pod.path}/binding", binding)
        # Deleted this early it never starts; deleted later it starts, and gets SIGTERM then.
        if pod.ending.wait(NEVER_STARTS_S):
            pod.never = True
        else:
            time.sleep(START_S - NEVER_STARTS_S)
            self._tell(pod, "started")
        pod.started.set()
        if not pod.never:
            self._report(pod, "Running", {"running": {"startedAt": _now()}}, ready=True)
            self._exit_by_itself(pod)

    def _exit_by_itself(self, pod: Pod) -> None:
        after = pod.setting("EXITS_AFTER_S")
        if after and not pod.ending.wait(float(after)):
            pod.ended = True
            self._tell(pod, "exited")
            done = {"terminated": {"exitCode": 0, "finishedAt": _now()}}
            self._report(pod, "Succeeded", done, ready=False)

    def _terminate(self, pod: Pod, grace_s: float, object_left: bool) -> None:  # noqa: FBT001 (a thread's argument)
        late = SYNC_S - (time.monotonic() - pod.synced_at)
        pod.started.wait(10)
        if pod.started.is_set() and not (pod.never or pod.ended):
            time.sleep(max(0.0, late))
            self._kill(pod, grace_s, object_left)
        if object_left:
            time.sleep(1 - time.time() % 1)
            gone = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod.uid}}
            self._api.send("DELETE", pod.path, gone)

    def _kill(self, pod: Pod, grace_s: float, object_left: bool) -> None:  # noqa: FBT001 (as its caller's)
        hook_s = min(pod.prestop_s(), max(grace_s, 1.0))
        time.sleep(hook_s)
        allowed_s = max(grace_s - hook_s, MINIMUM_GRACE_S)
        killed = pod.needs_s() > allowed_s
        self._tell(pod, "sigterm")
        time.sleep(min(pod.needs_s(), allowed_s))
        self._tell(pod, "exited")
        if object_left:
            time.sleep(TOLD_S)
            code = 137 if killed else 0
            done = {"terminated": {"exitCode": code, "finishedAt": _now()}}
            self._report(pod, "Failed" if killed else "Succeeded", done, ready=False)

    def _report(self, pod: Pod, phase: str, state: Json, *, ready: bool) -> None:
        kinds = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        truth = {True: "True", False: "False"}
        conditions = [
            {
                "type": kind,
                "status": truth[ready or kind in kinds[:2]],
                "lastTransitionTime": _now(),
            }
            for kind in kinds
        ]
        containers = [
            {
                "name": one["name"],
                "image": one["image"],
                "imageID": "",
                "ready": ready,
                "started": ready,
                "restartCount": 0,
                "state": state,
            }
            for one in pod.spec["containers"]
        ]
        status = {"phase": phase, "conditions": conditions, "containerStatuses": containers}
        if ready:
            status |= {"startTime": _now(), "podIP": "10.244.0.9", "hostIP": "127.0.0.1"}
        self._api.send("PATCH", f"{pod.path}/status", {"status": status})

    def _tell(self, pod: Pod, event: str) -> None:
        about = {"namespace": pod.namespace, "pod": pod.name, "uid": pod.uid}
        with self._lock:
            self._out.write(json.dumps({"t": time.time(), **about, "event": event}) + "\n")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _spawn(work: Any, *arguments: object) -> None:
    threading.Thread(target=work, args=arguments, daemon=True).start()


def main() -> None:
    """Play until killed."""
    kubeconfig, out = Path(sys.argv[1]), Path(sys.argv[2])
    with out.open("a", buffering=1) as file:
        Kubelet(Api(kubeconfig), file).run()


if __name__ == "__main__":
    main()
