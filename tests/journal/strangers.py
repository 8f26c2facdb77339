"""What a stranger has: the page docs/evidence.md, a copy of a journal, and programs not ours."""

import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from killswitch.authority.pin import PinPolicy
from killswitch.authority.proof import verify
from killswitch.authority.touch import ask_for_touch
from killswitch.document import proof_document
from killswitch.model import Order
from killswitch.sandbox.softkey import SoftKeyDevice
from tests.journal.desk import RP_ID, Desk
from tests.worlds import Ran

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/extract_proof.py"
PAGE = (ROOT / "docs/evidence.md").read_text()
PACKAGES = {"openssl": "openssl", "fido2-assert": "fido2-tools"}
CHECKS = {
    "the order": "Is it this order?",
    "OpenSSL": "Did this key sign it? OpenSSL",
    "libfido2": "Was it touched? libfido2",
    "webauthn": "All at once: webauthn",
    "what stood before": "What stood before it",
}
"""The checks by their names in the page's last table, and the sections that have them."""


def section(heading: str) -> str:
    """Return the text of one section of the page, up to the next heading."""
    found = re.search(
        rf"^##+ {re.escape(heading)}\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE
    )
    assert found, f"the page has no section {heading}"
    return found[1]


def block(heading: str) -> str:
    """Return the one shell block of a section."""
    found = re.findall(r"^```sh\n(.*?)^```$", section(heading), re.DOTALL | re.MULTILINE)
    assert len(found) == 1, f"{heading}: one block, not {len(found)}"
    return str(found[0])


def demand(tool: str) -> None:
    """Fail when a program that judges us is not there: on Linux it can be."""
    if shutil.which(tool) is None:
        said = f"{tool} is not installed; on Debian: apt-get install {PACKAGES[tool]}"
        if sys.platform != "linux":
            pytest.skip(said)
        pytest.fail(said)


@dataclass(frozen=True, slots=True)
class Stranger:
    """Somebody at a desk of their own, with the two files that the page asks for."""

    folder: Path

    @classmethod
    def with_copy(cls, journal: Path, folder: Path) -> "Stranger":
        """Give somebody a copy of the journal and the script."""
        folder.mkdir()
        shutil.copy(journal, folder / "journal.db")
        shutil.copy(SCRIPT, folder)
        return cls(folder)

    @property
    def proof(self) -> Path:
        """The folder that the page's commands make."""
        return self.folder / "proof"

    def does(self, heading: str) -> Ran:
        """Run the block of one section, as it stands."""
        return self.runs(block(heading), self.proof if heading in CHECKS.values() else self.folder)

    def runs(self, script: str, folder: Path) -> Ran:
        """Run a shell script in a folder; `python3` has webauthn."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=folder,
            env={"PATH": path, "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def refusals(self) -> set[str]:
        """Return the names of the checks that refuse, and hold each to a word about it."""
        refused = set()
        for name, heading in CHECKS.items():
            ran = self.does(heading)
            if ran.code:
                refused.add(name)
                assert "Traceback" not in ran.err or "InvalidAuthenticationResponse" in ran.err
            else:
                assert ran.out, f"{name} accepts without a word"
        return refused


def touched(desk: Desk, order: Order, *, prf: bool = False, pin: bool = False) -> dict[str, object]:
    """Return the proof of a touch of the blue key, which may evaluate its PRF or ask for a PIN."""
    if pin:
        desk.soft["blue"].set_pin("123456")
    answer = ask_for_touch(
        challenge=order.challenge(),
        keys=[desk.keys["blue"]],
        rp_id=RP_ID,
        devices=lambda: [SoftKeyDevice(desk.soft["blue"])],
        timeout_s=5,
        cancel=threading.Event(),
        on_state=lambda _: None,
        unseal=prf,
        pin=PinPolicy(ask=lambda _label, _tries, _note: "123456", required=True) if pin else None,
    )
    return proof_document(verify(order, answer.assertion, [desk.keys["blue"]]))
