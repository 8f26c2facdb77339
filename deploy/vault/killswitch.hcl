# The token about itself: is it good, for how long, and would a halt be allowed? Vault's own policy
# "default" says so, too. With this one the token needs no other, whatever "default" was made into.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "sys/capabilities-self" {
  capabilities = ["update"]
}
