"""`killswitch status`: would a halt work today, and what is live."""

from typing import Annotated

import typer

from killswitch.cli.revoke import Yes
from killswitch.cli.session import Session


def status(
    session: Session,
    *,
    touch: Annotated[
        bool, typer.Option("--touch", help="Open the sealed secrets with a touch, and look.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Say whether a halt would work today: keys, drill, journal, every system, open halts.

    Reads only. Without --touch, systems whose credentials are sealed are not looked at. Exit code
    0 when armed, 8 when something is to be mended.
    """
    from killswitch.cli.readiness import show

    session.end(show(session, touch=touch, yes=yes))
