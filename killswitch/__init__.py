"""One touch of a security key halts an automated trading deployment, and proves it."""

__version__ = "0.1.0"
