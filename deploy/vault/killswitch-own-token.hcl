# For `revoke_own_token`: the token ends itself, last. A second run then cannot look.
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
