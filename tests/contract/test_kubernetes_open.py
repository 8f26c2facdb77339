"""Objects of other programs: autoscalers that are built in, and kinds that may not be installed."""

from tests.contract.kubernetes_bench import (
    MERGE,
    STRATEGIC,
    Bench,
    FakeBench,
    at,
    eventually,
    failure,
    names,
)

PAUSE = {"metadata": {"annotations": {"autoscaling.keda.sh/paused-replicas": "0"}}}
TARGET = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "freqtrade"}
HPA = {"minReplicas": 2, "maxReplicas": 4, "scaleTargetRef": TARGET}
SCALED = {"scaleTargetRef": {"name": "freqtrade"}, "minReplicaCount": 2}


def install(bench: Bench, plural: str, kind: str, group: str, version: str) -> None:
    """Install a kind whose schema is open, as a program's own definition would."""
    if isinstance(bench, FakeBench):
        bench.server.world.objects.installed.add(group)
        return
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = {"name": version, "served": True, "storage": True}
    named = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
    spec: dict[str, object] = {"group": group, "scope": "Namespaced", "names": named}
    spec |= {"versions": [served | {"schema": {"openAPIV3Schema": schema}}]}
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    answer = bench.ask("POST", path, {"metadata": {"name": f"{plural}.{group}"}, "spec": spec})
    assert answer.code in {201, 409}, answer.body
    listed = f"/apis/{group}/{version}/namespaces/none/{plural}"
    eventually(lambda: bench.ask("GET", listed), lambda seen: seen.code == 200)


def put(bench: Bench, resource: str, space: str, spec: dict[str, object], **body: str) -> None:
    if isinstance(bench, FakeBench):
        bench.server.world.objects.put(resource, space, "freqtrade", spec)
        return
    made = bench.ask(
        "POST", at(resource, space), body | {"metadata": {"name": "freqtrade"}, "spec": spec}
    )
    assert made.code == 201, made.body


def test_a_kind_that_is_not_installed_is_not_there_in_plain_text(bench: Bench) -> None:
    path = "/apis/absent.example/v1/namespaces/desk/applications"
    for where in (path, f"{path}/bots"):
        answer = bench.ask("GET", where)
        assert (answer.code, answer.body) == (404, "404 page not found\n")
    # Whoever has no right to it cannot tell whether it is installed.
    refused = bench.ask("GET", path, as_user="nobody")
    details = {"group": "absent.example", "kind": "applications"}
    assert failure(refused) == (403, "Forbidden", details)


def test_an_autoscaler_is_listed_and_says_what_it_scales(bench: Bench) -> None:
    space = bench.namespace()
    put(bench, "horizontalpodautoscalers", space, HPA)
    listed = bench.ask("GET", at("horizontalpodautoscalers", space))
    assert listed.body["kind"] == "HorizontalPodAutoscalerList"
    assert names(listed) == ["freqtrade"]
    assert listed.items[0]["spec"]["scaleTargetRef"] == TARGET
    assert (listed.items[0]["spec"]["minReplicas"], listed.items[0]["spec"]["maxReplicas"]) == (
        2,
        4,
    )


def test_an_object_of_another_program_is_annotated_by_a_merge_patch(bench: Bench) -> None:
    install(bench, "scaledobjects", "ScaledObject", "keda.sh", "v1alpha1")
    space = bench.namespace()
    assert bench.ask("GET", at("scaledobjects", space)).items == []
    head = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject"}
    put(bench, "scaledobjects", space, SCALED, **head)
    path = at("scaledobjects", space, "freqtrade")
    wrong = bench.ask("PATCH", path, PAUSE, content_type=STRATEGIC)
    assert failure(wrong)[:2] == (415, "UnsupportedMediaType")
    tried = bench.ask("PATCH", f"{path}?dryRun=All", PAUSE, content_type=MERGE)
    assert tried.body["metadata"]["annotations"] == PAUSE["metadata"]["annotations"]
    assert "annotations" not in bench.ask("GET", path).body["metadata"]
    done = bench.ask("PATCH", f"{path}?fieldManager=killswitch", PAUSE, content_type=MERGE)
    assert (done.code, done.body["spec"]) == (200, SCALED)
    (item,) = bench.ask("GET", at("scaledobjects", space)).items
    assert item["metadata"]["annotations"] == PAUSE["metadata"]["annotations"]
    missing = bench.ask("PATCH", at("scaledobjects", space, "no"), PAUSE, content_type=MERGE)
    details = {"name": "no", "group": "keda.sh", "kind": "scaledobjects"}
    assert failure(missing) == (404, "NotFound", details)
    other = bench.ask("GET", at("scaledobjects", space).replace("v1alpha1", "v9"))
    assert (other.code, other.body) == (404, "404 page not found\n")
