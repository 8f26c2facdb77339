# For `roles` and `revoke_prefixes`: the access of the trader, and of what syncs its secrets, is cut
# before the wipe, so that nothing writes them back.

# `roles`: nobody logs in by this role again. `read` of a role shows how it logs in, no credential.
path "auth/kubernetes/role/eso" {
  capabilities = ["read", "delete"]
}

# `revoke_prefixes`: the tokens that this login issued end, those of all its roles. So killswitch's
# own token must not come from it: see README.md. The second block is to see whether any is left.
path "sys/leases/revoke-prefix/auth/kubernetes/login" {
  capabilities = ["update", "sudo"]
}
path "sys/leases/lookup/auth/kubernetes/login/" {
  capabilities = ["list", "sudo"]
}
