"""The first line of a run: printed before anything slow is imported."""

from killswitch.cli.session import Session
from killswitch.config import Config, load_config


def announced(session: Session, *, live: bool) -> Config:
    """Load the configuration that applies, and say at once what is about to be done with it."""
    config = load_config(session.demand_config())
    word = "LIVE" if live else "DRILL"
    what = "halt" if live else "drill"
    digest = f"{config.sha256[:4]} {config.sha256[4:8]}"
    session.terminal.ask(
        "SANDBOX" if config.sandbox else word,
        f'{what} "{config.name}" with {config.path.name} ({digest})',
    )
    return config
