"""How Vault 1.21.0 describes its mounts and itself."""

from typing import Final
from uuid import uuid4

from killswitch.sandbox.vault_answers import Json
from killswitch.sandbox.vault_store import Mount

KV_PLUGIN: Final = "v0.25.0+builtin"
VERSION: Final = "1.21.0"


def describe(mount: Mount, *, tuned: bool = False) -> Json:
    """Return a KV mount as sys/mounts shows it, or with its effective lease times."""
    shown = mount_entry("kv", mount.description, mount.accessor, running=KV_PLUGIN)
    lease_s = 2764800 if tuned else 0
    shown["config"] |= {"default_lease_ttl": lease_s, "max_lease_ttl": lease_s}
    options = {"version": str(mount.claims or mount.version)}
    return {**shown, "deprecation_status": "supported", "options": options, "uuid": mount.uuid}


def system_mounts(version: str) -> Json:
    """Return the mounts that every Vault has."""
    running = f"v{version}+builtin.vault"
    about = "system endpoints used for control, policy and debugging"
    system = mount_entry("system", about, "system_1", running=running, headers=["Accept"])
    identity = mount_entry(
        "identity", "identity store", "identity_1", running=running, headers=["Authorization"]
    )
    about = "per-token private secret storage"
    cubbyhole = mount_entry("cubbyhole", about, "cubbyhole_1", running=running)
    return {
        "sys/": {**system, "seal_wrap": True},
        "identity/": identity,
        "cubbyhole/": {**cubbyhole, "local": True},
    }


def mount_entry(
    kind: str, description: str, accessor: str, *, running: str, headers: list[str] | None = None
) -> Json:
    """Return how sys/mounts shows one mount."""
    config: Json = {"default_lease_ttl": 0, "force_no_cache": False, "max_lease_ttl": 0}
    if headers:
        config["passthrough_request_headers"] = headers
    return {
        "accessor": accessor,
        "config": config,
        "description": description,
        "external_entropy_access": False,
        "local": False,
        "options": None,
        "plugin_version": "",
        "running_plugin_version": running,
        "running_sha256": "",
        "seal_wrap": False,
        "type": kind,
        "uuid": str(uuid4()),
    }


def health(version: str, *, sealed: bool, now: float) -> Json:
    """Return the body of sys/health of a node that is active, unless it is sealed."""
    replication = "unknown" if sealed else "disabled"
    cluster = {"cluster_name": "vault-cluster-sandbox", "cluster_id": "sandbox"}
    return {
        "initialized": True,
        "sealed": sealed,
        "standby": sealed,
        "performance_standby": False,
        "replication_performance_mode": replication,
        "replication_dr_mode": replication,
        "server_time_utc": int(now),
        "version": version,
        "enterprise": False,
        **({} if sealed else cluster),
        "echo_duration_ms": 0,
        "clock_skew_ms": 0,
        "replication_primary_canary_age_ms": 0,
    }


def seal_status(version: str, *, sealed: bool) -> Json:
    """Return the body of sys/seal-status."""
    return {
        "type": "shamir",
        "initialized": True,
        "sealed": sealed,
        "t": 1,
        "n": 1,
        "progress": 0,
        "nonce": "",
        "version": version,
        "build_date": "2025-11-21T08:00:32Z",
        "migration": False,
        "recovery_seal": False,
        "storage_type": "inmem",
    }
