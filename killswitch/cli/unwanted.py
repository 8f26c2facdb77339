"""Words on a command line that may be a secret: refused, and not shown again."""

from typing import Annotated

import typer

from killswitch.errors import UsageError

Unwanted = Annotated[list[str] | None, typer.Argument(hidden=True)]
"""Takes what the parser itself would repeat in its message."""


def refuse_words(words: list[str] | None, *, effect: str, hint: str) -> None:
    """Raise UsageError when there are any."""
    if words:
        raise UsageError(
            "a secret never stands on the command line, where others may read it",
            effect=effect,
            hint=f"if it was one, make it anew; then {hint}",
        )
