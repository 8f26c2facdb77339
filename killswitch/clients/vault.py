"""HashiCorp Vault through hvac, spoken to as narrowly as a halt needs."""

from killswitch.clients.vault_access import Access
from killswitch.clients.vault_mounts import Mounts


class VaultClient(Mounts, Access):
    """One Vault: its secrets and mounts, its roles and tokens."""
