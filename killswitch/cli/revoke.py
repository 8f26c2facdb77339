"""`killswitch revoke`, also spelt `killswitch --revoke`: the halt."""

from typing import Annotated

import typer

from killswitch.cli.session import Session

TouchTimeout = Annotated[
    float | None,
    typer.Option(
        "--touch-timeout", metavar="S", min=1, max=3600, help="Seconds to wait for the touch."
    ),
]
Deadline = Annotated[
    float | None,
    typer.Option(
        "--deadline", metavar="S", min=5, max=3600, help="Seconds from the touch to the report."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Stand for the sandbox's software key.")]


def revoke(
    session: Session,
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the record.")] = "",
    trigger_value: Annotated[
        str, typer.Option(metavar="TEXT", help="The figure that set it off.")
    ] = "",
    incident: Annotated[str, typer.Option(metavar="ID", help="The incident it belongs to.")] = "",
    freeze_only: Annotated[
        bool, typer.Option("--freeze-only", help="Stop after what can be undone.")
    ] = False,
    touch_timeout: TouchTimeout = None,
    deadline: Deadline = None,
    yes: Yes = False,
) -> None:
    """Halt trading now: one touch of an enrolled security key, nothing else to type.

    Stops the pods, revokes the exchange keys and certificates, wipes the secrets, tells the
    chats, and says HALTED only after it has read everything back. Running it again does only
    what is left.
    """
    from killswitch.cli.announce import announced

    config = announced(session, live=True)
    from killswitch.cli.carry_out import Run, Wish
    from killswitch.exit_codes import exit_code
    from killswitch.model import Mode

    wish = Wish(
        mode=Mode.LIVE,
        reason=reason,
        trigger_value=trigger_value,
        incident=incident,
        freeze_only=freeze_only,
        touch_timeout_s=touch_timeout,
        deadline_s=deadline,
        yes=yes,
    )
    session.end(exit_code(Run(session, config, wish).carry_out()))
