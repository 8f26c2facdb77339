"""Types of messages are known before threads meet them: two at once would crash the process."""

import subprocess
import sys

import pytest

# msgspec looks at a type's annotations once, at its first use; that must not be after `load`.
FIRST_USES = """
import sys, msgspec
import killswitch.clients.{client}
from killswitch.clients.loading import load
from killswitch.priming import below
{before}
found = set()
def watch(frame, event, _argument):
    if event == "call" and frame.f_code.co_name == "get_class_annotations":
        found.add(str(frame.f_locals))
shapes = [it for it in below(msgspec.Struct) if it.__module__.startswith("killswitch.")]
assert shapes
sys.setprofile(watch)
for shape in shapes:
    try:
        msgspec.convert({{}}, type=shape, strict=False)
    except msgspec.ValidationError:
        pass
sys.setprofile(None)
print(len(found))
"""


def first_uses(kind: str, before: str) -> int:
    code = FIRST_USES.format(client=kind, before=before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return int(done.stdout)


@pytest.mark.parametrize("kind", ["bybit", "kakunin", "kubernetes", "vault"])
def test_loading_a_vendor_prepares_every_message_of_its_client(kind: str) -> None:
    assert first_uses(kind, "") > 0, "else this test could not fail"
    assert first_uses(kind, f"load({kind!r})") == 0


def test_every_message_type_can_be_prepared() -> None:
    code = "import killswitch.wiring, killswitch.journal.touches, killswitch.config\n"
    code += "from killswitch.priming import prime\nprime()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
