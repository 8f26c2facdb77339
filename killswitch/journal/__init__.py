"""The evidence: an append-only, hash-chained record of every order and what became of it."""
