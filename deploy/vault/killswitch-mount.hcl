# For `mounts`: the trader's whole mount goes at once. Nothing else may live in it. Two blocks for
# each; for KV version 1 the second is trading/*
path "sys/mounts/trading" {
  capabilities = ["delete"]
}
path "trading/metadata/*" {
  capabilities = ["list"] # that there is something to wipe, and that nothing is left
}
