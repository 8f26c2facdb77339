"""The device tests of python-fido2 must never reach a real key."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.mark.parametrize(
    "code",
    [
        "open('/dev/hidraw0', 'rb')",
        "import os; os.open(b'/dev/../dev/hidraw7', os.O_RDWR)",
        "from fido2.hid.linux import get_descriptor; get_descriptor('/dev/hidraw0')",
    ],
)
def test_with_the_plugin_no_hid_device_can_be_opened(code: str) -> None:
    done = run(f"import tests.device.software_key; {code}")
    assert "the device tests must not open /dev/hidraw" in done.stderr


def test_with_the_plugin_no_smart_card_can_be_asked() -> None:
    done = run("import tests.device.software_key; import fido2.pcsc")
    assert "ModuleNotFoundError" in done.stderr


def test_with_the_plugin_only_the_software_key_is_found() -> None:
    done = run(
        "from tests.device import software_key as plugin\n"
        "import fido2.hid\n"
        "assert fido2.hid.list_descriptors() == []\n"
        "plugin._key.plug()\n"
        "print([one.product_name for one in fido2.hid.list_descriptors()])\n"
    )
    assert done.stdout == "['software key']\n", done.stderr


def test_the_plugin_refuses_when_something_could_reach_a_real_key() -> None:
    done = run(
        "from tests.device import software_key as plugin\n"
        "import fido2.hid, fido2.hid.linux\n"
        "fido2.hid.open_connection = fido2.hid.linux.open_connection\n"
        "plugin.pytest_runtest_setup()\n"
    )
    assert "fido2.hid.open_connection could reach a real security key" in done.stderr
