"""`killswitch status`: would a halt work today, and what is live; no touch."""

from killswitch.cli.session import Session


def status(session: Session) -> None:
    """Say whether a halt would work today: keys, drill, journal, every system, open halts.

    Reads only. Exit code 0 when armed, 8 when something is to be mended.
    """
    from killswitch.cli.readiness import show

    session.end(show(session))
