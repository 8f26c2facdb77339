"""`killswitch exit-codes`: the table that scripts and on-call pages rely on."""

from killswitch.cli.session import Session


def exit_codes(session: Session) -> None:
    """Name every exit code."""
    from killswitch.exit_codes import ExitCode

    session.terminal.document(
        {
            "schema_version": 1,
            "document": "exit-codes",
            "codes": {str(int(code)): code.meaning for code in ExitCode},
        }
    )
    for code in ExitCode:
        session.terminal.result(f" {int(code):>4}  {code.meaning}")
