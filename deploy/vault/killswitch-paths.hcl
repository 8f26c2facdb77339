# For `paths`: the trader's secrets are found by name and deleted, and never read. One block for
# each. For KV version 2, put "metadata" behind the mount:
#   "trading/"              trading/metadata/*
#   "secret/bots/hedger/"   secret/metadata/bots/hedger/*
# For KV version 1 it is the path itself: trading/*
path "trading/metadata/*" {
  capabilities = ["list", "delete"] # `delete` of metadata takes every version with it
}
