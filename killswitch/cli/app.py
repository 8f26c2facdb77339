"""The command line: every command, where it is, and nothing else."""

from collections.abc import Callable, Sequence

import typer

from killswitch.cli.drill import drill
from killswitch.cli.exit_codes import exit_codes
from killswitch.cli.init import check, init
from killswitch.cli.journal import repair, verify_journal
from killswitch.cli.keys import enroll, list_keys, remove
from killswitch.cli.recovery import recovery
from killswitch.cli.report import report, resolve
from killswitch.cli.revoke import revoke
from killswitch.cli.ring_repair import adopt, restore
from killswitch.cli.sandbox import sandbox
from killswitch.cli.secrets import list_secrets, reseal, rotate, set_secret
from killswitch.cli.secrets import remove as remove_secret
from killswitch.cli.session import command, remember_common
from killswitch.cli.status import status

_COMMANDS: dict[str, Callable[..., None]] = {
    "revoke": revoke,
    "drill": drill,
    "status": status,
    "init": init,
    "sandbox": sandbox,
    "report": report,
    "resolve": resolve,
    "exit-codes": exit_codes,
}
_GROUPS: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "keys": (
        "Who may halt.",
        {
            "enroll": enroll,
            "list": list_keys,
            "remove": remove,
            "recovery": recovery,
            "adopt": adopt,
            "restore": restore,
        },
    ),
    "secrets": (
        "What the keys open.",
        {
            "set": set_secret,
            "rotate": rotate,
            "list": list_secrets,
            "remove": remove_secret,
            "reseal": reseal,
        },
    ),
    "journal": ("The evidence.", {"verify": verify_journal, "repair": repair}),
    "config": ("The configuration.", {"check": check}),
}


def command_line(only: str = "") -> typer.Typer:
    """Return the command line: all of it, or `only` one command or group, which starts sooner."""
    app = typer.Typer(
        name="killswitch",
        add_completion=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help=(
            "One touch of a security key halts an automated trading deployment, and proves it.\n\n"
            "In an emergency: killswitch --revoke"
        ),
    )
    app.callback(invoke_without_command=True)(remember_common)
    for name, function in _COMMANDS.items():
        if only in {"", name}:
            command(app, name)(function)
    for group, (told, members) in _GROUPS.items():
        if only in {"", group}:
            part = typer.Typer(no_args_is_help=True, help=told)
            for name, function in members.items():
                command(part, name)(function)
            app.add_typer(part, name=group)
    return app


def main(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    return _exit_code(_spelt_out(list(arguments)))


def _spelt_out(arguments: list[str]) -> list[str]:
    """Turn `killswitch [options] --revoke [options]` into the command of that name."""
    if "--revoke" in arguments and arguments[0].startswith("-"):
        return ["revoke", *(word for word in arguments if word != "--revoke")]
    return arguments


def _exit_code(arguments: list[str]) -> int:
    first = arguments[0] if arguments else ""
    app = command_line(first if first in _COMMANDS or first in _GROUPS else "")
    try:
        app(arguments, prog_name="killswitch", standalone_mode=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0
