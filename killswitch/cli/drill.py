"""`killswitch drill`: the quarterly test; without a configuration, the whole halt in a sandbox."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from killswitch.cli.revoke import Deadline, TouchTimeout, Yes
from killswitch.cli.session import Session
from killswitch.errors import UsageError

if TYPE_CHECKING:
    from killswitch.exit_codes import ExitCode


def drill(
    session: Session,
    *,
    touch_timeout: TouchTimeout = None,
    deadline: Deadline = None,
    yes: Yes = False,
) -> None:
    """Rehearse the halt: the same engine, the same touch, nothing changed.

    Without a configuration it halts a small world on this machine for real, so that you can see
    all of it in one command.
    """
    if session.find_config() is None:
        session.end(_drill_in_sandbox(session, touch_timeout, deadline, yes=yes))
    from killswitch.cli.announce import announced

    config = announced(session, live=False)
    from killswitch.cli.carry_out import Run, Wish
    from killswitch.exit_codes import exit_code
    from killswitch.model import Mode

    wish = Wish(mode=Mode.DRILL, touch_timeout_s=touch_timeout, deadline_s=deadline, yes=yes)
    session.end(exit_code(Run(session, config, wish).carry_out()))


def _drill_in_sandbox(
    session: Session, touch_timeout: float | None, deadline: float | None, *, yes: bool
) -> "ExitCode":
    from killswitch.cli.carry_out import Run, Wish
    from killswitch.config import load_config
    from killswitch.exit_codes import exit_code
    from killswitch.model import Mode

    session.terminal.ask(
        "SANDBOX", "no killswitch.toml: drilling against a small world on this machine"
    )
    world_class = demand_sandbox()
    with (
        tempfile.TemporaryDirectory(prefix="killswitch-sandbox-") as folder,
        world_class.running(Path(folder), now=session.now(), sealed=True) as world,
    ):
        wish = Wish(mode=Mode.LIVE, touch_timeout_s=touch_timeout, deadline_s=deadline, yes=yes)
        report = Run(session, load_config(world.config_file), wish).carry_out()
    session.terminal.result(
        f" {'look':<12} killswitch report · killswitch journal verify · killswitch init"
    )
    return exit_code(report)


def demand_sandbox() -> "type[World]":
    """Return the sandbox world.

    Raises:
        UsageError: its server library is not installed.
    """
    try:
        from killswitch.sandbox.world import World
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the sandbox needs the package {error.name}",
            effect="nothing was done",
            hint='install it with the extra: pip install "killswitch[sandbox]"',
        ) from None
    return World


if TYPE_CHECKING:
    from killswitch.sandbox.world import World
