"""Run the first drill and draw what it printed as one SVG, without any font from elsewhere."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

KILLSWITCH = Path(sys.executable).with_name("killswitch")
# A reader's browser must fetch nothing: its own monospaced font will do.
FORMAT = re.sub(r"@font-face\s*\{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
FORMAT = FORMAT.replace(
    'class="{unique_id}-matrix"', 'class="{unique_id}-matrix" xml:space="preserve"'
)
WIDTH = 88


def drilled(folder: str) -> str:
    """Return everything that `killswitch drill --yes` prints in an empty home, in colour."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": folder,
        "XDG_STATE_HOME": "state",
        "XDG_DATA_HOME": "data",
        "XDG_CONFIG_HOME": "config",
        "FORCE_COLOR": "1",
        "LANG": "C.UTF-8",
    }
    done = subprocess.run(
        [KILLSWITCH, "drill", "--yes"],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def main() -> None:
    """Draw the picture into the file named on the command line."""
    target = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        text = Text.from_ansi("$ killswitch drill --yes\n" + drilled(folder).rstrip())
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    console.print(text, soft_wrap=False, highlight=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    svg = console.export_svg(title="killswitch", code_format=FORMAT, unique_id="drill")
    target.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n")


main()
