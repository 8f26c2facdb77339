"""The configuration that the sandbox world writes for a halt of itself."""

from typing import Final

CONFIG: Final = """\
# Written by killswitch: the sandbox world on this machine. Nothing in it is real.
name = "sandbox"

[sandbox]
software_key = "software-key.json"
# Plugged in, not enrolled: killswitch keys enroll --operator you --label spare
spare_keys = ["spare-key.json"]

[keys]
rp_id = {rp_id}
file = "keys.json"
# The software key has no PIN.
require_pin = []

[journal]
file = {journal}
fallback = {fallback}

[halt]
stay_down_s = {stay_down_s}
patience_s = {patience_s}

[[kubernetes]]
name = "k3s-sandbox"
kubeconfig = "kubeconfig.yaml"
context = "sandbox"
cluster_uid = "{cluster_uid}"
{token}namespaces = ["trading"]

[[synced_secrets]]
name = "k3s-sandbox"
kubeconfig = "kubeconfig.yaml"
context = "sandbox"
cluster_uid = "{cluster_uid}"
{token}namespaces = ["trading"]
secrets = ["trading/freqtrade-bybit", "trading/hedger-bybit", "trading/desk-webhook"]

[[bybit]]
name = "main-desk"
endpoint = {bybit}
api_key = "{source}:bybit-api-key"
api_secret = "{source}:bybit-api-secret"
{held}
[[kakunin]]
name = "tenant"
base_url = {kakunin}
api_key = "{source}:kakunin-api-key"
agents = {agents}

[[vault]]
name = "vault-sandbox"
address = {vault}
token = "{source}:vault-token"
paths = ["trading/"]

{chats}"""
