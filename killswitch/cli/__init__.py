"""One file per command; `terminal` is the whole voice of the tool."""
