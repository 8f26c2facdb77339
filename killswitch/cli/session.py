"""What every command has: the common options, the terminal, and one way to end."""

import contextlib
import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from killswitch import __version__
from killswitch.cli.terminal import Terminal
from killswitch.errors import NOTHING_DONE, ConfigError, KillswitchError, VendorError
from killswitch.exit_codes import ExitCode
from killswitch.secret import redact

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The configuration, instead of killswitch.toml."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Print the result and errors only.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Print more.")]
NoColorOption = Annotated[bool, typer.Option("--no-color", help="Print without colours.")]
NoInputOption = Annotated[bool, typer.Option("--no-input", help="Never ask for anything.")]
ForcePinOption = Annotated[
    bool, typer.Option("--force-pin", help="Ask for a key's PIN even when few tries are left.")
]

_COMMON: dict[str, Any] = {
    "config": ConfigOption,
    "json": JsonOption,
    "quiet": QuietOption,
    "verbose": VerboseOption,
    "no_color": NoColorOption,
    "no_input": NoInputOption,
    "force_pin": ForcePinOption,
}


@dataclass(frozen=True, slots=True)
class Session:
    """One run of one command."""

    terminal: Terminal
    config_path: Path | None
    no_input: bool
    environment: Mapping[str, str]
    force_pin: bool = False

    def now(self) -> datetime:
        """Return the time, aware, UTC."""
        return datetime.now(UTC)

    def random_bytes(self, count: int) -> bytes:
        """Return random bytes from the operating system."""
        return os.urandom(count)

    def find_config(self) -> Path | None:
        """Return the configuration file that applies, or None."""
        from killswitch.config import find_config

        return find_config(self.config_path, self.environment)

    def demand_config(self) -> Path:
        """Return the configuration file that applies.

        Raises:
            ConfigError: there is none.
        """
        path = self.find_config()
        if path is None:
            raise ConfigError(
                "no killswitch.toml here, in $KILLSWITCH_CONFIG or in your configuration folder",
                hint="killswitch init writes a commented one; killswitch drill needs none",
            )
        return path

    def end(self, code: ExitCode) -> NoReturn:
        """End the command with this code."""
        raise typer.Exit(int(code))


def command(
    app: typer.Typer, name: str, **settings: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as command `name`; it gets a Session and its own options."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(function).parameters.values()
        common = [
            inspect.Parameter(
                key,
                inspect.Parameter.KEYWORD_ONLY,
                default=None if key == "config" else False,
                annotation=kind,
            )
            for key, kind in _COMMON.items()
        ]
        kept = [part.replace(kind=inspect.Parameter.KEYWORD_ONLY) for part in own]
        kept = [part for part in kept if part.name != "session"]

        @functools.wraps(function)
        def run(**options: Any) -> None:
            before: Mapping[str, Any] = options.pop("ctx").obj or {}
            mine = {key: options.pop(key) or before.get(key) for key in _COMMON}
            with _ended_in_words(terminal := _terminal(mine), halt=name == "revoke"):
                session = Session(
                    terminal,
                    mine["config"],
                    bool(mine["no_input"]),
                    os.environ,
                    bool(mine["force_pin"]),
                )
                function(session, **options)

        context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        signature = inspect.Signature([context, *kept, *common])
        run.__signature__ = signature  # type: ignore[attr-defined]  # what typer reads
        run.__annotations__ = {part.name: part.annotation for part in signature.parameters.values()}
        app.command(name, **settings)(run)
        return function

    return register


def remember_common(
    ctx: typer.Context,
    *,
    config: ConfigOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    no_color: NoColorOption = False,
    no_input: NoInputOption = False,
    force_pin: ForcePinOption = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version, and end.", is_eager=True)
    ] = False,
) -> None:
    """Keep the common options that stand before the command's name."""
    if version:
        typer.echo(f"killswitch {__version__}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit(int(ExitCode.USAGE))
    ctx.obj = {
        "config": config,
        "json": json,
        "quiet": quiet,
        "verbose": verbose,
        "no_color": no_color,
        "no_input": no_input,
        "force_pin": force_pin,
    }


def _terminal(common: Mapping[str, Any]) -> Terminal:
    return Terminal(
        as_json=bool(common["json"]),
        quiet=bool(common["quiet"]),
        verbose=bool(common["verbose"]),
        colour=False if common["no_color"] else None,
    )


@contextlib.contextmanager
def _ended_in_words(terminal: Terminal, *, halt: bool) -> Any:
    """Turn what a command raises into three lines and an exit code.

    That trading is still live is for a halt to say: after one, it is not true.
    """
    try:
        yield
    except KillswitchError as error:
        if error.effect == NOTHING_DONE and not halt:
            error.effect = "nothing was changed"
        terminal.error(error)
        raise typer.Exit(error.exit_code) from None
    except VendorError as error:
        told = KillswitchError(
            error.problem,
            effect="what was done up to here stands in the journal",
            hint="make it readable and writable, then run this again",
        )
        terminal.error(told)
        raise typer.Exit(int(ExitCode.NOT_READY)) from None
    except KeyboardInterrupt:
        from killswitch.errors import AbortedError

        terminal.error(AbortedError("stopped", hint="nothing to undo"))
        raise typer.Exit(int(ExitCode.ABORTED)) from None
    except typer.Exit:
        raise
    except Exception as error:  # noqa: BLE001 (the last boundary: a bug becomes exit code 1)
        terminal.error(_bug(error))
        raise typer.Exit(int(ExitCode.BUG)) from None


def _bug(error: Exception) -> KillswitchError:
    """Write the traceback, redacted, to a file of its own, and name it."""
    import tempfile

    text = redact("".join(traceback.format_exception(error)))
    where = "no file could be written"
    with contextlib.suppress(OSError):
        handle, path = tempfile.mkstemp(prefix="killswitch-bug-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(f"python {sys.version}\n{text}")
        where = f"details: {path}"
    return KillswitchError(
        f"a bug in killswitch: {type(error).__name__}",
        effect="what was done up to here stands in the journal; assume that trading is live",
        hint=f'{where}; docs/runbook.md "By hand"',
    )
