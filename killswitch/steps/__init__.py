"""One file per step: what is live in one system, and what to do about it."""
