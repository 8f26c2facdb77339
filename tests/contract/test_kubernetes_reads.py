"""What an API server answers to reads, and to whom: the sandbox's and a real one alike."""

import time
from email.utils import parsedate_to_datetime

import pytest

from tests.contract.kubernetes_bench import (
    LOCK,
    MERGE,
    METADATA,
    METADATA_LIST,
    Bench,
    Seed,
    at,
    failure,
    names,
    refusal,
)

KINDS = {
    "pods": "Pod",
    "resourcequotas": "ResourceQuota",
    "deployments": "Deployment",
    "statefulsets": "StatefulSet",
    "daemonsets": "DaemonSet",
    "jobs": "Job",
    "cronjobs": "CronJob",
    "horizontalpodautoscalers": "HorizontalPodAutoscaler",
}
SCALE = {"spec": {"replicas": 0}}


@pytest.fixture(scope="module")
def space(bench: Bench) -> str:
    """A namespace that nobody writes to."""
    name = bench.namespace(
        Seed("Deployment", "freqtrade", 2, {"team": "a"}),
        Seed("StatefulSet", "hedger"),
        Seed("DaemonSet", "collector"),
        Seed("Job", "backfill"),
        Seed("CronJob", "rebalance"),
        Seed("Pod", "debug", 1, {"team": "b"}),
    )
    assert bench.ask("POST", at("resourcequotas", name), LOCK).code == 201
    return name


def test_the_version_needs_no_token(bench: Bench) -> None:
    answer = bench.ask("GET", "/version", as_user="")
    assert answer.code == 200
    assert answer.body["gitVersion"].startswith("v1.36.2")
    assert (answer.body["major"], answer.body["minor"]) == ("1", "36")


def test_every_answer_carries_the_servers_own_clock(bench: Bench) -> None:
    for path, code in (("/version", 200), (at("pods", "none"), 403)):
        answer = bench.ask("GET", path, as_user="nobody")
        assert answer.code == code
        told = parsedate_to_datetime(answer.headers["Date"])
        assert abs(told.timestamp() - time.time()) < 2


@pytest.mark.parametrize("path", ["/version", at("pods", "none"), "/nonsense"])
def test_a_token_that_nobody_knows_is_a_401_everywhere(bench: Bench, path: str) -> None:
    answer = bench.ask("GET", path, as_user="stranger")
    assert failure(answer) == (401, "Unauthorized", {})
    assert answer.message == "Unauthorized"


def test_without_a_token_one_is_the_anonymous_user_who_may_do_nothing(bench: Bench) -> None:
    answer = bench.ask("GET", at("pods", "none"), as_user="")
    assert failure(answer) == (403, "Forbidden", {"kind": "pods"})
    assert answer.message == refusal(bench, "pods", "list", "pods", "", "none").replace(
        bench.user, "system:anonymous"
    )


@pytest.mark.parametrize(
    ("method", "path", "what", "verb", "resource", "group", "details"),
    [
        ("GET", at("pods", "n"), "pods", "list", "pods", "", {"kind": "pods"}),
        ("DELETE", at("pods", "n"), "pods", "deletecollection", "pods", "", {"kind": "pods"}),
        (
            "DELETE",
            at("pods", "n", "bot"),
            'pods "bot"',
            "delete",
            "pods",
            "",
            {"name": "bot", "kind": "pods"},
        ),
        (
            "GET",
            at("resourcequotas", "n", "killswitch-lock"),
            'resourcequotas "killswitch-lock"',
            "get",
            "resourcequotas",
            "",
            {"name": "killswitch-lock", "kind": "resourcequotas"},
        ),
        (
            "POST",
            at("resourcequotas", "n", dryRun="All"),
            "resourcequotas",
            "create",
            "resourcequotas",
            "",
            {"kind": "resourcequotas"},
        ),
        (
            "GET",
            at("statefulsets", "n"),
            "statefulsets.apps",
            "list",
            "statefulsets",
            "apps",
            {"group": "apps", "kind": "statefulsets"},
        ),
        (
            "PATCH",
            at("deployments", "n", "bot", "scale"),
            'deployments.apps "bot"',
            "patch",
            "deployments/scale",
            "apps",
            {"name": "bot", "group": "apps", "kind": "deployments"},
        ),
        (
            "PATCH",
            at("daemonsets", "n", "bot"),
            'daemonsets.apps "bot"',
            "patch",
            "daemonsets",
            "apps",
            {"name": "bot", "group": "apps", "kind": "daemonsets"},
        ),
        (
            "PATCH",
            at("cronjobs", "n", "bot"),
            'cronjobs.batch "bot"',
            "patch",
            "cronjobs",
            "batch",
            {"name": "bot", "group": "batch", "kind": "cronjobs"},
        ),
    ],
)
def test_a_missing_right_is_a_403_that_says_which(
    bench: Bench,
    method: str,
    path: str,
    what: str,
    verb: str,
    resource: str,
    group: str,
    details: dict[str, str],
) -> None:
    body = LOCK if method == "POST" else SCALE if method == "PATCH" else None
    kind = MERGE if method == "PATCH" else ""
    answer = bench.ask(method, path, body, as_user="nobody", content_type=kind)
    assert failure(answer) == (403, "Forbidden", details)
    assert answer.message == refusal(bench, what, verb, resource, group, "n")


def test_a_right_is_checked_before_it_is_looked_whether_the_thing_exists(bench: Bench) -> None:
    path = at("scaledobjects", "n").replace("scaledobjects", "nosuchthings")
    answer = bench.ask("GET", path, as_user="nobody")
    assert failure(answer)[:2] == (403, "Forbidden")


@pytest.mark.parametrize("resource", KINDS)
def test_a_list_names_its_kind_once_and_its_items_do_not(
    bench: Bench, space: str, resource: str
) -> None:
    answer = bench.ask("GET", at(resource, space))
    assert answer.code == 200
    assert answer.body["kind"] == f"{KINDS[resource]}List"
    assert answer.body["metadata"]["resourceVersion"]
    assert "continue" not in answer.body["metadata"]
    for item in answer.items:
        assert "kind" not in item
        assert item["metadata"]["namespace"] == space
        assert {"name", "uid", "resourceVersion", "creationTimestamp"} <= set(item["metadata"])


@pytest.mark.parametrize("resource", KINDS)
def test_one_object_carries_its_kind(bench: Bench, space: str, resource: str) -> None:
    listed = bench.ask("GET", at(resource, space)).items
    for item in listed[:1]:
        one = bench.ask("GET", at(resource, space, item["metadata"]["name"]))
        assert (one.code, one.body["kind"]) == (200, KINDS[resource])
        assert one.body["metadata"]["uid"] == item["metadata"]["uid"]
    assert bool(listed) is (resource != "horizontalpodautoscalers")


@pytest.mark.parametrize("resource", KINDS)
def test_a_namespace_that_does_not_exist_lists_as_empty(bench: Bench, resource: str) -> None:
    answer = bench.ask("GET", at(resource, "tradign"))
    assert (answer.code, answer.body["items"]) == (200, [])


def test_in_a_namespace_that_does_not_exist_nothing_is_found_or_made(bench: Bench) -> None:
    missing = {"name": "tradign", "kind": "namespaces"}
    for query in ({}, {"dryRun": "All"}):
        made = bench.ask("POST", at("resourcequotas", "tradign", **query), LOCK)
        assert failure(made) == (404, "NotFound", missing)
        assert made.message == 'namespaces "tradign" not found'
    swept = bench.ask("DELETE", at("pods", "tradign", gracePeriodSeconds=1))
    assert (swept.code, swept.items) == (200, [])
    scaled = bench.ask(
        "PATCH", at("deployments", "tradign", "bot", "scale"), SCALE, content_type=MERGE
    )
    assert scaled.message == 'deployments.apps "bot" not found'
    read = bench.ask("GET", at("resourcequotas", "tradign", "killswitch-lock"))
    details = {"name": "killswitch-lock", "kind": "resourcequotas"}
    assert failure(read) == (404, "NotFound", details)


def test_a_namespace_can_be_read_and_kube_system_tells_clusters_apart(
    bench: Bench, space: str
) -> None:
    system = bench.ask("GET", "/api/v1/namespaces/kube-system")
    assert (system.code, system.body["kind"]) == (200, "Namespace")
    assert len(system.body["metadata"]["uid"]) == 36
    own = bench.ask("GET", f"/api/v1/namespaces/{space}")
    assert own.body["status"] == {"phase": "Active"}
    assert own.body["metadata"]["uid"] != system.body["metadata"]["uid"]
    missing = bench.ask("GET", "/api/v1/namespaces/tradign")
    assert failure(missing) == (404, "NotFound", {"name": "tradign", "kind": "namespaces"})


def test_lists_come_in_pages_in_one_order(bench: Bench, space: str) -> None:
    whole = names(bench.ask("GET", at("pods", space)))
    assert len(whole) == 6
    assert whole == sorted(whole)
    first = bench.ask("GET", at("pods", space, limit=4))
    assert first.body["metadata"]["remainingItemCount"] == 2
    more = first.body["metadata"]["continue"]
    rest = bench.ask("GET", at("pods", space, limit=4, **{"continue": more}))
    assert names(first) + names(rest) == whole
    assert not {"continue", "remainingItemCount"} & set(rest.body["metadata"])
    junk = bench.ask("GET", at("pods", space, limit=4, **{"continue": "junk"}))
    assert failure(junk)[:2] == (400, "BadRequest")


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("team=a", {"freqtrade"}),
        ("team==a", {"freqtrade"}),
        ("team=a,app=freqtrade", {"freqtrade"}),
        ("team=a,app=hedger", set()),
        ("team!=a", {"hedger", "collector", "backfill", "debug"}),
        ("team", {"freqtrade", "debug"}),
        ("!team", {"hedger", "collector", "backfill"}),
        ("team in (a, b)", {"freqtrade", "debug"}),
        ("team notin (a),app", {"hedger", "collector", "backfill", "debug"}),
    ],
)
def test_labels_select(bench: Bench, space: str, selector: str, found: set[str]) -> None:
    answer = bench.ask("GET", at("pods", space, labelSelector=selector))
    assert answer.code == 200
    assert {item["metadata"]["labels"]["app"] for item in answer.items} == found


def test_a_selector_that_is_none_is_a_400(bench: Bench, space: str) -> None:
    answer = bench.ask("GET", at("pods", space, labelSelector="team==a="))
    assert failure(answer)[:2] == (400, "BadRequest")


def test_a_pod_says_whose_it_is_where_it_runs_and_how_it_is(bench: Bench, space: str) -> None:
    pods = bench.ask("GET", at("pods", space)).items
    owners = {}
    for pod in pods:
        owned = pod["metadata"].get("ownerReferences", [])
        owners[pod["metadata"]["labels"]["app"]] = [
            (owner["apiVersion"], owner["kind"], owner["controller"]) for owner in owned
        ]
        assert pod["spec"]["nodeName"]
        assert pod["spec"]["terminationGracePeriodSeconds"] == 30
        assert pod["status"]["phase"] == "Running"
        (status,) = pod["status"]["containerStatuses"]
        assert {"name", "image", "imageID", "ready", "restartCount"} <= set(status)
        assert set(status["state"]) == {"running"}
        assert "deletionTimestamp" not in pod["metadata"]
    assert owners == {
        "freqtrade": [("apps/v1", "ReplicaSet", True)],
        "hedger": [("apps/v1", "StatefulSet", True)],
        "collector": [("apps/v1", "DaemonSet", True)],
        "backfill": [("batch/v1", "Job", True)],
        "debug": [],
    }


def test_the_replica_set_of_a_pod_bears_the_name_and_hash_of_its_deployment(
    bench: Bench, space: str
) -> None:
    for pod in bench.ask("GET", at("pods", space, labelSelector="app=freqtrade")).items:
        hashed = pod["metadata"]["labels"]["pod-template-hash"]
        assert pod["metadata"]["ownerReferences"][0]["name"] == f"freqtrade-{hashed}"
        assert pod["metadata"]["name"].startswith(f"freqtrade-{hashed}-")


def test_the_owner_of_a_pod_is_named_by_its_uid(bench: Bench, space: str) -> None:
    for resource, name in (
        ("statefulsets", "hedger"),
        ("daemonsets", "collector"),
        ("jobs", "backfill"),
    ):
        owner = bench.ask("GET", at(resource, space, name)).body["metadata"]
        selector = f"app={name}"
        for pod in bench.ask("GET", at("pods", space, labelSelector=selector)).items:
            assert pod["metadata"]["ownerReferences"][0]["uid"] == owner["uid"]
            assert pod["metadata"]["ownerReferences"][0]["name"] == name


def test_what_asks_for_pods_says_so_in_its_own_way(bench: Bench, space: str) -> None:
    spec = {
        resource: bench.ask("GET", at(resource, space)).items[0]["spec"]
        for resource in ("deployments", "statefulsets", "daemonsets", "jobs", "cronjobs")
    }
    assert spec["deployments"]["replicas"] == 2
    assert spec["statefulsets"]["replicas"] == 1
    assert "replicas" not in spec["daemonsets"]
    assert "nodeSelector" not in spec["daemonsets"]["template"]["spec"]
    assert (spec["jobs"]["parallelism"], spec["jobs"]["suspend"]) == (1, False)
    assert spec["cronjobs"]["suspend"] is False
    templates = [spec[each]["template"] for each in ("deployments", "statefulsets", "daemonsets")]
    templates += [spec["jobs"]["template"], spec["cronjobs"]["jobTemplate"]["spec"]["template"]]
    assert [template["metadata"]["labels"]["app"] for template in templates] == [
        "freqtrade",
        "hedger",
        "collector",
        "backfill",
        "rebalance",
    ]


def test_a_job_and_a_daemon_set_say_how_many_pods_they_have(bench: Bench, space: str) -> None:
    job = bench.ask("GET", at("jobs", space, "backfill")).body
    assert job["status"]["active"] == 1
    daemons = bench.ask("GET", at("daemonsets", space, "collector")).body
    assert daemons["status"]["desiredNumberScheduled"] == 1
    assert daemons["status"]["currentNumberScheduled"] == 1


def test_a_scale_says_what_is_wanted_and_what_is_there(bench: Bench, space: str) -> None:
    scale = bench.ask("GET", at("deployments", space, "freqtrade", "scale"))
    assert (scale.body["kind"], scale.body["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert scale.body["spec"] == {"replicas": 2}
    assert scale.body["status"] == {"replicas": 2, "selector": "app=freqtrade"}


def test_a_daemon_set_has_no_scale(bench: Bench, space: str) -> None:
    for method, body in (("GET", None), ("PATCH", SCALE)):
        path = at("daemonsets", space, "collector", "scale")
        answer = bench.ask(method, path, body, content_type=MERGE)
        assert failure(answer) == (404, "NotFound", {})
        assert answer.message == "the server could not find the requested resource"


def test_only_metadata_is_sent_to_whoever_asks_for_it(bench: Bench, space: str) -> None:
    one = bench.ask("GET", at("pods", space, "debug"), accept=METADATA)
    assert (one.body["kind"], one.body["apiVersion"]) == (
        "PartialObjectMetadata",
        "meta.k8s.io/v1",
    )
    assert set(one.body) == {"kind", "apiVersion", "metadata"}
    both = bench.ask("GET", at("pods", space, "debug"), accept=f"{METADATA},application/json")
    assert both.body["kind"] == "PartialObjectMetadata"
    many = bench.ask("GET", at("pods", space), accept=METADATA_LIST)
    assert many.body["kind"] == "PartialObjectMetadataList"
    assert all(set(item) == {"kind", "apiVersion", "metadata"} for item in many.items)
    wrong = bench.ask("GET", at("pods", space), accept=METADATA)
    assert failure(wrong)[:2] == (406, "NotAcceptable")


def test_what_is_not_there_is_a_404_of_its_own_kind(bench: Bench, space: str) -> None:
    pod = bench.ask("GET", at("pods", space, "nobody"))
    assert failure(pod) == (404, "NotFound", {"name": "nobody", "kind": "pods"})
    assert pod.message == 'pods "nobody" not found'
    bot = bench.ask("GET", at("deployments", space, "bot"))
    details = {"name": "bot", "group": "apps", "kind": "deployments"}
    assert failure(bot) == (404, "NotFound", details)
    kind = bench.ask("GET", at("pods", space).replace("pods", "widgets"))
    assert failure(kind) == (404, "NotFound", {})
    # Of a group that is not installed the API server has no Status to give, only text.
    group = bench.ask("GET", "/apis/nonsense.example/v1/namespaces/x/things")
    assert (group.code, group.body) == (404, "404 page not found\n")


def test_a_method_that_a_resource_does_not_know_is_a_405(bench: Bench, space: str) -> None:
    for method, path in (
        ("PUT", at("pods", space)),
        ("POST", at("deployments", space, "freqtrade", "scale")),
    ):
        answer = bench.ask(method, path, {})
        assert failure(answer) == (405, "MethodNotAllowed", {})
