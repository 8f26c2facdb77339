"""Pods whose processes tell the truth: the same template for a real node and for the fake one."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

IMAGE = "docker.io/library/killswitch-test:1"
# Its STOPSIGNAL is SIGKILL.
ABRUPT_IMAGE = "docker.io/library/killswitch-test:abrupt"

# The main process: writes down its own start and SIGTERM; when it ends is seen from outside.
_PROCESS = r"""say() { read up _ < /proc/uptime
echo "{\"up\":$up,\"namespace\":\"$NS\",\"pod\":\"$POD\",\"uid\":\"$POD_UID\",\"event\":\"$1\"}" \
>> /truth/told.jsonl; }
now() { read up _ < /proc/uptime; at=${up%.*}${up#*.}; }
ended() { say sigterm; now; end=$((at + $1)); while now; [ $at -lt $end ]; do sleep .02; done
exit 0; }
case $ON_SIGTERM in
ends) trap 'ended $ENDS_AFTER_CS' TERM;;
ignores) trap 'say sigterm' TERM;;
esac
[ -z "$EXITS_AFTER_S" ] || { sleep $EXITS_AFTER_S; exit 0; }
while :; do sleep .1 & wait $!; done"""

OnSigterm = Literal["ends", "ignores", "no handler"]


@dataclass(frozen=True, slots=True)
class Event:
    """What one process did: "started", "sigterm" or "exited", at epoch seconds `t`."""

    t: float
    namespace: str
    pod: str
    uid: str
    event: str


def pod_template(
    *,
    labels: dict[str, str] | None = None,
    on_sigterm: OnSigterm = "ends",
    ends_after_s: float = 0.0,
    grace_s: int = 30,
    exits_after_s: float | None = None,
    prestop_s: int | None = None,
    stuck: bool = False,
    image: str = IMAGE,
    truth_folder: str = "/nowhere",
) -> dict[str, Any]:
    """Return metadata and spec of a pod (or of a workload's template).

    `ends_after_s`: from SIGTERM to its end by itself; "no handler": its PID 1 does not react to
    SIGTERM. `exits_after_s`: it ends by itself, for Jobs. `stuck`: only the fake node knows it.
    """
    container: dict[str, Any] = {
        "name": "bot",
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["/bin/sh", "-c", _PROCESS],
        "env": [
            {"name": "ON_SIGTERM", "value": on_sigterm},
            {"name": "ENDS_AFTER_CS", "value": str(round(ends_after_s * 100))},
            {"name": "EXITS_AFTER_S", "value": "" if exits_after_s is None else str(exits_after_s)},
            _field("NS", "metadata.namespace"),
            _field("POD", "metadata.name"),
            _field("POD_UID", "metadata.uid"),
        ],
        "volumeMounts": [{"name": "truth", "mountPath": "/truth"}],
    }
    if prestop_s is not None:
        container["lifecycle"] = {"preStop": {"exec": {"command": ["sleep", str(prestop_s)]}}}
    return {
        "metadata": {
            "labels": {"app": "bot"} if labels is None else labels,
            "annotations": {"test/stuck": "true"} if stuck else {},
        },
        "spec": {
            "terminationGracePeriodSeconds": grace_s,
            "containers": [container],
            "volumes": [{"name": "truth", "hostPath": {"path": truth_folder}}],
        },
    }


def read_events(path: Path) -> list[Event]:
    """Read the JSON lines that tell the truth; a line says epoch `t`, or `up` since the boot."""
    if not path.exists():
        return []
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return [
        Event(
            t=line["t"] if "t" in line else boot + line["up"],
            namespace=line["namespace"],
            pod=line["pod"],
            uid=line["uid"],
            event=line["event"],
        )
        for line in lines
    ]


def _field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
