"""Importing vendors from many threads at once, as a halt does it."""

import subprocess
import sys

CROWD = """
import sys, threading
from killswitch.clients.loading import load
sys.setswitchinterval(1e-6)
errors = []
def go(kind):
    try:
        load(kind)
    except BaseException as error:
        errors.append((kind, repr(error)))
kinds = ["kubernetes", "synced-secrets", "bybit", "kakunin", "vault", "telegram"] * 3
threads = [threading.Thread(target=go, args=(kind,)) for kind in kinds]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(errors)
"""


def test_many_threads_may_import_every_vendor_at_once() -> None:
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", CROWD], capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
