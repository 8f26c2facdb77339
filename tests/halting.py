"""A sandbox world whose cluster or Vault is a real one, for tests and the bench."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from killswitch.sandbox.world import World

_SECTION = r"\[\[{kind}\]\]\n.*?(?=\n\[|\Z)"


def aim_at_cluster(
    world: World, kubeconfig: Path, context: str, namespaces: Sequence[str], *more: str
) -> None:
    """Put a real cluster in the place of the sandbox's; `more` are lines of its section."""
    lines = [
        "[[kubernetes]]",
        'name = "k3s-sandbox"',
        f"kubeconfig = {json.dumps(str(kubeconfig))}",
        f"context = {json.dumps(context)}",
        f"namespaces = {json.dumps(list(namespaces))}",
        *more,
    ]
    replace_section(world, "kubernetes", lines)


def replace_section(world: World, kind: str, lines: Sequence[str]) -> None:
    """Write `lines` in the place of the section or sections of `kind`."""
    text = world.config_file.read_text()
    pattern = re.compile(_SECTION.format(kind=kind), re.DOTALL)
    assert pattern.search(text), f"no section {kind}"
    world.config_file.write_text(pattern.sub(lambda _: "\n".join(lines) + "\n", text, count=1))
