"""A small world on loopback: a server per vendor speaking its wire format, and a software key."""
