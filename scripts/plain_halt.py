"""The halt as a plain script would do it: the same libraries, one call after the other.

It is what killswitch is measured against, and what it is not: nothing is verified twice, nothing
is retried, one failure ends it, nobody is told, and nothing is kept.
"""

import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import hvac
from kubernetes import client, config
from pybit.unified_trading import HTTP


def stop_pods(kubeconfig: str, namespace: str) -> None:
    """Delete the pods, scale to zero, wait until the list is empty."""
    load: Any = config.load_kube_config
    load(kubeconfig)
    core: Any = client.CoreV1Api()
    apps: Any = client.AppsV1Api()
    spec = {"metadata": {"name": "killswitch-lock"}, "spec": {"hard": {"pods": "0"}}}
    core.create_namespaced_resource_quota(namespace, spec)
    core.delete_collection_namespaced_pod(namespace, grace_period_seconds=1)
    for listed in apps.list_namespaced_deployment(namespace).items:
        apps.patch_namespaced_deployment_scale(
            listed.metadata.name, namespace, {"spec": {"replicas": 0}}
        )
    for listed in apps.list_namespaced_stateful_set(namespace).items:
        apps.patch_namespaced_stateful_set_scale(
            listed.metadata.name, namespace, {"spec": {"replicas": 0}}
        )
    while core.list_namespaced_pod(namespace).items:
        time.sleep(0.05)


def remove_synced(kubeconfig: str, namespace: str, names: list[str]) -> None:
    """Delete what External Secrets copies, the parents first, and then the copies by name."""
    load: Any = config.new_client_from_config
    api = load(kubeconfig)
    objects: Any = client.CustomObjectsApi(api)
    push, external = ("external-secrets.io", "v1alpha1"), ("external-secrets.io", "v1")
    for version, plural in ((external, "clusterexternalsecrets"), (push, "clusterpushsecrets")):
        for item in objects.list_cluster_custom_object(*version, plural)["items"]:
            objects.delete_cluster_custom_object(*version, plural, item["metadata"]["name"])
    for version, plural in ((push, "pushsecrets"), (external, "externalsecrets")):
        here = (*version, namespace, plural)
        for item in objects.list_namespaced_custom_object(*here)["items"]:
            with suppress(client.ApiException):  # a child went with its parent
                objects.delete_namespaced_custom_object(*here, item["metadata"]["name"])
    core: Any = client.CoreV1Api(api)
    for name in names:
        with suppress(client.ApiException):  # one that its parent owned may be gone by now
            core.delete_namespaced_secret(name, namespace)


def revoke_keys(url: str, master: tuple[str, str], held: tuple[str, str]) -> None:
    """Delete the sub accounts' keys, cancel orders with the held key, then the own key."""
    session = HTTP(api_key=master[0], api_secret=master[1])
    session.endpoint = url
    for sub in session.get_sub_uid_list()["result"]["subMembers"]:
        keys = session.get_all_sub_api_keys(subMemberId=sub["uid"])["result"]["result"]
        for key in keys:
            if key["apiKey"] != held[0]:
                session.delete_sub_api_key(apikey=key["apiKey"])
                time.sleep(0.25)  # the documented limit is five a second
    trader = HTTP(api_key=held[0], api_secret=held[1])
    trader.endpoint = url
    trader.cancel_all_orders(category="linear", settleCoin="USDT", orderFilter="Order")
    trader.cancel_all_orders(category="spot", orderFilter="Order")
    session.delete_sub_api_key(apikey=held[0])
    session.delete_master_api_key()


def revoke_certificates(base_url: str, key: str, agents: list[str]) -> None:
    """Revoke every active certificate, halt every agent, read it back."""
    with httpx.Client(headers={"Authorization": f"Bearer {key}"}) as http:
        for agent in agents:
            shown = http.get(f"{base_url}/agents/{agent}").json()["data"]
            for certificate in shown["certificates"]:
                if certificate["status"] == "active":
                    url = f"{base_url}/certificates/{certificate['id']}/revoke"
                    http.post(url, json={"reason": "bench"})
            http.post(f"{base_url}/agents/{agent}/halt", json={"reason": "operator_initiated"})
            http.get(f"{base_url}/agents/{agent}").raise_for_status()


def wipe(address: str, token: str, mount: str) -> None:
    """Delete every secret of a mount, with all versions."""
    vault = hvac.Client(url=address, token=token).secrets.kv.v2

    def walk(folder: str) -> None:
        for key in vault.list_secrets(path=folder, mount_point=mount)["data"]["keys"]:
            if key.endswith("/"):
                walk(folder + key)
            else:
                vault.delete_metadata_and_all_versions(path=folder + key, mount_point=mount)

    walk("")


def main() -> None:
    """Halt the world described by the JSON file named on the command line."""
    world = json.loads(Path(sys.argv[1]).read_text())
    began = time.monotonic()
    stop_pods(world["kubeconfig"], world["namespace"])
    revoke_keys(world["bybit"], tuple(world["master"]), tuple(world["held"]))
    revoke_certificates(world["kakunin"], world["kakunin_key"], world["agents"])
    remove_synced(world["synced_kubeconfig"], "trading", world["synced"])
    wipe(world["vault"], world["vault_token"], world["mount"])
    sys.stdout.write(f"{time.monotonic() - began:.3f}\n")


main()
