"""What an API server does when it is told to stop things: the sandbox's and a real one alike."""

import time
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from tests.contract.kubernetes_bench import (
    JSON_PATCH,
    LOCK,
    MERGE,
    STRATEGIC,
    Answer,
    Bench,
    Seed,
    at,
    eventually,
    failure,
    names,
)

QUOTA = "killswitch-lock"
BARE = {"metadata": {"name": "late"}, "spec": {"containers": [{"name": "c", "image": "none"}]}}
ZERO = {"spec": {"replicas": 0}}


def pods(bench: Bench, space: str) -> Answer:
    return bench.ask("GET", at("pods", space))


def lock(bench: Bench, space: str) -> Answer:
    """Put the quota there, and wait until it is in force."""
    assert bench.ask("POST", at("resourcequotas", space), LOCK).code == 201
    return eventually(
        lambda: bench.ask("GET", at("resourcequotas", space, QUOTA)),
        lambda seen: seen.body["status"].get("hard"),
    )


def ends_at(pod: Any) -> datetime:
    return datetime.fromisoformat(pod["metadata"]["deletionTimestamp"])


# The quota.


def test_a_new_quota_is_not_in_force_before_its_status_says_so(bench: Bench) -> None:
    space = bench.namespace(Seed("Pod", "bot", 1))
    made = bench.ask("POST", at("resourcequotas", space, fieldManager="killswitch"), LOCK)
    assert (made.code, made.body["kind"]) == (201, "ResourceQuota")
    assert (made.body["spec"], made.body["status"]) == ({"hard": {"pods": "0"}}, {})
    assert {"name", "uid", "resourceVersion"} <= set(made.body["metadata"])
    seen = eventually(
        lambda: bench.ask("GET", at("resourcequotas", space, QUOTA)),
        lambda answer: answer.body["status"],
        within_s=2,
    )
    assert seen.body["status"] == {"hard": {"pods": "0"}, "used": {"pods": "1"}}


def test_in_force_it_keeps_every_new_pod_out_and_ends_none(bench: Bench) -> None:
    space = bench.namespace(Seed("Pod", "bot", 1))
    lock(bench, space)
    for query in ({}, {"dryRun": "All"}):
        refused = bench.ask("POST", at("pods", space, **query), BARE)
        assert failure(refused) == (403, "Forbidden", {"name": "late", "kind": "pods"})
        assert refused.message == (
            f'pods "late" is forbidden: exceeded quota: {QUOTA}, '
            "requested: pods=1, used: pods=1, limited: pods=0"
        )
    assert names(pods(bench, space)) == ["bot"]


def test_a_second_quota_of_one_name_is_a_conflict_also_in_a_dry_run(bench: Bench) -> None:
    space = bench.namespace()
    bench.ask("POST", at("resourcequotas", space), LOCK)
    for query in ({}, {"dryRun": "All"}):
        again = bench.ask("POST", at("resourcequotas", space, **query), LOCK)
        assert failure(again) == (409, "AlreadyExists", {"name": QUOTA, "kind": "resourcequotas"})
        assert again.message == f'resourcequotas "{QUOTA}" already exists'


def test_a_dry_run_of_a_quota_answers_as_if_and_stores_nothing(bench: Bench) -> None:
    space = bench.namespace()
    made = bench.ask("POST", at("resourcequotas", space, dryRun="All"), LOCK)
    assert (made.code, made.body["status"]) == (201, {})
    assert bench.ask("GET", at("resourcequotas", space, QUOTA)).code == 404
    odd = bench.ask("POST", at("resourcequotas", space, dryRun="Some"), LOCK)
    assert failure(odd)[:2] == (422, "Invalid")
    assert bench.ask("GET", at("resourcequotas", space)).items == []


def test_a_quota_is_written_in_text_whatever_was_sent(bench: Bench) -> None:
    space = bench.namespace()
    body = LOCK | {"spec": {"hard": {"pods": 0}}}
    made = bench.ask("POST", at("resourcequotas", space), body)
    assert made.body["spec"] == {"hard": {"pods": "0"}}


def test_a_quota_is_mended_by_a_patch_except_for_its_scopes(bench: Bench) -> None:
    space = bench.namespace()
    loose = LOCK | {"spec": {"hard": {"pods": "9"}}}
    bench.ask("POST", at("resourcequotas", space), loose)
    path = at("resourcequotas", space, QUOTA)
    tight = {"spec": {"hard": {"pods": "0"}}}
    tried = bench.ask("PATCH", f"{path}?dryRun=All", tight, content_type=MERGE)
    assert (tried.code, tried.body["spec"]) == (200, {"hard": {"pods": "0"}})
    assert bench.ask("GET", path).body["spec"] == {"hard": {"pods": "9"}}
    bench.ask("PATCH", path, tight, content_type=MERGE)
    eventually(
        lambda: bench.ask("GET", path),
        lambda seen: seen.body["status"].get("hard") == {"pods": "0"},
    )
    assert bench.ask("GET", path).body["spec"] == {"hard": {"pods": "0"}}
    scoped = {"spec": {"scopes": ["Terminating"]}}
    fixed = bench.ask("PATCH", path, scoped, content_type=MERGE)
    assert failure(fixed)[:2] == (422, "Invalid")
    assert "field is immutable" in fixed.message
    missing = bench.ask("PATCH", at("resourcequotas", space, "no"), tight, content_type=MERGE)
    assert failure(missing)[:2] == (404, "NotFound")


def test_a_scoped_quota_of_that_name_keeps_an_ordinary_pod_in_force_of_nothing(
    bench: Bench,
) -> None:
    space = bench.namespace()
    scoped = LOCK | {"spec": {"hard": {"pods": "0"}, "scopes": ["Terminating"]}}
    assert bench.ask("POST", at("resourcequotas", space), scoped).code == 201
    path = at("resourcequotas", space, QUOTA)
    eventually(lambda: bench.ask("GET", path), lambda seen: seen.body["status"])
    assert bench.ask("POST", at("pods", space, dryRun="All"), BARE).code == 201


def test_a_deleted_quota_answers_with_what_it_was_and_lets_pods_in_again(bench: Bench) -> None:
    space = bench.namespace()
    lock(bench, space)
    path = at("resourcequotas", space, QUOTA)
    assert bench.ask("DELETE", f"{path}?dryRun=All").code == 200
    assert bench.ask("GET", path).code == 200
    gone = bench.ask("DELETE", path)
    assert (gone.code, gone.body["kind"]) == (200, "ResourceQuota")
    assert failure(bench.ask("DELETE", path))[:2] == (404, "NotFound")
    eventually(
        lambda: bench.ask("POST", at("pods", space, dryRun="All"), BARE),
        lambda answer: answer.code == 201,
    )


@pytest.mark.parametrize(
    ("body", "content_type", "refused"),
    [
        (LOCK | {"kind": "Pod"}, "", (400, "BadRequest")),
        (b"not json", "", (400, "BadRequest")),
        ({"spec": {}}, "", (422, "Invalid")),
        (LOCK, "text/plain", (415, "UnsupportedMediaType")),
    ],
)
def test_a_body_that_is_no_quota_is_refused(
    bench: Bench, body: object, content_type: str, refused: tuple[int, str]
) -> None:
    space = bench.namespace()
    answer = bench.ask("POST", at("resourcequotas", space), body, content_type=content_type)
    assert failure(answer)[:2] == refused


def test_under_a_quota_a_deployment_says_that_its_pods_are_refused(bench: Bench) -> None:
    space = bench.namespace(Seed("Deployment", "freqtrade", 2))
    lock(bench, space)
    bench.ask("DELETE", at("pods", space, gracePeriodSeconds=1))
    eventually(lambda: pods(bench, space), lambda seen: seen.items == [])
    seen = eventually(
        lambda: bench.ask("GET", at("deployments", space, "freqtrade")),
        lambda answer: any(
            one["type"] == "ReplicaFailure" for one in answer.body["status"].get("conditions", [])
        ),
    ).body
    why = next(one for one in seen["status"]["conditions"] if one["type"] == "ReplicaFailure")
    assert (why["status"], why["reason"]) == ("True", "FailedCreate")
    assert f"exceeded quota: {QUOTA}" in why["message"]
    assert seen["spec"]["replicas"] == 2
    assert "replicas" not in seen["status"]


# Scale.


@pytest.mark.parametrize("resource", ["deployments", "statefulsets"])
def test_scale_zero_is_left_out_and_stops_no_process_yet(bench: Bench, resource: str) -> None:
    kind = {"deployments": "Deployment", "statefulsets": "StatefulSet"}[resource]
    space = bench.namespace(Seed(kind, "bot", 2))
    path = at(resource, space, "bot", "scale")
    tried = bench.ask("PATCH", f"{path}?dryRun=All", ZERO, content_type=MERGE)
    assert (tried.code, tried.body["kind"], tried.body["spec"]) == (200, "Scale", {})
    assert bench.ask("GET", path).body["spec"] == {"replicas": 2}
    done = bench.ask("PATCH", f"{path}?fieldManager=killswitch", ZERO, content_type=MERGE)
    assert (done.code, done.body["spec"]) == (200, {})
    assert {"name", "uid", "resourceVersion"} <= set(done.body["metadata"])
    again = bench.ask("PATCH", path, ZERO, content_type=MERGE)
    assert (again.code, again.body["spec"]) == (200, {})
    wanted = bench.ask("GET", at(resource, space, "bot")).body["spec"]["replicas"]
    assert wanted == 0
    seen = eventually(
        lambda: pods(bench, space),
        lambda seen: all("deletionTimestamp" in pod["metadata"] for pod in seen.items),
    )
    assert [pod["metadata"]["deletionGracePeriodSeconds"] for pod in seen.items] == [30, 30]
    assert [pod["status"]["phase"] for pod in seen.items] == ["Running", "Running"]


def test_the_status_of_a_deployment_leaves_a_zero_out_while_its_pods_run_on(bench: Bench) -> None:
    space = bench.namespace(Seed("Deployment", "bot", 1))
    path = at("deployments", space, "bot", "scale")
    bench.ask("PATCH", path, ZERO, content_type=MERGE)
    seen = eventually(
        lambda: bench.ask("GET", at("deployments", space, "bot")),
        lambda answer: "replicas" not in answer.body["status"],
    ).body
    assert seen["status"]["observedGeneration"] == seen["metadata"]["generation"] == 2
    assert bench.ask("GET", path).body["status"]["replicas"] == 0
    assert len(pods(bench, space).items) == 1


@pytest.mark.parametrize(
    ("content_type", "patch"),
    [
        (MERGE, ZERO),
        (STRATEGIC, ZERO),
        (JSON_PATCH, [{"op": "replace", "path": "/spec/replicas", "value": 0}]),
    ],
)
def test_three_kinds_of_patch_scale(bench: Bench, content_type: str, patch: object) -> None:
    space = bench.namespace(Seed("Deployment", "bot", 1))
    path = at("deployments", space, "bot", "scale")
    answer = bench.ask("PATCH", f"{path}?dryRun=All", patch, content_type=content_type)
    assert (answer.code, answer.body["spec"]) == (200, {})


def test_a_scale_that_makes_no_sense_is_refused(bench: Bench) -> None:
    space = bench.namespace(Seed("Deployment", "bot", 1))
    path = at("deployments", space, "bot", "scale")
    plain = bench.ask("PATCH", path, ZERO, content_type="application/json")
    assert failure(plain)[:2] == (415, "UnsupportedMediaType")
    below = bench.ask("PATCH", path, {"spec": {"replicas": -1}}, content_type=MERGE)
    assert failure(below)[:2] == (422, "Invalid")
    missing = bench.ask("PATCH", at("deployments", space, "no", "scale"), ZERO, content_type=MERGE)
    details = {"name": "no", "group": "apps", "kind": "deployments"}
    assert failure(missing) == (404, "NotFound", details)
    assert bench.ask("GET", path).body["spec"] == {"replicas": 1}


# Deleting pods.


def test_a_dry_run_of_deleting_pods_leaves_no_trace(bench: Bench) -> None:
    space = bench.namespace(Seed("Deployment", "bot", 2))
    before = pods(bench, space).items
    tried = bench.ask("DELETE", at("pods", space, gracePeriodSeconds=1, dryRun="All"))
    assert (tried.code, tried.body["kind"], names(tried)) == (
        200,
        "PodList",
        [pod["metadata"]["name"] for pod in before],
    )
    by_body = bench.ask("DELETE", at("pods", space), {"dryRun": ["All"]})
    assert by_body.code == 200
    assert pods(bench, space).items == before
    one = at("pods", space, before[0]["metadata"]["name"], gracePeriodSeconds=7, dryRun="All")
    assert bench.ask("DELETE", one).body["metadata"]["deletionGracePeriodSeconds"] == 7
    assert pods(bench, space).items == before


def test_the_pods_of_every_kind_are_killed_after_two_seconds_and_stay_away(bench: Bench) -> None:
    space = bench.namespace(
        Seed("Deployment", "freqtrade", 2),
        Seed("StatefulSet", "hedger", 2),
        Seed("DaemonSet", "collector"),
        Seed("Job", "backfill"),
        Seed("Pod", "debug"),
    )
    before = names(pods(bench, space))
    lock(bench, space)
    began = time.monotonic()
    deleted = bench.ask("DELETE", at("pods", space, gracePeriodSeconds=1))
    assert (deleted.code, names(deleted)) == (200, before)
    while (asked := time.monotonic()) - began < 1.8:
        seen = pods(bench, space)
        assert names(seen) == before, f"{asked - began:.2f} s after the delete"
        assert all(pod["metadata"]["deletionGracePeriodSeconds"] == 1 for pod in seen.items)
        time.sleep(0.1)
    eventually(lambda: pods(bench, space), lambda seen: seen.items == [], within_s=6)
    time.sleep(0.5)
    assert pods(bench, space).items == []
    wanted = bench.ask("GET", at("deployments", space, "freqtrade", "scale"))
    assert wanted.body["spec"] == {"replicas": 2}


def test_without_a_quota_a_deployment_replaces_its_pods_while_they_end(bench: Bench) -> None:
    space = bench.namespace(Seed("Deployment", "bot", 2))
    before = set(names(pods(bench, space)))
    bench.ask("DELETE", at("pods", space, gracePeriodSeconds=1))
    seen = eventually(lambda: pods(bench, space), lambda seen: len(set(names(seen)) - before) == 2)
    new = [pod for pod in seen.items if pod["metadata"]["name"] not in before]
    assert all("deletionTimestamp" not in pod["metadata"] for pod in new)


def test_a_selector_spares_every_other_pod(bench: Bench) -> None:
    space = bench.namespace(
        Seed("Pod", "bot", 1, {"team": "a"}), Seed("Pod", "web", 1, {"team": "b"})
    )
    none = bench.ask("DELETE", at("pods", space, gracePeriodSeconds=1, labelSelector="team=c"))
    assert (none.code, none.items) == (200, [])
    some = bench.ask("DELETE", at("pods", space, gracePeriodSeconds=1, labelSelector="team=a"))
    assert names(some) == ["bot"]
    ending = {
        pod["metadata"]["name"]: "deletionTimestamp" in pod["metadata"]
        for pod in pods(bench, space).items
    }
    assert ending == {"bot": True, "web": False}


def test_the_deletion_time_is_now_plus_the_grace_and_only_gets_earlier(bench: Bench) -> None:
    space = bench.namespace(Seed("Pod", "bot"))
    path = at("pods", space, "bot")
    first = bench.ask("DELETE", f"{path}?gracePeriodSeconds=60")
    assert first.body["kind"] == "Pod"
    asked = parsedate_to_datetime(first.headers["Date"])
    assert 59 <= (ends_at(first.body) - asked).total_seconds() <= 61
    later = bench.ask("DELETE", f"{path}?gracePeriodSeconds=90")
    assert later.body["metadata"]["deletionGracePeriodSeconds"] == 60
    assert ends_at(later.body) == ends_at(first.body)
    sooner = bench.ask("DELETE", f"{path}?gracePeriodSeconds=5")
    assert sooner.body["metadata"]["deletionGracePeriodSeconds"] == 5
    assert 4 <= (ends_at(sooner.body) - asked).total_seconds() <= 7


def test_without_a_grace_the_pods_own_rules(bench: Bench) -> None:
    space = bench.namespace(Seed("Pod", "bot"))
    answer = bench.ask("DELETE", at("pods", space, "bot"))
    assert answer.body["metadata"]["deletionGracePeriodSeconds"] == 30
    bad = bench.ask("DELETE", at("pods", space, "bot", gracePeriodSeconds="soon"))
    assert failure(bad)[:2] == (400, "BadRequest")


def test_a_forced_delete_takes_the_pod_from_sight_at_once(bench: Bench) -> None:
    space = bench.namespace(Seed("Pod", "bot"))
    forced = bench.ask("DELETE", at("pods", space, "bot", gracePeriodSeconds=0))
    assert forced.body["metadata"]["deletionGracePeriodSeconds"] == 0
    assert bench.ask("GET", at("pods", space, "bot")).code == 404
    assert pods(bench, space).items == []


# What has no scale.


def test_a_daemon_set_is_stopped_by_a_node_selector_that_no_node_has(bench: Bench) -> None:
    space = bench.namespace(Seed("DaemonSet", "collector"))
    path = at("daemonsets", space, "collector")
    nowhere = {"spec": {"template": {"spec": {"nodeSelector": {"killswitch/halted": "true"}}}}}
    tried = bench.ask("PATCH", f"{path}?dryRun=All", nowhere, content_type=MERGE)
    assert (tried.code, tried.body["metadata"]["generation"]) == (200, 2)
    assert "nodeSelector" not in bench.ask("GET", path).body["spec"]["template"]["spec"]
    done = bench.ask("PATCH", path, nowhere, content_type=MERGE)
    template = done.body["spec"]["template"]["spec"]
    assert template["nodeSelector"] == {"killswitch/halted": "true"}
    eventually(
        lambda: bench.ask("GET", path),
        lambda seen: seen.body["status"]["desiredNumberScheduled"] == 0,
    )
    eventually(
        lambda: pods(bench, space),
        lambda seen: all("deletionTimestamp" in pod["metadata"] for pod in seen.items),
    )


def test_a_job_is_suspended_and_its_pods_get_their_whole_grace(bench: Bench) -> None:
    space = bench.namespace(Seed("Job", "backfill"))
    path = at("jobs", space, "backfill")
    suspend = {"spec": {"suspend": True}}
    tried = bench.ask("PATCH", f"{path}?dryRun=All", suspend, content_type=MERGE)
    assert (tried.code, tried.body["spec"]["suspend"]) == (200, True)
    assert bench.ask("GET", path).body["spec"]["suspend"] is False
    done = bench.ask("PATCH", path, suspend, content_type=MERGE)
    assert (done.code, done.body["spec"]["suspend"]) == (200, True)
    seen = eventually(
        lambda: pods(bench, space),
        lambda seen: all("deletionTimestamp" in pod["metadata"] for pod in seen.items),
    )
    assert [pod["metadata"]["deletionGracePeriodSeconds"] for pod in seen.items] == [30]


def test_a_cron_job_is_suspended(bench: Bench) -> None:
    space = bench.namespace(Seed("CronJob", "rebalance"))
    path = at("cronjobs", space, "rebalance")
    suspend = {"spec": {"suspend": True}}
    tried = bench.ask("PATCH", f"{path}?dryRun=All", suspend, content_type=MERGE)
    assert (tried.code, tried.body["spec"]["suspend"]) == (200, True)
    assert bench.ask("GET", path).body["spec"]["suspend"] is False
    bench.ask("PATCH", path, suspend, content_type=MERGE)
    assert bench.ask("GET", path).body["spec"]["suspend"] is True


def test_a_job_under_a_quota_makes_no_new_pod(bench: Bench) -> None:
    space = bench.namespace(Seed("Job", "backfill"))
    lock(bench, space)
    bench.ask("DELETE", at("pods", space, gracePeriodSeconds=1))
    eventually(lambda: pods(bench, space), lambda seen: seen.items == [])
    time.sleep(1)
    assert pods(bench, space).items == []
